// Exports a conversation as a Markdown file. Loaded on demand.

import { h } from './dom.js';
import { formatAge, t } from './i18n.js';

/** Pure. `turns` are oldest first; `failedProviders(turn)` returns the providers that failed on a turn. */
export function toMarkdown(title, turns, failedProviders) {
  const parts = [`# ${title}`];
  for (const turn of turns) {
    parts.push(`## ${[t.you, turn.at].filter(Boolean).join(' · ')}`, turn.question, `## ${t.answer}`, turn.text);
    const notes = describeAnswer(turn, failedProviders).join(' · ');
    if (notes) parts.push(`_${notes}_`);
    const { followup } = turn;
    if (followup) parts.push(`## ${t.later(followup.provider, followup.at)}`, followup.text);
  }
  return `${parts.filter(Boolean).join('\n\n')}\n`;
}

function describeAnswer(turn, failedProviders) {
  const source = t.sources[turn.source]?.(formatAge(turn.ageS));
  const chip = turn.source === 'ai' && turn.provider && t.answeredBy(turn.provider, failedProviders(turn));
  return [source ?? chip, t.endings[turn.state] ?? t.endings[turn.finish]].filter(Boolean);
}

/** Downloads a text as a file. `parent` briefly holds the link that this needs. */
export function download(text, parent) {
  const href = URL.createObjectURL(new Blob([text], { type: 'text/markdown' }));
  const link = h('a', { href, hidden: true, download: `conversation-${new Date().toISOString().slice(0, 10)}.md` });
  parent.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(href), 10_000);
}

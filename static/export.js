// A conversation as a Markdown file. Loaded when it is asked for.

import { h } from './dom.js';
import { age, texts } from './texts.js';

/** Pure. `turns` oldest first; `unavailable(turn)` names who failed on it. */
export function toMarkdown(title, turns, unavailable) {
  const parts = [`# ${title}`];
  for (const turn of turns) {
    parts.push(`## ${[texts.you, turn.at].filter(Boolean).join(' · ')}`, turn.question, `## ${texts.answer}`, turn.text);
    const said = notes(turn, unavailable).join(' · ');
    if (said) parts.push(`_${said}_`);
    const { followup } = turn;
    if (followup) parts.push(`## ${texts.later(followup.provider, followup.at)}`, followup.text);
  }
  return `${parts.filter(Boolean).join('\n\n')}\n`;
}

function notes(turn, unavailable) {
  const source = texts.sources[turn.source]?.(age(turn.ageS));
  const chip = turn.source === 'ai' && turn.provider && texts.answeredBy(turn.provider, unavailable(turn));
  return [source ?? chip, texts.endings[turn.state] ?? texts.endings[turn.finish]].filter(Boolean);
}

/** Hands the file to the browser's downloads. `near`: where the link may stand meanwhile. */
export function download(text, near) {
  const href = URL.createObjectURL(new Blob([text], { type: 'text/markdown' }));
  const link = h('a', { href, hidden: true, download: `conversation-${new Date().toISOString().slice(0, 10)}.md` });
  near.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(href), 10_000);
}

// A conversation as a Markdown file.

import { texts } from './texts.js';
import { unavailable } from './transcript.js';

/** Pure. `turns` oldest first. */
export function toMarkdown(title, turns) {
  const parts = [`# ${title}`];
  for (const turn of turns) {
    const when = turn.at ? ` · ${turn.at}` : '';
    parts.push(`## ${texts.you}${when}`, turn.question);
    if (turn.state === 'running' && turn.text === '') continue;
    parts.push(`## ${texts.answer}`, turn.text);
    const said = notes(turn);
    if (said.length) parts.push(`_${said.join(' · ')}_`);
    if (turn.followup) {
      parts.push(`## ${texts.later(turn.followup.provider, turn.followup.at)}`, turn.followup.text);
    }
  }
  return `${parts.filter(Boolean).join('\n\n')}\n`;
}

function notes(turn) {
  const said = [];
  if (texts.sources[turn.source]) said.push(texts.sources[turn.source](texts.age(turn.ageS)));
  else if (turn.provider) said.push(texts.answeredBy(turn.provider, unavailable(turn)));
  if (turn.state === 'stopped' || turn.state === 'interrupted') said.push(texts[turn.state]);
  else if (texts.finishes[turn.finish]) said.push(texts.finishes[turn.finish]);
  return said;
}

/** Hands the file to the browser's downloads. */
export function download(name, text, near) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], { type: 'text/markdown' }));
  link.download = name;
  link.hidden = true;
  near.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// What is said by a message that has no turn yet. Pure.

import { texts } from './texts.js';

/** How an outbox entry is to be shown: `{id, text, state, note, acts}`. `most`: the longest message allowed. */
export function describe(entry, { open, running, now, most }) {
  const { id, state, error } = entry;
  const shown = { id, text: entry.text ?? '', state, note: '', acts: [] };
  if (state === 'refused') {
    shown.note = texts.errors[error]?.(most) ?? texts.errors.internal();
    // What the service could not take needs another wording; what broke there may be tried as it is.
    shown.acts = [error === 'internal' ? 'tryAgain' : 'edit', 'discard'];
  } else if (state === 'waiting') {
    if (!open) shown.note = texts.toSend;
    else if (running) shown.note = texts.toSendAfter;
    else if (error) shown.note = texts.errors[error]?.(Math.max(1, Math.ceil((entry.until - now) / 1_000))) ?? texts.toSend;
    else shown.note = texts.toSend;
  } else if (entry.kind === 'retry') {
    shown.note = texts.again;
  }
  return shown;
}

// What was written and is not yet accepted. Every entry has a `client_msg_id` and is kept in storage until the server has
// it, so that a reload or a lost line neither loses it nor sends it twice: the same id is the same turn. Pure but for the
// storage it is given.

import { texts } from './texts.js';

const UNANSWERED_MS = 10_000; // no word by then: sent again; the id makes that harmless
const PASSING = new Set(['busy', 'rate_limited', 'shutting_down']); // a matter of time; other errors are the writer's to mend

export class Outbox {
  /** `newId()` gives an unused id; `prefix` marks the storage's keys as ours. */
  constructor({ storage, prefix, newId }) {
    Object.assign(this, { storage, prefix, newId });
    /** Oldest first: `{id, turn, text, options, conversation, at, state, error, until}`; `turn`: it is a retry of that one. */
    this.entries = [];
    /** Nothing is sent before: the server asked for patience. */
    this.heldUntil = 0;
  }

  /** Reads back what an earlier page left for this conversation, or for one not yet named. */
  load(conversation) {
    const left = this.storage.keys(this.prefix).map((key) => this.storage.get(key))
      .filter((entry) => entry && !this.get(entry.id) && (entry.conversation ?? conversation) === conversation);
    left.sort((a, b) => a.at - b.at);
    this.entries.push(...left.map((entry) => ({ ...entry, state: entry.error ? 'refused' : 'waiting' })));
  }

  /** All entries belong to this conversation now: it got its name, or they are carried over into it. */
  adopt(conversation) {
    for (const entry of this.entries) this.#put(entry, { conversation });
  }

  get(id) {
    return this.entries.find((entry) => entry.id === id);
  }

  /** Takes a message (`text`) or a retry (`turn`). */
  add({ text = '', turn = null, options = null, conversation, now }) {
    const entry = { id: this.newId(), turn, text, options, at: now };
    this.entries.push(entry);
    this.#put(entry, { conversation, state: 'waiting', error: null });
    return entry;
  }

  /**
   * The frame to send now, or null. In order and one at a time: the next is held back while a turn runs, while one is
   * unanswered, and while the server asked for patience.
   */
  next({ open, running, now }) {
    const entry = this.entries.find((one) => one.state !== 'refused');
    if (!entry || !open || running || now < this.heldUntil) return null;
    if (entry.state === 'sent' && now - entry.sentAt < UNANSWERED_MS) return null;
    Object.assign(entry, { state: 'sent', sentAt: now, error: null });
    const { id, turn, text, options } = entry;
    if (turn) return { type: 'retry', turn, client_msg_id: id };
    return { type: 'send', client_msg_id: id, text, ...(options && { options }) };
  }

  /** The server has it. Gives the entry. */
  accepted(id) {
    const entry = this.get(id);
    if (entry) this.remove(id);
    return entry;
  }

  /** The server's `error` for an entry. Gives the entry. */
  failed({ code, retryAfterS, id, now }) {
    const entry = this.get(id);
    if (!entry) return undefined;
    if (PASSING.has(code)) {
      // `busy` without a time means: after the running turn, and `next` waits for its end anyway.
      this.heldUntil = Math.max(this.heldUntil, now + (retryAfterS ?? (code === 'busy' ? 1 : 5)) * 1_000);
      Object.assign(entry, { state: 'waiting', error: code, until: this.heldUntil });
    } else {
      this.#put(entry, { state: 'refused', error: code });
    }
    return entry;
  }

  /** What was sent and not accepted is to be sent again. */
  lineLost() {
    for (const entry of this.entries) if (entry.state === 'sent') entry.state = 'waiting';
  }

  /** A refused entry is tried again as it is. */
  again(id) {
    const entry = this.get(id);
    if (entry) this.#put(entry, { state: 'waiting', error: null });
  }

  remove(id) {
    this.entries = this.entries.filter((entry) => entry.id !== id);
    this.storage.remove(this.prefix + id);
  }

  #put(entry, change) {
    Object.assign(entry, change);
    const { id, turn, text, options, conversation, at, state } = entry;
    // A hold is the moment's affair: only a refusal is remembered.
    const error = state === 'refused' ? entry.error : null;
    this.storage.set(this.prefix + id, { id, turn, text, options, conversation, at, error });
  }
}

/** How an entry is shown: `{id, text, state, note, acts}`. `most`: the longest message allowed. */
export function describe({ id, text, turn, state, error, until }, { open, running, now, most }) {
  let note = '';
  let acts = [];
  if (state === 'refused') {
    note = (texts.errors[error] ?? texts.errors.internal)(most);
    // What the service could not take needs another wording; what broke there may be tried as it is.
    acts = [error === 'internal' ? 'tryAgain' : 'edit', 'discard'];
  } else if (state === 'waiting') {
    note = open && running ? texts.toSendAfter : texts.toSend;
    if (open && !running && error) note = texts.errors[error](Math.max(1, Math.ceil((until - now) / 1_000)));
  } else if (turn) {
    note = texts.again;
  }
  return { id, text, state, note, acts };
}

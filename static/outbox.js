// The messages that the server has not accepted yet. Each has a `client_msg_id` and stays in storage until it is accepted,
// so that it survives a reload or a lost connection. Sending it twice is harmless: the same id is the same turn.

import { t } from './i18n.js';

const ACCEPT_TIMEOUT_MS = 10_000; // after that the message is sent again, with the same id
const TRANSIENT = new Set(['busy', 'rate_limited', 'shutting_down']); // all others need the visitor's attention

export class Outbox {
  /** `newId()` returns an unused id; `prefix` starts every storage key of this outbox. */
  constructor({ storage, prefix, newId }) {
    Object.assign(this, { storage, prefix, newId });
    /** Oldest first: `{id, turn, text, options, conversation, at, state, error, until}`. `turn` is set for a retry of that turn. */
    this.entries = [];
    /** Nothing is sent before this time, because the server asked to wait. */
    this.pausedUntil = 0;
  }

  /** Loads the entries that an earlier page stored for this conversation, or for one without an id yet. */
  load(conversation) {
    const stored = this.storage.keys(this.prefix).map((key) => this.storage.get(key))
      .filter((entry) => entry && !this.get(entry.id) && (entry.conversation ?? conversation) === conversation);
    stored.sort((a, b) => a.at - b.at);
    this.entries.push(...stored.map((entry) => ({ ...entry, state: entry.error ? 'refused' : 'waiting' })));
  }

  /** Moves all entries to this conversation: it got its id, or the visitor started a new one. */
  setConversation(conversation) {
    for (const entry of this.entries) this.#update(entry, { conversation });
  }

  get(id) {
    return this.entries.find((entry) => entry.id === id);
  }

  /** Adds a message (`text`) or a retry (`turn`). */
  add({ text = '', turn = null, options = null, conversation, now }) {
    const entry = { id: this.newId(), turn, text, options, at: now };
    this.entries.push(entry);
    this.#update(entry, { conversation, state: 'waiting', error: null });
    return entry;
  }

  /**
   * Returns the frame to send now, or `null`. Entries go in order, one at a time: the next one waits while a turn runs,
   * while one is sent but not accepted, and while the server asked to wait.
   */
  next({ isOpen, isBusy, now }) {
    const entry = this.entries.find(({ state }) => state !== 'refused');
    if (!entry || !isOpen || isBusy || now < this.pausedUntil) return null;
    if (entry.state === 'sent' && now - entry.sentAt < ACCEPT_TIMEOUT_MS) return null;
    Object.assign(entry, { state: 'sent', sentAt: now, error: null });
    const { id, turn, text, options } = entry;
    if (turn) return { type: 'retry', turn, client_msg_id: id };
    return { type: 'send', client_msg_id: id, text, ...(options && { options }) };
  }

  /** Removes and returns the entry that the server has accepted. */
  accept(id) {
    const entry = this.get(id);
    if (entry) this.remove(id);
    return entry;
  }

  /** Applies the server's `error` to its entry, and returns the entry. */
  fail({ code, retryAfterS, id, now }) {
    const entry = this.get(id);
    if (!entry) return undefined;
    if (TRANSIENT.has(code)) {
      // `busy` without a time means: after the running turn. `next` waits for its end anyway.
      this.pausedUntil = Math.max(this.pausedUntil, now + (retryAfterS ?? (code === 'busy' ? 1 : 5)) * 1_000);
      Object.assign(entry, { state: 'waiting', error: code, until: this.pausedUntil });
    } else {
      this.#update(entry, { state: 'refused', error: code });
    }
    return entry;
  }

  /** Marks entries that were sent but not accepted to be sent again, after the connection was lost. */
  requeueSent() {
    for (const entry of this.entries) if (entry.state === 'sent') entry.state = 'waiting';
  }

  /** Queues a refused entry again, unchanged. */
  retry(id) {
    const entry = this.get(id);
    if (entry) this.#update(entry, { state: 'waiting', error: null });
  }

  remove(id) {
    this.entries = this.entries.filter((entry) => entry.id !== id);
    this.storage.remove(this.prefix + id);
  }

  #update(entry, change) {
    Object.assign(entry, change);
    const { id, turn, text, options, conversation, at, state } = entry;
    // Transient errors are not stored: they mean nothing to a later page.
    const error = state === 'refused' ? entry.error : null;
    this.storage.set(this.prefix + id, { id, turn, text, options, conversation, at, error });
  }
}

/** Returns how an entry is shown: `{id, text, state, note, actions}`. `maxChars` is the longest message allowed. */
export function describeEntry({ id, text, turn, state, error, until }, { isOpen, isBusy, now, maxChars }) {
  let note = '';
  let actions = [];
  if (state === 'refused') {
    note = (t.errors[error] ?? t.errors.internal)(maxChars);
    // After a fault of the service the same text may work; otherwise it must change.
    actions = [error === 'internal' ? 'tryAgain' : 'edit', 'discard'];
  } else if (state === 'waiting') {
    note = isOpen && isBusy ? t.waitingForAnswer : t.waitingToSend;
    if (isOpen && !isBusy && error) note = t.errors[error](Math.max(1, Math.ceil((until - now) / 1_000)));
  } else if (turn) {
    note = t.askedAgain;
  }
  return { id, text, state, note, actions };
}

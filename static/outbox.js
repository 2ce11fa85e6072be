// What was written and is not yet accepted. Every entry has a `client_msg_id` and is kept in the browser's storage until
// the server accepts it, so a reload or a lost line neither loses it nor sends it twice: the same id is the same turn.
// Pure but for the storage it is given.

// With no word on an entry after this time it is sent again; its id makes that harmless.
const UNANSWERED_MS = 10_000;

export class Outbox {
  /** `storage` speaks like localStorage; `prefix` marks the keys as ours; `newId()` gives an unused id. */
  constructor({ storage, prefix, newId }) {
    Object.assign(this, { storage, prefix: `${prefix}out:`, newId });
    /** Waiting entries, oldest first: `{id, kind, text, turn, at, state, error, until}`. */
    this.entries = [];
    /** Nothing is sent before this moment: the server asked for patience. */
    this.heldUntil = 0;
  }

  /** Reads back what an earlier page left for this conversation, or for one not yet named. */
  load(conversation) {
    const stored = [];
    for (const key of this.storage.keys(this.prefix)) {
      const entry = parse(this.storage.get(key));
      if (entry && (entry.conversation === null || entry.conversation === conversation)) stored.push(entry);
    }
    stored.sort((a, b) => a.at - b.at);
    for (const entry of stored) {
      if (this.get(entry.id)) continue;
      this.entries.push({ ...entry, state: entry.error ? 'refused' : 'waiting' });
    }
  }

  /** Entries written before the conversation had a name, or carried over into a new one, belong to this one now. */
  adopt(conversation) {
    for (const entry of this.entries) {
      entry.conversation = conversation;
      this.#keep(entry);
    }
  }

  get(id) {
    return this.entries.find((entry) => entry.id === id);
  }

  /** Takes a message (`text`) or a retry (`turn`). */
  add({ text = null, turn = null, options = null, conversation, now }) {
    const entry = {
      id: this.newId(),
      kind: turn ? 'retry' : 'send',
      text,
      turn,
      options,
      conversation,
      at: now,
      state: 'waiting', // waiting | sent | refused
      error: null,
      until: 0,
      sentAt: 0,
    };
    this.entries.push(entry);
    this.#keep(entry);
    return entry;
  }

  /**
   * The frame to send now, or null. One at a time and in order: the next is held back while a turn runs, while one
   * is unanswered, and while the server asked for patience.
   */
  next({ open, running, now }) {
    if (!open || running || now < this.heldUntil) return null;
    const entry = this.entries.find((one) => one.state !== 'refused');
    if (!entry) return null;
    if (entry.state === 'sent' && now - entry.sentAt < UNANSWERED_MS) return null;
    entry.state = 'sent';
    entry.sentAt = now;
    entry.error = null;
    if (entry.kind === 'retry') return { type: 'retry', turn: entry.turn, client_msg_id: entry.id };
    const frame = { type: 'send', client_msg_id: entry.id, text: entry.text };
    if (entry.options) frame.options = entry.options;
    return frame;
  }

  /** The server has it (`accepted`, `start`, or the history names its id). Gives the entry. */
  accepted(id) {
    const entry = this.get(id);
    if (entry) this.remove(id);
    return entry;
  }

  /** The server's `error` for an entry: some are a matter of time, the others are for the writer to mend. */
  failed({ code, retryAfterS, id, now }) {
    const entry = this.get(id);
    if (!entry) return null;
    if (PASSING.has(code)) {
      // `busy` without a time means: after the turn that runs, and `next` waits for its end anyway.
      const wait = (retryAfterS ?? (code === 'busy' ? 1 : 5)) * 1_000;
      this.heldUntil = Math.max(this.heldUntil, now + wait);
      Object.assign(entry, { state: 'waiting', error: code, until: this.heldUntil });
    } else {
      Object.assign(entry, { state: 'refused', error: code, until: 0 });
      this.#keep(entry);
    }
    return entry;
  }

  /** The line was lost: what was sent and not accepted is to be sent again under the same id. */
  lineLost() {
    for (const entry of this.entries) if (entry.state === 'sent') entry.state = 'waiting';
  }

  /** Tries a refused entry again as it is. */
  again(id) {
    const entry = this.get(id);
    if (!entry) return;
    Object.assign(entry, { state: 'waiting', error: null });
    this.#keep(entry);
  }

  remove(id) {
    this.entries = this.entries.filter((entry) => entry.id !== id);
    this.storage.remove(this.prefix + id);
  }

  #keep(entry) {
    const { state, until, sentAt, ...kept } = entry;
    // A hold is the moment's affair; only a refusal is remembered.
    this.storage.set(this.prefix + entry.id, JSON.stringify({ ...kept, error: state === 'refused' ? entry.error : null }));
  }
}

const PASSING = new Set(['busy', 'rate_limited', 'shutting_down']);

function parse(text) {
  try {
    const entry = JSON.parse(text);
    return entry && typeof entry.id === 'string' ? entry : null;
  } catch {
    return null;
  }
}

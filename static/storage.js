// What the browser keeps for us, as JSON. Where that is forbidden or full the chat goes on: it only forgets with the page.

/** `area()` gives localStorage or sessionStorage; to ask for it may throw already. */
export function openStorage(area = () => localStorage) {
  const attempt = (work, otherwise) => {
    try {
      return work(area());
    } catch {
      return otherwise;
    }
  };
  return {
    get: (key) => attempt((real) => JSON.parse(real.getItem(key)), null),
    set: (key, value) => attempt((real) => real.setItem(key, JSON.stringify(value))),
    remove: (key) => attempt((real) => real.removeItem(key)),
    /** The keys with this beginning. */
    keys: (prefix) => attempt((real) => Object.keys(real).filter((key) => key.startsWith(prefix)), []),
  };
}

/** 128 random bits in base64url: a message's id, or a conversation's. */
export function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').slice(0, 22);
}

const EVERY_MS = 250;
const MOST = 5; // answers kept a conversation

/**
 * What this browser has shown of answers that are not whole. A reload paints it at once; and where the server went down,
 * the page may have shown more than had reached its disk.
 */
export class Kept {
  constructor(storage, key) {
    Object.assign(this, { storage, key, saved: 0 });
  }

  /** Kept turns, oldest first. */
  all() {
    return this.storage.get(this.key) ?? [];
  }

  /** Keeps a turn as shown: while it runs at most four times a second, unless `force`. */
  save(turn, now, force = false) {
    if (!force && now - this.saved < EVERY_MS) return;
    this.saved = now;
    const { id, mid, at, question, text, drafts, provider, model, retryOf, state } = turn;
    const others = this.all().filter((one) => one.id !== id);
    this.storage.set(this.key, [...others, { id, mid, at, question, text, drafts, provider, model, retryOf, state }].slice(-MOST));
  }

  /** The server has all of it. */
  drop(id) {
    const turns = this.all();
    const others = turns.filter((one) => one.id !== id);
    if (others.length < turns.length) this.storage.set(this.key, others);
  }
}

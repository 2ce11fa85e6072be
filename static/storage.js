// Browser storage, with values as JSON. If storage is blocked or full, the chat works on without it and forgets its state
// when the page closes.

/** `getStorage()` returns localStorage or sessionStorage. It is a function because even reading that property may throw. */
export function openStorage(getStorage = () => localStorage) {
  const attempt = (access, fallback) => {
    try {
      return access(getStorage());
    } catch {
      return fallback;
    }
  };
  return {
    get: (key) => attempt((storage) => JSON.parse(storage.getItem(key)), null),
    set: (key, value) => attempt((storage) => storage.setItem(key, JSON.stringify(value))),
    remove: (key) => attempt((storage) => storage.removeItem(key)),
    keys: (prefix) => attempt((storage) => Object.keys(storage).filter((key) => key.startsWith(prefix)), []),
  };
}

/** Returns 128 random bits in base64url, for message and conversation ids. */
export function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').slice(0, 22);
}

const SAVE_INTERVAL_MS = 250;
const MAX_PARTIALS = 5; // per conversation

/**
 * Unfinished answers as this browser showed them. A reload paints them at once. After a server crash they may hold more
 * text than the server had written to disk.
 */
export class PartialAnswers {
  constructor(storage, key) {
    Object.assign(this, { storage, key, savedAt: 0 });
  }

  /** The saved turns, oldest first. */
  all() {
    return this.storage.get(this.key) ?? [];
  }

  /** Saves a turn as shown, at most four times a second unless `force` is set. */
  save(turn, now, force = false) {
    if (!force && now - this.savedAt < SAVE_INTERVAL_MS) return;
    this.savedAt = now;
    // The field names are part of the stored format.
    const { id, mid, at, question, text, drafts, provider, model, retryOf, state } = turn;
    const others = this.all().filter((saved) => saved.id !== id);
    this.storage.set(this.key, [...others, { id, mid, at, question, text, drafts, provider, model, retryOf, state }].slice(-MAX_PARTIALS));
  }

  /** Deletes a turn, once the server has all of it. */
  delete(id) {
    const turns = this.all();
    const others = turns.filter((turn) => turn.id !== id);
    if (others.length < turns.length) this.storage.set(this.key, others);
  }
}

// What this browser has shown of answers that are not whole yet. A reload paints it at once, before the socket is open;
// and where the server went down, the page may have shown more than had reached the disk.

const EVERY_MS = 250;
const MOST = 5; // interrupted answers kept a conversation

export class Kept {
  constructor({ storage, prefix, conversation }) {
    this.storage = storage;
    this.key = `${prefix}shown:${conversation}`;
    this.saved = 0;
  }

  /** Kept turns, oldest first. */
  all() {
    try {
      const turns = JSON.parse(this.storage.get(this.key) ?? '[]');
      return Array.isArray(turns) ? turns.filter((turn) => typeof turn?.id === 'string') : [];
    } catch {
      return [];
    }
  }

  /** Keeps a turn's text as shown. While it runs at most four times a second, unless `force`. */
  save(turn, now, force = false) {
    if (!force && now - this.saved < EVERY_MS) return;
    this.saved = now;
    const { id, mid, at, question, text, drafts, provider, model, retryOf, state } = turn;
    const kept = this.all().filter((one) => one.id !== id);
    kept.push({ id, mid, at, question, text, drafts, provider, model, retryOf, state });
    this.#write(kept.slice(-MOST));
  }

  /** The turn is whole: the server has all of it. */
  drop(id) {
    const kept = this.all();
    if (kept.some((one) => one.id === id)) this.#write(kept.filter((one) => one.id !== id));
  }

  clear() {
    this.storage.remove(this.key);
  }

  #write(turns) {
    if (turns.length) this.storage.set(this.key, JSON.stringify(turns));
    else this.storage.remove(this.key);
  }
}

// The browser's storage under our own names, and memory where it is forbidden or full: the chat goes on, it only
// forgets with the page.

export function openStorage(area = () => globalThis.localStorage) {
  const memory = new Map();
  let real = null;
  try {
    real = area();
    real.getItem('');
  } catch {
    real = null;
  }
  return {
    get(key) {
      return memory.get(key) ?? real?.getItem(key) ?? null;
    },
    set(key, value) {
      try {
        if (!real) throw new Error('no storage');
        real.setItem(key, value);
        memory.delete(key);
      } catch {
        memory.set(key, value);
      }
    },
    remove(key) {
      memory.delete(key);
      real?.removeItem(key);
    },
    /** Our keys with this beginning. */
    keys(prefix) {
      const names = new Set(memory.keys());
      for (let i = 0; i < (real?.length ?? 0); i += 1) names.add(real.key(i));
      return [...names].filter((name) => name.startsWith(prefix));
    },
  };
}

/** 128 random bits in base64url: a message's id, or a conversation's. */
export function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

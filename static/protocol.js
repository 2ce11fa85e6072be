// The socket: hello, noticing a dead line, coming back. It knows no turn and resends nothing: what was accepted and what
// was not is the outbox's to know.

const OPENING_MS = 10_000; // no welcome by then: the try has failed
const PROBE_MS = 2_000; // a line in doubt has this long to answer a ping
const STEADY_MS = 2_000; // a line that lived this long starts the backoff anew

const BASE_MS = 500;
const CAP_MS = 30_000;
const FLOOR_MS = 200; // jitter may draw zero: no tight loop against a server that refuses at once

/**
 * Milliseconds before try number `attempt` (from 0), `chance` being in [0, 1). Exponential with full jitter, so that many
 * pages that lost one server do not come back in one wave.
 */
export function delay(attempt, chance) {
  return Math.max(FLOOR_MS, Math.round(Math.min(CAP_MS, BASE_MS * 2 ** attempt) * chance));
}

export class Connection {
  /**
   * `hello()` gives the hello frame's fields. `onState()` is called when `state` changes, and once a second while
   * waiting, for a countdown.
   */
  constructor({ url, hello, onFrame, onState }) {
    Object.assign(this, { url, hello, onFrame, onState });
    /** `connecting`, `open` (after the welcome), `waiting` (until `retryAt`) or `closed`. */
    this.state = 'connecting';
    this.failures = 0;
    this.heartbeat = 15_000;
  }

  start() {
    this.listening = new AbortController();
    const { signal } = this.listening;
    const nudge = () => this.#nudge();
    document.addEventListener('visibilitychange', nudge, { signal });
    addEventListener('pageshow', nudge, { signal });
    addEventListener('online', nudge, { signal });
    addEventListener('offline', () => this.#doubt(), { signal });
    this.ticker = setInterval(() => this.#tick(), 1_000);
    this.connect();
  }

  /** No further try until `connect()`. */
  hold() {
    this.#forget();
    this.#become('closed');
  }

  /** Ends it for good. */
  close() {
    clearInterval(this.ticker);
    this.listening?.abort();
    this.hold();
  }

  /** Whether the frame went out. */
  send(frame) {
    if (this.state !== 'open' || this.socket.readyState !== 1) return false;
    this.socket.send(JSON.stringify(frame));
    return true;
  }

  /** Says hello, on a new line. */
  connect() {
    this.#forget();
    this.heard = Date.now();
    this.#become('connecting');
    try {
      this.socket = new WebSocket(this.url);
    } catch {
      this.lost(); // a policy of the page that embeds us may forbid the address
      return;
    }
    this.socket.onopen = () => this.socket.send(JSON.stringify({ type: 'hello', ...this.hello() }));
    this.socket.onmessage = ({ data }) => this.#hear(data);
    this.socket.onclose = () => this.lost();
  }

  /** The line is gone, or of no use: try again. `atOnce` skips the wait, but only for a line that had been steady. */
  lost(atOnce = false) {
    const steady = this.state === 'open' && Date.now() - this.opened >= STEADY_MS;
    if (steady) this.failures = 0;
    if (steady && atOnce) {
      this.connect();
      return;
    }
    this.#forget();
    const wait = delay(this.failures++, Math.random());
    this.retryAt = Date.now() + wait;
    this.timer = setTimeout(() => this.connect(), wait);
    this.#become('waiting');
  }

  #hear(data) {
    this.heard = Date.now();
    const frame = JSON.parse(data);
    if (frame.type === 'welcome') {
      this.heartbeat = (frame.heartbeat_s || 15) * 1_000;
      this.opened = this.heard;
      this.#become('open');
    }
    this.onFrame(frame);
  }

  /** The page woke, or the network came back: now is the time. */
  #nudge() {
    if (document.hidden) return;
    if (this.state === 'waiting' || this.#silent()) this.connect();
    else this.#doubt();
  }

  /** Asks the line for a sign of life. */
  #doubt() {
    const { socket } = this;
    const asked = Date.now();
    if (!this.send({ type: 'ping' })) return;
    setTimeout(() => {
      if (this.socket === socket && this.heard < asked) this.connect();
    }, PROBE_MS);
  }

  #silent() {
    return this.state === 'open' && Date.now() - this.heard > 2 * this.heartbeat;
  }

  #tick() {
    if (this.state === 'waiting') this.onState();
    else if (this.#silent()) this.connect();
    else if (this.state === 'connecting' && Date.now() - this.heard > OPENING_MS) this.lost();
  }

  #forget() {
    clearTimeout(this.timer);
    if (!this.socket) return;
    this.socket.onopen = this.socket.onmessage = this.socket.onclose = null;
    this.socket.close();
    this.socket = null;
  }

  #become(state) {
    if (this.state === state) return;
    this.state = state;
    this.onState();
  }
}

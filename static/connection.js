// The WebSocket: sends the hello, detects a dead connection and reconnects. It knows nothing of turns and resends nothing;
// the outbox tracks which messages were accepted.

const CONNECT_TIMEOUT_MS = 10_000; // from the start of a connection to its welcome
const PROBE_TIMEOUT_MS = 2_000; // for any frame after a ping
const STABLE_MS = 2_000; // a connection that lasted this long resets the backoff

const MIN_BACKOFF_MS = 200; // full jitter may draw zero; this prevents a tight loop against a server that refuses at once
const BASE_BACKOFF_MS = 500;
const MAX_BACKOFF_MS = 30_000;

/**
 * Returns the delay in milliseconds before attempt number `attempt` (from 0); `random` is in [0, 1). Exponential backoff
 * with full jitter, so that the pages that lost a server do not all come back at the same moment.
 */
export function backoffDelay(attempt, random) {
  return Math.max(MIN_BACKOFF_MS, Math.round(Math.min(MAX_BACKOFF_MS, BASE_BACKOFF_MS * 2 ** attempt) * random));
}

export class Connection {
  /**
   * `hello()` returns the fields of the hello frame. `onState()` is called when `state` changes, and once a second while
   * waiting, for the countdown.
   */
  constructor({ url, hello, onFrame, onState }) {
    Object.assign(this, { url, hello, onFrame, onState });
    /** `connecting`, `open` (after the welcome), `waiting` (until `retryAt`) or `closed`. */
    this.state = 'connecting';
    this.failures = 0;
    this.heartbeatMs = 15_000;
  }

  start() {
    this.listeners = new AbortController();
    const { signal } = this.listeners;
    const wake = () => this.#wake();
    document.addEventListener('visibilitychange', wake, { signal });
    addEventListener('pageshow', wake, { signal });
    addEventListener('online', wake, { signal });
    addEventListener('offline', () => this.#probe(), { signal });
    this.ticker = setInterval(() => this.#tick(), 1_000);
    this.connect();
  }

  /** Disconnects until `connect()` is called. */
  pause() {
    this.#dropSocket();
    this.#setState('closed');
  }

  /** Disconnects for good. */
  close() {
    clearInterval(this.ticker);
    this.listeners?.abort();
    this.pause();
  }

  /** Returns `true` if the frame was sent. */
  send(frame) {
    if (this.state !== 'open' || this.socket.readyState !== 1) return false;
    this.socket.send(JSON.stringify(frame));
    return true;
  }

  /** Opens a new socket and says hello. */
  connect() {
    this.#dropSocket();
    this.receivedAt = Date.now();
    this.#setState('connecting');
    try {
      this.socket = new WebSocket(this.url);
    } catch {
      this.reconnect(); // the content security policy of an embedding page may forbid the address
      return;
    }
    this.socket.onopen = () => this.socket.send(JSON.stringify({ type: 'hello', ...this.hello() }));
    this.socket.onmessage = ({ data }) => this.#onMessage(data);
    this.socket.onclose = () => this.reconnect();
  }

  /** Replaces a lost or unusable connection. `immediate` skips the delay, but only if the connection was stable. */
  reconnect(immediate = false) {
    const wasStable = this.state === 'open' && Date.now() - this.openedAt >= STABLE_MS;
    if (wasStable) this.failures = 0;
    if (wasStable && immediate) {
      this.connect();
      return;
    }
    this.#dropSocket();
    const delay = backoffDelay(this.failures++, Math.random());
    this.retryAt = Date.now() + delay;
    this.timer = setTimeout(() => this.connect(), delay);
    this.#setState('waiting');
  }

  #onMessage(data) {
    this.receivedAt = Date.now();
    const frame = JSON.parse(data);
    if (frame.type === 'welcome') {
      this.heartbeatMs = (frame.heartbeat_s || 15) * 1_000;
      this.openedAt = this.receivedAt;
      this.#setState('open');
    }
    this.onFrame(frame);
  }

  /** The page became visible or the network came back: reconnects, or checks the connection. */
  #wake() {
    if (document.hidden) return;
    if (this.state === 'waiting' || this.#isSilent()) this.connect();
    else this.#probe();
  }

  /** Sends a ping, and reconnects if nothing arrives in time. */
  #probe() {
    const { socket } = this;
    const sentAt = Date.now();
    if (!this.send({ type: 'ping' })) return;
    setTimeout(() => {
      if (this.socket === socket && this.receivedAt < sentAt) this.connect();
    }, PROBE_TIMEOUT_MS);
  }

  /** Returns `true` if two heartbeats were missed. */
  #isSilent() {
    return this.state === 'open' && Date.now() - this.receivedAt > 2 * this.heartbeatMs;
  }

  #tick() {
    if (this.state === 'waiting') this.onState();
    else if (this.#isSilent()) this.connect();
    else if (this.state === 'connecting' && Date.now() - this.receivedAt > CONNECT_TIMEOUT_MS) this.reconnect();
  }

  #dropSocket() {
    clearTimeout(this.timer);
    if (!this.socket) return;
    this.socket.onopen = this.socket.onmessage = this.socket.onclose = null;
    this.socket.close();
    this.socket = null;
  }

  #setState(state) {
    if (this.state === state) return;
    this.state = state;
    this.onState();
  }
}

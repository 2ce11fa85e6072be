// The socket: opening, hello, noticing a dead line, coming back. It knows no turn and draws nothing; what it hears it
// hands on. It never resends anything by itself: that is for the outbox, which knows what was accepted.

import { delay } from './backoff.js';

const OPENING_MS = 10_000; // no welcome by then: the try has failed
const PROBE_MS = 2_000; // a line in doubt has this long to answer a ping
const STEADY_MS = 2_000; // a line that lived this long starts the backoff anew

export class Connection {
  /**
   * `hello()` gives the fields of the hello frame; `onFrame(frame)` hears every frame; `onState()` is called when
   * `state` changes and once a second while waiting, so that a countdown can be shown.
   */
  constructor({ url, hello, onFrame, onState, random = Math.random, Socket = WebSocket }) {
    Object.assign(this, { url, hello, onFrame, onState, random, Socket });
    /** `connecting`, `open` (after the welcome), `waiting` (until `retryAt`) or `closed`. */
    this.state = 'connecting';
    this.retryAt = 0;
    this.failures = 0;
    this.heartbeat = 15_000;
    this.heard = 0;
    this.opened = 0;
    this.nudge = this.nudge.bind(this);
    this.doubt = this.doubt.bind(this);
  }

  start() {
    this.ticker = setInterval(() => this.tick(), 1_000);
    document.addEventListener('visibilitychange', this.nudge);
    addEventListener('pageshow', this.nudge);
    addEventListener('online', this.nudge);
    addEventListener('offline', this.doubt);
    this.connect();
  }

  /** No further try until `connect()` is called. */
  hold() {
    clearTimeout(this.timer);
    this.forget();
    this.become('closed');
  }

  /** Ends it for good. */
  close() {
    clearInterval(this.ticker);
    document.removeEventListener('visibilitychange', this.nudge);
    removeEventListener('pageshow', this.nudge);
    removeEventListener('online', this.nudge);
    removeEventListener('offline', this.doubt);
    this.hold();
  }

  /** Whether the frame went out. */
  send(frame) {
    if (this.state !== 'open' || this.socket.readyState !== 1) return false;
    this.socket.send(JSON.stringify(frame));
    return true;
  }

  /** Drops the line and says hello again: after a gap in the frames, or for another conversation. */
  again() {
    this.lost(true);
  }

  retryNow() {
    if (this.state === 'waiting') this.connect();
  }

  connect() {
    clearTimeout(this.timer);
    this.forget();
    this.heard = Date.now();
    this.become('connecting');
    let socket;
    try {
      socket = new this.Socket(this.url);
    } catch {
      // A policy of the page that embeds us may forbid the address.
      this.lost();
      return;
    }
    this.socket = socket;
    socket.onopen = () => socket.send(JSON.stringify({ type: 'hello', ...this.hello() }));
    socket.onmessage = ({ data }) => this.hear(data);
    socket.onclose = () => this.lost();
  }

  hear(data) {
    this.heard = Date.now();
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      return;
    }
    if (frame.type === 'welcome') {
      this.heartbeat = (frame.heartbeat_s || 15) * 1_000;
      this.opened = this.heard;
      this.become('open');
    }
    this.onFrame(frame);
  }

  /** The line is gone. `atOnce` skips the wait, but only for a line that had been steady. */
  lost(atOnce = false) {
    if (this.state === 'closed') return;
    const steady = this.state === 'open' && Date.now() - this.opened >= STEADY_MS;
    if (steady) this.failures = 0;
    this.forget();
    if (atOnce && steady) {
      this.connect();
      return;
    }
    const wait = delay(this.failures++, this.random());
    this.retryAt = Date.now() + wait;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.connect(), wait);
    this.become('waiting');
  }

  /** The page woke, or the network came back: now is the time. */
  nudge() {
    if (document.hidden) return;
    if (this.state === 'waiting') this.connect();
    else if (this.state === 'open') {
      if (this.silent()) this.renew();
      else this.doubt();
    }
  }

  /** Asks the line for a sign of life. */
  doubt() {
    const asked = Date.now();
    if (!this.send({ type: 'ping' })) return;
    const socket = this.socket;
    setTimeout(() => {
      if (this.socket === socket && this.heard < asked) this.renew();
    }, PROBE_MS);
  }

  silent() {
    return Date.now() - this.heard > 2 * this.heartbeat;
  }

  renew() {
    if (this.state !== 'closed') this.connect();
  }

  tick() {
    if (this.state === 'waiting') this.onState();
    else if (this.state === 'open' && this.silent()) this.renew();
    else if (this.state === 'connecting' && Date.now() - this.heard > OPENING_MS) this.lost();
  }

  forget() {
    const socket = this.socket;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
    this.socket = null;
  }

  become(state) {
    if (this.state === state) return;
    this.state = state;
    this.onState();
  }
}

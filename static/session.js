// The conversation and its line, without a page: what arrives changes the transcript, what is to go waits in the outbox,
// and whoever presents it is told what changed.

import { Kept } from './kept.js';
import { Outbox } from './outbox.js';
import { Connection } from './protocol.js';
import { randomId } from './storage.js';
import { Transcript } from './transcript.js';

/** A history page of this many turns may have another before it. */
const FULL_PAGE = 100;

export class Session {
  /**
   * `base`: the service's URL. `token`: the visitor's JWT or a function that gives it. `tell(event, detail)` hears
   * `turn` (one changed), `list` (what waits, or the order), `state` (line, status, who runs), `welcome`, `start`, `end`,
   * `followup`, `history`, `error`.
   */
  constructor({ base, storage, prefix, token, tell }) {
    Object.assign(this, { storage, prefix, token, tell });
    this.transcript = new Transcript();
    this.outbox = new Outbox({ storage, prefix, newId: randomId });
    this.opinions = new Map(); // thumbs not yet told, by turn
    this.stopping = null; // {id, text}: Stop was pressed on that turn, at that text
    this.arriving = null; // an accepted entry whose turn has not come yet
    this.refused = false; // the server does not let us into this conversation
    this.more = false; // the history has turns before the first one here
    this.status = null;
    this.limits = {};
    const url = new URL('ws', base);
    url.protocol = url.protocol.replace('http', 'ws');
    this.line = new Connection({
      url: url.href,
      hello: () => this.#hello(),
      onFrame: (frame) => this.#hear(frame),
      onState: () => this.#lineChanged(),
    });
    this.#name(storage.get(`${prefix}conversation`));
    for (const turn of this.kept.all()) this.transcript.recall(turn);
    this.outbox.load(this.conversation);
  }

  start() {
    this.line.start();
  }

  close() {
    clearTimeout(this.timer);
    this.keep(true);
    this.line.close();
  }

  get running() {
    return this.transcript.running ?? null;
  }

  /** What was written and has no turn yet, oldest first. */
  get waiting() {
    return this.arriving ? [this.arriving, ...this.outbox.entries] : this.outbox.entries;
  }

  send(text, options = null) {
    this.outbox.add({ text, options, conversation: this.conversation, now: Date.now() });
    this.pump();
    this.tell('list');
  }

  /** Asks that turn's question again; once, however often the button is pressed. */
  retry(id) {
    if (this.waiting.some((entry) => entry.turn === id)) return;
    this.outbox.add({ turn: id, conversation: this.conversation, now: Date.now() });
    this.pump();
    this.tell('list');
  }

  stop() {
    const turn = this.running;
    if (!turn) return;
    this.stopping = { id: turn.id, text: turn.text };
    this.line.send({ type: 'stop', turn: turn.id });
    this.tell('turn', turn);
    this.tell('state');
  }

  feedback(id, value) {
    const turn = this.transcript.get(id);
    if (!turn) return;
    turn.feedback = value;
    if (!this.line.send({ type: 'feedback', turn: id, value })) this.opinions.set(id, value);
    this.tell('turn', turn);
  }

  /** Whether the turns before the first one were asked for. */
  loadEarlier() {
    const first = this.transcript.turns[0];
    return Boolean(first) && this.line.send({ type: 'history', before: first.id });
  }

  /** A new conversation; what waits to be sent goes with it. */
  fresh() {
    this.kept.clear();
    this.transcript.clear();
    this.stopping = this.arriving = null;
    this.refused = this.more = false;
    this.#name(randomId());
    for (const entry of [...this.outbox.entries]) {
      // An answer of the old conversation cannot be asked for again in this one.
      if (entry.kind === 'retry') this.outbox.remove(entry.id);
      else this.outbox.again(entry.id);
    }
    this.outbox.adopt(this.conversation);
    this.line.connect();
    this.tell('list');
    this.tell('state');
  }

  identify(token) {
    this.token = token;
    this.refused = false;
    this.line.connect();
  }

  /** Keeps the running turn's text as the page has shown it. */
  keep(force = false) {
    const turn = this.running;
    if (turn && turn.text !== '') this.kept.save(turn, Date.now(), force);
  }

  /** Sends what may be sent now, and comes back when a hold of the server's ends. */
  pump() {
    clearTimeout(this.timer);
    const now = Date.now();
    const open = this.line.state === 'open';
    const frame = this.outbox.next({ open, running: Boolean(this.running ?? this.arriving), now });
    if (frame && !this.line.send(frame)) this.outbox.lineLost();
    const hold = this.outbox.heldUntil - now;
    if (hold > 0 && this.outbox.entries.length > 0) {
      this.timer = setTimeout(() => {
        this.pump();
        this.tell('list'); // its countdown
      }, Math.min(1_000, hold));
    }
  }

  #name(conversation) {
    this.conversation = conversation;
    if (conversation) this.storage.set(`${this.prefix}conversation`, conversation);
    this.kept = new Kept({ storage: this.storage, prefix: this.prefix, conversation });
  }

  #hello() {
    const token = typeof this.token === 'function' ? this.token() : this.token;
    return { conversation: this.conversation, resume: this.transcript.position(), ...(token && { token }) };
  }

  #lineChanged() {
    if (this.line.state !== 'open') this.outbox.lineLost();
    this.tell('state');
  }

  #hear(frame) {
    switch (frame.type) {
      case 'welcome':
        this.#welcome(frame);
        break;
      case 'accepted':
        this.#accepted(frame);
        break;
      case 'status':
        this.status = frame;
        this.tell('state');
        break;
      case 'history':
        this.more = frame.turns.length >= FULL_PAGE;
        for (const turn of this.transcript.earlier(frame.turns)) this.tell('turn', turn);
        this.tell('history');
        break;
      case 'error':
        this.#error(frame);
        break;
      case 'heartbeat':
        this.pump();
        break;
      default:
        if (frame.turn) this.#turnFrame(frame);
    }
  }

  #welcome(frame) {
    if (frame.conversation !== this.conversation) {
      this.transcript.clear();
      this.#name(frame.conversation);
    }
    this.outbox.load(this.conversation);
    this.outbox.adopt(this.conversation);
    this.limits = frame.limits ?? {};
    this.status = frame.status;
    this.refused = false;
    this.arriving = null;
    const history = frame.history ?? [];
    // The line may have been lost after the message had arrived: then its turn is here.
    for (const turn of history) this.outbox.accepted(turn.client_msg_id);
    const changed = this.transcript.welcome(history);
    if (!this.transcript.turns.some((turn) => turn.id < history[0]?.turn)) this.more = history.length >= FULL_PAGE;
    for (const turn of changed) this.#changed(turn);
    for (const [turn, value] of this.opinions) this.line.send({ type: 'feedback', turn, value });
    this.opinions.clear();
    if (this.stopping) this.line.send({ type: 'stop', turn: this.stopping.id });
    this.pump();
    this.tell('list');
    this.tell('welcome', frame);
    this.tell('state');
  }

  #accepted({ client_msg_id: id, turn }) {
    const entry = this.outbox.accepted(id);
    // Until its `start` comes, the words stay where they are.
    if (entry && !this.transcript.get(turn)) this.arriving = { ...entry, state: 'arriving', error: null };
    this.tell('list');
  }

  #error({ code, message, retry_after_s: retryAfterS, client_msg_id: id }) {
    const entry = this.outbox.failed({ code, retryAfterS, id, now: Date.now() });
    const retry = entry?.kind === 'retry' && entry.state === 'refused';
    if (retry) this.outbox.remove(id);
    if (code === 'unauthorized' && !retry) {
      // No further try can help: the way on is another conversation.
      this.refused = true;
      this.line.hold();
    }
    this.pump();
    this.tell('list');
    this.tell('error', { code, message, entry });
    this.tell('state');
  }

  #turnFrame(frame) {
    const before = this.running?.id;
    const outcome = this.transcript.apply(frame);
    if (!outcome) return;
    if (outcome.gap) {
      this.line.again();
      return;
    }
    const { turn } = outcome;
    this.#changed(turn);
    if (frame.type === 'start') this.tell('start', turn);
    if (frame.type === 'done' && turn.state !== 'running') this.tell('end', turn);
    if (frame.type === 'followup') this.tell('followup', turn);
    if (before === this.running?.id) return;
    this.pump();
    this.tell('list');
    this.tell('state');
  }

  #changed(turn) {
    this.outbox.accepted(turn.mid);
    if (this.arriving?.id === turn.mid) this.arriving = null;
    if (turn.state !== 'running') {
      if (this.stopping?.id === turn.id) this.stopping = null;
      if (turn.ahead) this.kept.save(turn, Date.now(), true);
      else this.kept.drop(turn.id);
    }
    this.tell('turn', turn);
  }
}

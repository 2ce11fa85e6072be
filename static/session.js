// The chat session: connection, transcript and outbox, independent of the DOM. Emits events for the user interface.

import { Connection } from './connection.js';
import { Outbox } from './outbox.js';
import { PartialAnswers, randomId } from './storage.js';
import { Transcript } from './transcript.js';

const PAGE_SIZE = 100; // a page of the history with this many turns may have another page before it

export class Session {
  /**
   * `base` is the service's address and `token` the visitor's JWT, if any. `onEvent(event, detail)` receives `turn` (a
   * turn changed), `list` (the pending messages or the order changed), `state` (the connection, the service's status or
   * the running turn changed), `welcome`, `start`, `end`, `followup`, `history` and `error`.
   */
  constructor({ base, storage, prefix, token, onEvent }) {
    Object.assign(this, { storage, basePrefix: prefix, emit: onEvent });
    this.transcript = new Transcript();
    this.stopRequest = null; // {id, text}: the turn that the visitor stopped, and its text at that moment
    this.awaitingStart = null; // the accepted entry whose turn has not started yet
    this.accessDenied = false;
    this.hasEarlierTurns = false;
    this.status = null;
    this.limits = {};
    const url = new URL('ws', base);
    url.protocol = url.protocol.replace('http', 'ws');
    this.connection = new Connection({
      url: url.href,
      hello: () => ({
        conversation: this.resumesLatest ? null : this.conversation,
        resume: this.resumesLatest ? null : this.transcript.resumePosition(),
        token: this.token ?? undefined,
      }),
      onFrame: (frame) => (frameHandlers[frame.type] ?? handleTurnFrame)(this, frame),
      onState: () => {
        if (this.connection.state !== 'open') this.outbox.requeueSent();
        this.emit('state');
      },
    });
    this.#setVisitor(token);
  }

  close() {
    clearTimeout(this.timer);
    this.savePartial(true);
    this.connection.close();
  }

  get running() {
    return this.transcript.running ?? null;
  }

  /** The messages that have no turn yet, oldest first. */
  get pending() {
    return [this.awaitingStart, ...this.outbox.entries].filter(Boolean);
  }

  send(text, options) {
    this.#enqueue({ text, options });
  }

  /** Asks the question of a turn again. Does nothing while a retry of that turn is pending. */
  retry(id) {
    if (!this.pending.some((entry) => entry.turn === id)) this.#enqueue({ turn: id });
  }

  stop() {
    const { running } = this;
    if (!running) return;
    this.stopRequest = { id: running.id, text: running.text };
    this.connection.send({ type: 'stop', turn: running.id });
    this.emit('turn', running);
    this.emit('state');
  }

  feedback(id, value) {
    if (!this.connection.send({ type: 'feedback', turn: id, value })) return;
    const turn = this.transcript.get(id);
    turn.feedback = value;
    this.emit('turn', turn);
  }

  /** Requests the turns before the first one. Returns `true` if the request was sent. */
  loadEarlier() {
    const first = this.transcript.turns[0];
    return Boolean(first) && this.connection.send({ type: 'history', before: first.id });
  }

  /** Starts a new conversation. Pending messages move into it. */
  startNewConversation() {
    this.storage.remove(this.partials.key);
    this.resumesLatest = false;
    this.switchConversation(randomId());
    for (const entry of this.outbox.entries) {
      // A retry refers to a turn of the old conversation, so it cannot move.
      if (entry.turn) this.outbox.remove(entry.id);
      else this.outbox.retry(entry.id);
    }
    this.outbox.setConversation(this.conversation);
    this.connection.connect();
    this.emit('list');
    this.emit('state');
  }

  /** Switches to another conversation, whose history is not known yet. */
  switchConversation(conversation) {
    this.transcript.clear();
    Object.assign(this, { stopRequest: null, awaitingStart: null, accessDenied: false, hasEarlierTurns: false });
    this.#setConversation(conversation);
  }

  /** Sets the visitor; `null` is an anonymous one. A new token for the same visitor keeps the conversation. */
  identify(token) {
    if (tokenSubject(token) === tokenSubject(this.token)) this.token = token;
    else this.#setVisitor(token);
    this.accessDenied = false;
    this.connection.connect();
    this.emit('list');
    this.emit('state');
  }

  /** Stops reconnecting, because the server refuses this visitor or site. */
  denyAccess() {
    this.accessDenied = true;
    this.connection.pause();
  }

  /** Saves the text of the running turn as shown. */
  savePartial(force = false) {
    const { running } = this;
    if (running?.text) this.partials.save(running, Date.now(), force);
  }

  /** Sends the next pending message if possible, and schedules itself for the end of a pause that the server asked for. */
  sendNext() {
    clearTimeout(this.timer);
    const now = Date.now();
    const isBusy = Boolean(this.running ?? this.awaitingStart);
    const frame = this.outbox.next({ isOpen: this.connection.state === 'open', isBusy, now });
    if (frame && !this.connection.send(frame)) this.outbox.requeueSent();
    const pause = this.outbox.pausedUntil - now;
    if (pause <= 0 || !this.outbox.entries.length) return;
    this.timer = setTimeout(() => {
      this.sendNext();
      this.emit('list'); // updates the countdown
    }, Math.min(1_000, pause));
  }

  /** Updates what depends on a turn after a frame or the history has changed it. */
  turnChanged(turn) {
    this.outbox.accept(turn.mid);
    if (this.awaitingStart?.id === turn.mid) this.awaitingStart = null;
    if (turn.state !== 'running') {
      if (this.stopRequest?.id === turn.id) this.stopRequest = null;
      if (turn.localOnly) this.partials.save(turn, Date.now(), true);
      else this.partials.delete(turn.id);
    }
    this.emit('turn', turn);
  }

  #enqueue(message) {
    this.outbox.add({ ...message, conversation: this.conversation, now: Date.now() });
    this.sendNext();
    this.emit('list');
  }

  /** Each visitor has storage keys of their own, so that people who share a browser do not see each other's data. */
  #setVisitor(token) {
    const { storage, basePrefix } = this;
    this.token = token ?? null;
    // A signed-in visitor may have started a newer conversation elsewhere; the server knows which.
    this.resumesLatest = Boolean(token);
    this.prefix = token ? `${basePrefix}~${tokenSubject(token)}:` : basePrefix;
    this.outbox = new Outbox({ storage, prefix: `${this.prefix}out:`, newId: randomId });
    this.switchConversation(storage.get(`${this.prefix}conversation`));
    this.outbox.load(this.conversation);
  }

  #setConversation(conversation) {
    this.conversation = conversation;
    if (conversation) this.storage.set(`${this.prefix}conversation`, conversation);
    this.partials = new PartialAnswers(this.storage, `${this.prefix}shown:${conversation}`);
    for (const turn of this.partials.all()) this.transcript.restore(turn);
  }
}

/** The handlers of all frames that do not belong to a turn, by type. */
const frameHandlers = {
  welcome(session, frame) {
    const { transcript, outbox, connection } = session;
    const { conversation, history, limits, status } = frame;
    if (conversation !== session.conversation) session.switchConversation(conversation);
    Object.assign(session, { limits, status, awaitingStart: null, accessDenied: false, resumesLatest: false });
    outbox.load(conversation);
    outbox.setConversation(conversation);
    const changed = transcript.applyWelcome(history);
    if (history[0]?.turn === transcript.turns[0]?.id) session.hasEarlierTurns = history.length >= PAGE_SIZE;
    // This also settles messages that the server accepted while the connection was lost before `accepted` arrived.
    for (const turn of changed) session.turnChanged(turn);
    if (session.stopRequest) connection.send({ type: 'stop', turn: session.stopRequest.id });
    session.sendNext();
    session.emit('list');
    session.emit('welcome', frame);
    session.emit('state');
  },
  accepted(session, { client_msg_id: id, turn }) {
    const entry = session.outbox.accept(id);
    // The message stays visible until the turn's `start` frame arrives.
    if (entry && !session.transcript.get(turn)) session.awaitingStart = { ...entry, state: 'arriving' };
    session.emit('list');
  },
  status(session, frame) {
    session.status = frame;
    session.emit('state');
  },
  history(session, { turns }) {
    session.hasEarlierTurns = turns.length >= PAGE_SIZE;
    for (const turn of session.transcript.applyHistory(turns)) session.emit('turn', turn);
    session.emit('history');
  },
  error(session, { code, message, retry_after_s: retryAfterS, client_msg_id: id }) {
    const entry = session.outbox.fail({ code, retryAfterS, id, now: Date.now() });
    const isRetry = Boolean(entry?.turn) && entry.state === 'refused';
    // A refused retry has no message that could show the error. Without access only another conversation helps.
    if (isRetry) session.outbox.remove(id);
    else if (code === 'unauthorized') session.denyAccess();
    session.sendNext();
    session.emit('list');
    session.emit('error', { code, message, isRetry });
    session.emit('state');
  },
  heartbeat: (session) => session.sendNext(),
};

/** Returns the subject that a token claims. Only the service can verify it. */
function tokenSubject(token) {
  if (!token) return '';
  try {
    return String(JSON.parse(atob(token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/'))).sub);
  } catch {
    return token;
  }
}

function handleTurnFrame(session, frame) {
  const { transcript, running } = session;
  const { turn, gap } = transcript.apply(frame) ?? {};
  if (gap) session.connection.reconnect(true);
  if (!turn) return;
  session.turnChanged(turn);
  const event = { start: 'start', done: 'end', followup: 'followup' }[frame.type];
  if (event) session.emit(event, turn);
  if (running === session.running) return;
  session.sendNext();
  session.emit('list');
  session.emit('state');
}

// The conversation and its line, without a page: what arrives changes the transcript, what is to go waits in the outbox,
// and whoever presents it is told what changed.

import { Outbox } from './outbox.js';
import { Connection } from './protocol.js';
import { Kept, randomId } from './storage.js';
import { Transcript } from './transcript.js';

const FULL_PAGE = 100; // a page of the history with so many turns may have another before it

export class Session {
  /**
   * `base`: the service's address. `token`: the visitor's JWT, if any. `tell(event, detail)` hears
   * `turn` (that one changed), `list` (what waits changed, or the order), `state` (the line, the status, who runs),
   * `welcome`, `start`, `end`, `followup`, `history` and `error`.
   */
  constructor({ base, storage, prefix, token, tell }) {
    Object.assign(this, { storage, ours: prefix, tell });
    this.transcript = new Transcript();
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
      hello: () => ({
        // A visitor's newest conversation may have been begun elsewhere.
        conversation: this.returning ? null : this.conversation,
        resume: this.returning ? null : this.transcript.position(),
        token: this.token ?? undefined,
      }),
      onFrame: (frame) => (ON[frame.type] ?? turnFrame)(this, frame),
      onState: () => {
        if (this.line.state !== 'open') this.outbox.lineLost();
        tell('state');
      },
    });
    this.#become(token);
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
    return [this.arriving, ...this.outbox.entries].filter(Boolean);
  }

  send(text, options) {
    this.#put({ text, options });
  }

  /** Asks that turn's question again; once, however often it is pressed. */
  retry(id) {
    if (!this.waiting.some((entry) => entry.turn === id)) this.#put({ turn: id });
  }

  stop() {
    const { running } = this;
    if (!running) return;
    this.stopping = { id: running.id, text: running.text };
    this.line.send({ type: 'stop', turn: running.id });
    this.tell('turn', running);
    this.tell('state');
  }

  feedback(id, value) {
    if (!this.line.send({ type: 'feedback', turn: id, value })) return;
    const turn = this.transcript.get(id);
    turn.feedback = value;
    this.tell('turn', turn);
  }

  /** Whether the turns before the first one were asked for. */
  loadEarlier() {
    const first = this.transcript.turns[0];
    return Boolean(first) && this.line.send({ type: 'history', before: first.id });
  }

  /** A new conversation; what waits to be sent goes with it. */
  fresh() {
    this.storage.remove(this.kept.key);
    this.returning = false;
    this.enter(randomId());
    for (const entry of this.outbox.entries) {
      // An answer of the old conversation cannot be asked for again in this one.
      if (entry.turn) this.outbox.remove(entry.id);
      else this.outbox.again(entry.id);
    }
    this.outbox.adopt(this.conversation);
    this.line.connect();
    this.tell('list');
    this.tell('state');
  }

  /** Leaves the conversation for another one, of which nothing is known yet. */
  enter(conversation) {
    this.transcript.clear();
    Object.assign(this, { stopping: null, arriving: null, refused: false, more: false });
    this.#name(conversation);
  }

  /** From now on, as this visitor; null: as nobody in particular. A new token of the same visitor changes nothing else. */
  identify(token) {
    if (visitor(token) === visitor(this.token)) this.token = token;
    else this.#become(token);
    this.refused = false;
    this.line.connect();
    this.tell('list');
    this.tell('state');
  }

  /** The server does not let us in: no further try. */
  refuse() {
    this.refused = true;
    this.line.hold();
  }

  /** Keeps the running turn's text as the page has shown it. */
  keep(force = false) {
    const { running } = this;
    if (running?.text) this.kept.save(running, Date.now(), force);
  }

  /** Sends what may be sent now, and comes back when a hold of the server's ends. */
  pump() {
    clearTimeout(this.timer);
    const now = Date.now();
    const frame = this.outbox.next({ open: this.line.state === 'open', running: this.running ?? this.arriving, now });
    if (frame && !this.line.send(frame)) this.outbox.lineLost();
    const hold = this.outbox.heldUntil - now;
    if (hold <= 0 || !this.outbox.entries.length) return;
    this.timer = setTimeout(() => {
      this.pump();
      this.tell('list'); // its countdown
    }, Math.min(1_000, hold));
  }

  /** After a turn changed, whatever told it. */
  changed(turn) {
    this.outbox.accepted(turn.mid);
    if (this.arriving?.id === turn.mid) this.arriving = null;
    if (turn.state !== 'running') {
      if (this.stopping?.id === turn.id) this.stopping = null;
      if (turn.ahead) this.kept.save(turn, Date.now(), true);
      else this.kept.drop(turn.id);
    }
    this.tell('turn', turn);
  }

  #put(what) {
    this.outbox.add({ ...what, conversation: this.conversation, now: Date.now() });
    this.pump();
    this.tell('list');
  }

  /** What is kept for one visitor is not shown to another who uses the same browser. */
  #become(token) {
    const { storage, ours } = this;
    this.token = token ?? null;
    this.returning = Boolean(token);
    this.prefix = token ? `${ours}~${visitor(token)}:` : ours;
    this.outbox = new Outbox({ storage, prefix: `${this.prefix}out:`, newId: randomId });
    this.enter(storage.get(`${this.prefix}conversation`));
    this.outbox.load(this.conversation);
  }

  #name(conversation) {
    this.conversation = conversation;
    if (conversation) this.storage.set(`${this.prefix}conversation`, conversation);
    this.kept = new Kept(this.storage, `${this.prefix}shown:${conversation}`);
    for (const turn of this.kept.all()) this.transcript.recall(turn);
  }
}

/** What is done with each type of frame that is not a turn's. */
const ON = {
  welcome(session, frame) {
    const { transcript, outbox, line } = session;
    const { conversation, history, limits, status } = frame;
    if (conversation !== session.conversation) session.enter(conversation);
    Object.assign(session, { limits, status, arriving: null, refused: false, returning: false });
    outbox.load(conversation);
    outbox.adopt(conversation);
    const changed = transcript.welcome(history);
    if (history[0]?.turn === transcript.turns[0]?.id) session.more = history.length >= FULL_PAGE;
    // Among it is what had arrived when the line was lost before `accepted` came back.
    for (const turn of changed) session.changed(turn);
    if (session.stopping) line.send({ type: 'stop', turn: session.stopping.id });
    session.pump();
    session.tell('list');
    session.tell('welcome', frame);
    session.tell('state');
  },
  accepted(session, { client_msg_id: id, turn }) {
    const entry = session.outbox.accepted(id);
    // Until its `start` comes, the words stay where they are.
    if (entry && !session.transcript.get(turn)) session.arriving = { ...entry, state: 'arriving' };
    session.tell('list');
  },
  status(session, frame) {
    session.status = frame;
    session.tell('state');
  },
  history(session, { turns }) {
    session.more = turns.length >= FULL_PAGE;
    for (const turn of session.transcript.earlier(turns)) session.tell('turn', turn);
    session.tell('history');
  },
  error(session, { code, message, retry_after_s: retryAfterS, client_msg_id: id }) {
    const entry = session.outbox.failed({ code, retryAfterS, id, now: Date.now() });
    const retry = Boolean(entry?.turn) && entry.state === 'refused';
    if (retry) session.outbox.remove(id); // there is no message to show it by
    else if (code === 'unauthorized') {
      // No further try can help: the way on is another conversation.
      session.refuse();
    }
    session.pump();
    session.tell('list');
    session.tell('error', { code, message, retry });
    session.tell('state');
  },
  heartbeat: (session) => session.pump(),
};

/** Who a token says it is for; the service alone can tell whether that is true. */
function visitor(token) {
  if (!token) return '';
  try {
    return String(JSON.parse(atob(token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/'))).sub);
  } catch {
    return token;
  }
}

function turnFrame(session, frame) {
  const { transcript, running } = session;
  const { turn, gap } = transcript.apply(frame) ?? {};
  if (gap) session.line.lost(true);
  if (!turn) return;
  session.changed(turn);
  const event = { start: 'start', done: 'end', followup: 'followup' }[frame.type];
  if (event) session.tell(event, turn);
  if (running === session.running) return;
  session.pump();
  session.tell('list');
  session.tell('state');
}

// The conversation as this page knows it: turns, and the frames that change them. Pure: no page, no clock, no socket.
//
// A frame is applied only if it is its turn's last plus one; an older one is dropped, a later one is a gap, and the page
// resumes. A snapshot always applies. Only a restart takes text away, and keeps it as a draft.

export class Transcript {
  /** Oldest first. */
  turns = [];
  #byId = new Map();

  get(id) {
    return this.#byId.get(id);
  }

  /** The turn that is being answered, if any; a conversation has one at most. */
  get running() {
    return this.turns.findLast((turn) => turn.state === 'running');
  }

  /** Where to resume: the running turn and the last frame applied; or null. */
  position() {
    const { running } = this;
    return running ? { turn: running.id, seq: running.seq } : null;
  }

  /** Applies a frame. Gives `{turn}` if it changed one, `{gap: turn}` if frames are missing before it, or null. */
  apply(frame) {
    if (frame.type === 'followup') {
      const turn = this.get(frame.turn);
      if (!turn) return null;
      turn.followup = frame;
      return { turn };
    }
    const step = FRAMES[frame.type];
    if (!step) return null;
    const turn = this.#open(frame.turn);
    if (frame.type === 'snapshot' && turn.ahead) return null; // the server has less of it, and no more will come
    if (frame.type !== 'snapshot') {
      if (turn.state !== 'running') {
        // The history told the end already; only what each attempt came to may be news.
        if (frame.type === 'done') turn.tried = frame.tried;
        return frame.type === 'done' ? { turn } : null;
      }
      if (frame.seq <= turn.seq) return null;
      if (frame.seq !== turn.seq + 1) return { gap: turn };
    }
    turn.seq = frame.seq;
    if (frame.type !== 'attempt') turn.paused = false;
    step(turn, frame);
    return { turn };
  }

  /**
   * Takes over a welcome's history. A running turn whose frames this page holds stays as it is: what it lacks comes as
   * frames. One that the server does not know any more is interrupted. Gives the changed turns.
   */
  welcome(history) {
    const changed = this.earlier(history);
    const told = new Set(changed);
    const first = history[0]?.turn ?? '';
    for (const turn of this.turns.filter((one) => !told.has(one))) {
      if (turn.recalled && turn.id < first) {
        // Of an older page of the history; it comes with that.
        this.#byId.delete(turn.id);
        this.turns.splice(this.turns.indexOf(turn), 1);
      } else if (turn.state === 'running') {
        Object.assign(turn, { state: 'interrupted', ahead: true });
        changed.push(turn);
      }
    }
    return changed;
  }

  /** Takes over a page of the history. Gives its turns. */
  earlier(history) {
    return history.map((record) => this.#record(record));
  }

  /** Puts back what this browser showed of a turn before a reload; the server's word replaces it. */
  recall(kept) {
    Object.assign(this.#open(kept.id), kept, { recalled: true });
  }

  clear() {
    this.turns = [];
    this.#byId.clear();
  }

  #open(id) {
    let turn = this.get(id);
    if (turn) return turn;
    turn = blank(id);
    this.#byId.set(id, turn);
    // Ids are in the order of turns, and a new one is nearly always the last.
    const before = this.turns.findLastIndex((one) => one.id < id);
    this.turns.splice(before + 1, 0, turn);
    return turn;
  }

  #record(record) {
    const known = this.get(record.turn);
    const turn = this.#open(record.turn);
    turn.mid = record.client_msg_id;
    turn.at = record.at;
    turn.question = record.question;
    turn.retryOf = record.retry_of ?? null;
    turn.feedback = record.feedback ?? turn.feedback;
    turn.followup = record.followup ?? turn.followup;
    if (known && record.state === 'running') return turn;
    turn.ahead = Boolean(known) && record.state === 'interrupted' && isAhead(turn, record);
    if (!turn.ahead) Object.assign(turn, { text: record.text, drafts: record.drafts });
    end(turn, record, record.state);
    return turn;
  }
}

const FRAMES = {
  start(turn, frame) {
    turn.mid = frame.client_msg_id;
    turn.question = frame.text;
    turn.at = frame.at;
    turn.retryOf = frame.retry_of ?? null;
    turn.text = '';
    turn.drafts = [];
  },
  attempt(turn, frame) {
    if (frame.after) turn.failed.push(frame.after.provider);
    turn.paused = turn.text !== '';
    turn.pausedFrom = turn.provider;
    turn.provider = frame.provider;
    turn.model = frame.model;
  },
  token(turn, frame) {
    turn.text += frame.text;
  },
  restart(turn, frame) {
    turn.drafts = [...turn.drafts, { provider: frame.from, text: turn.text }];
    turn.text = '';
    turn.provider = frame.to;
  },
  snapshot(turn, frame) {
    const { text, drafts, provider, model, question } = frame;
    Object.assign(turn, { text, drafts, provider, model, question, state: 'running' });
  },
  done(turn, frame) {
    turn.text = frame.text;
    turn.drafts = frame.drafts;
    end(turn, frame, 'done');
  },
};

/** What a `done` frame and a turn of the history say alike. `state` is the history's word. */
function end(turn, said, state) {
  const { source, degraded, provider, model, finish, tried } = said;
  Object.assign(turn, { source, degraded, provider, model, finish, tried, ageS: said.age_s ?? null, paused: false });
  turn.state = finish === 'stopped' || finish === 'interrupted' ? finish : state;
}

function blank(id) {
  return {
    id,
    mid: null,
    at: null,
    question: '',
    retryOf: null,
    seq: 0,
    state: 'running', // running | done | stopped | interrupted
    ahead: false, // interrupted, and this page has seen more of it than the server kept
    text: '',
    drafts: [],
    provider: null,
    model: null,
    paused: false, // another attempt runs while text of the one before stands
    failed: [], // providers that `attempt` frames said had failed
    tried: null,
    source: null,
    degraded: false,
    finish: null,
    ageS: null,
    feedback: null,
    followup: null,
  };
}

/** Whether this page saw more than the server had on disk: its text and more, or a later attempt with it as a draft. */
function isAhead(turn, { text, drafts }) {
  if (turn.drafts.length > drafts.length) return turn.drafts.some((draft) => draft.text.startsWith(text));
  return turn.drafts.length === drafts.length && turn.text.length > text.length && turn.text.startsWith(text);
}

/** The providers that were asked for this answer and failed, each once, in order. */
export function unavailable({ tried, failed, drafts, provider }) {
  const names = tried?.length
    ? tried.filter(({ outcome }) => outcome !== 'ok' && outcome !== 'stopped').map((one) => one.provider)
    : [...failed, ...drafts.map((draft) => draft.provider)];
  return [...new Set(names)].filter((name) => name !== provider);
}

/** How many words a text has. */
export function words(text) {
  return text.split(/\s+/).filter(Boolean).length;
}

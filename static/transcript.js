// The conversation as this page knows it: its turns, and how frames change them. Pure: no DOM, no clock, no socket.
//
// A frame is applied only if its `seq` is the turn's last one plus one. Older frames are dropped; a later one is a gap, and
// the session resumes. A snapshot always applies. Only a restart removes text, and it keeps that text as a draft.

export class Transcript {
  /** Oldest first. */
  turns = [];
  #byId = new Map();

  get(id) {
    return this.#byId.get(id);
  }

  /** The running turn, if any. A conversation has at most one. */
  get running() {
    return this.turns.findLast((turn) => turn.state === 'running');
  }

  /** The position to resume from: the running turn and its last applied frame, or `null`. */
  resumePosition() {
    const { running } = this;
    return running ? { turn: running.id, seq: running.seq } : null;
  }

  /** Applies a frame. Returns `{turn}` if a turn changed, `{gap: turn}` if frames before it are missing, else `null`. */
  apply(frame) {
    if (frame.type === 'followup') {
      const turn = this.get(frame.turn);
      if (!turn) return null;
      turn.followup = frame;
      return { turn };
    }
    const reduce = frameReducers[frame.type];
    if (!reduce) return null;
    const turn = this.#getOrCreate(frame.turn);
    if (frame.type === 'snapshot' && turn.localOnly) return null; // the server has less text, and sends no more
    if (frame.type !== 'snapshot') {
      if (turn.state !== 'running') {
        // The history has already ended this turn. Only the outcomes of its attempts can be new.
        if (frame.type === 'done') turn.tried = frame.tried;
        return frame.type === 'done' ? { turn } : null;
      }
      if (frame.seq <= turn.seq) return null;
      if (frame.seq !== turn.seq + 1) return { gap: turn };
    }
    turn.seq = frame.seq;
    if (frame.type !== 'attempt') turn.isPaused = false;
    reduce(turn, frame);
    return { turn };
  }

  /**
   * Applies the history of a welcome and returns the changed turns. A running turn that this page already has stays as it
   * is, since the missing part follows as frames. A turn that the server no longer knows becomes interrupted.
   */
  applyWelcome(history) {
    const changed = this.applyHistory(history);
    const known = new Set(changed);
    const first = history[0]?.turn ?? '';
    for (const turn of this.turns.filter((other) => !known.has(other))) {
      if (turn.isRestored && turn.id < first) {
        // It belongs to an older page of the history and comes back with that.
        this.#byId.delete(turn.id);
        this.turns.splice(this.turns.indexOf(turn), 1);
      } else if (turn.state === 'running') {
        Object.assign(turn, { state: 'interrupted', localOnly: true });
        changed.push(turn);
      }
    }
    return changed;
  }

  /** Applies a page of the history and returns its turns. */
  applyHistory(history) {
    return history.map((record) => this.#applyRecord(record));
  }

  /** Restores a turn as this browser showed it before a reload. The server's version replaces it. */
  restore(saved) {
    Object.assign(this.#getOrCreate(saved.id), saved, { isRestored: true });
  }

  clear() {
    this.turns = [];
    this.#byId.clear();
  }

  #getOrCreate(id) {
    let turn = this.get(id);
    if (turn) return turn;
    turn = newTurn(id);
    this.#byId.set(id, turn);
    // Ids sort in the order of the turns, and a new turn is nearly always the last.
    const before = this.turns.findLastIndex((other) => other.id < id);
    this.turns.splice(before + 1, 0, turn);
    return turn;
  }

  #applyRecord(record) {
    const known = this.get(record.turn);
    const turn = this.#getOrCreate(record.turn);
    turn.mid = record.client_msg_id;
    turn.at = record.at;
    turn.question = record.question;
    turn.retryOf = record.retry_of ?? null;
    turn.feedback = record.feedback ?? turn.feedback;
    turn.followup = record.followup ?? turn.followup;
    if (known && record.state === 'running') return turn;
    turn.localOnly = Boolean(known) && record.state === 'interrupted' && hasMoreText(turn, record);
    if (!turn.localOnly) Object.assign(turn, { text: record.text, drafts: record.drafts });
    applyResult(turn, record, record.state);
    return turn;
  }
}

const frameReducers = {
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
    turn.isPaused = turn.text !== '';
    turn.pausedProvider = turn.provider;
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
    applyResult(turn, frame, 'done');
  },
};

/** Applies the fields that a `done` frame and a history record share. `state` is the record's state. */
function applyResult(turn, result, state) {
  const { source, degraded, provider, model, finish, tried } = result;
  Object.assign(turn, { source, degraded, provider, model, finish, tried, ageS: result.age_s ?? null, isPaused: false });
  turn.state = finish === 'stopped' || finish === 'interrupted' ? finish : state;
}

function newTurn(id) {
  return {
    id,
    mid: null, // the question's `client_msg_id`
    at: null,
    question: '',
    retryOf: null,
    seq: 0,
    state: 'running', // running | done | stopped | interrupted
    localOnly: false, // interrupted, and this page saw more text than the server saved
    text: '',
    drafts: [],
    provider: null,
    model: null,
    isPaused: false, // a new attempt has started and the text of the previous one is still shown
    failed: [], // the providers that failed, according to `attempt` frames
    tried: null,
    source: null,
    degraded: false,
    finish: null,
    ageS: null,
    feedback: null,
    followup: null,
  };
}

/** Returns `true` if the page saw more than the server saved: a longer text, or a later attempt with that text as a draft. */
function hasMoreText(turn, { text, drafts }) {
  if (turn.drafts.length > drafts.length) return turn.drafts.some((draft) => draft.text.startsWith(text));
  return turn.drafts.length === drafts.length && turn.text.length > text.length && turn.text.startsWith(text);
}

/** Returns the providers that failed on this turn, in order and without duplicates. */
export function failedProviders({ tried, failed, drafts, provider }) {
  const names = tried?.length
    ? tried.filter(({ outcome }) => outcome !== 'ok' && outcome !== 'stopped').map((attempt) => attempt.provider)
    : [...failed, ...drafts.map((draft) => draft.provider)];
  return [...new Set(names)].filter((name) => name !== provider);
}

export function countWords(text) {
  return text.split(/\s+/).filter(Boolean).length;
}

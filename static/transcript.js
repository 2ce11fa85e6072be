// The conversation as this page knows it: turns, and the frames that change them. Pure: no page, no clock, no socket.
//
// A frame is applied only if it is the turn's last plus one; an older one is dropped, a later one is a gap and the
// page has to resume. A snapshot always applies. Only a restart takes text away, and it keeps it as a draft.

export class Transcript {
  /** Turns, oldest first. */
  turns = [];
  #byId = new Map();

  get(id) {
    return this.#byId.get(id);
  }

  /** The turn that is being answered, if any. A conversation has one at most. */
  get running() {
    return this.turns.findLast((turn) => turn.state === 'running');
  }

  /** Where to resume: the running turn and the last frame applied, or null. */
  position() {
    const turn = this.running;
    return turn ? { turn: turn.id, seq: turn.seq } : null;
  }

  /**
   * Applies a frame of a turn. Gives `{turn}` when it changed one, `{gap: turn}` when frames are missing, or null.
   */
  apply(frame) {
    if (frame.type === 'snapshot') return { turn: this.#snapshot(frame) };
    if (frame.type === 'followup') return this.#followup(frame);
    const turn = this.#open(frame.turn);
    if (turn.state !== 'running') {
      // The history told the end already, but without what only `done` knows.
      if (frame.type !== 'done' || turn.tried) return null;
      turn.tried = frame.tried;
      return { turn };
    }
    if (frame.seq <= turn.seq) return null;
    if (frame.seq !== turn.seq + 1) return { gap: turn };
    turn.seq = frame.seq;
    FRAMES[frame.type]?.(turn, frame);
    return { turn };
  }

  /**
   * Takes over the history of a welcome. A running turn whose frames this page holds stays as it is: what it lacks
   * comes as frames. One that the server does not know any more is interrupted; one from before the history's
   * beginning comes with an older page of it. Gives the changed turns.
   */
  welcome(history) {
    const told = new Set(history.map((turn) => turn.turn));
    const changed = history.map((record) => this.#record(record));
    const first = history[0]?.turn ?? '';
    for (const turn of this.turns.filter((one) => !told.has(one.id))) {
      if (turn.recalled && turn.id < first) {
        this.#byId.delete(turn.id);
        this.turns = this.turns.filter((one) => one !== turn);
      } else if (turn.state === 'running') {
        turn.state = 'interrupted';
        turn.ahead = true;
        changed.push(turn);
      }
    }
    return changed;
  }

  /** Takes over an older page of the history. */
  earlier(history) {
    return history.map((record) => this.#record(record));
  }

  /** Puts back what this browser showed of a turn before it was reloaded; the server's word replaces it. */
  recall(record) {
    if (this.#byId.has(record.id)) return;
    const turn = this.#open(record.id);
    Object.assign(turn, record, { seq: 0, recalled: true });
  }

  clear() {
    this.turns = [];
    this.#byId.clear();
  }

  #open(id) {
    let turn = this.#byId.get(id);
    if (!turn) {
      turn = blank(id);
      this.#byId.set(id, turn);
      // Ids are in the order of turns. Nearly always the new one is the last.
      let at = this.turns.length;
      while (at > 0 && this.turns[at - 1].id > id) at -= 1;
      this.turns.splice(at, 0, turn);
    }
    return turn;
  }

  #snapshot(frame) {
    const turn = this.#open(frame.turn);
    turn.state = 'running';
    turn.seq = frame.seq;
    turn.attempt = frame.attempt;
    turn.provider = frame.provider ?? null;
    turn.model = frame.model ?? null;
    turn.text = frame.text;
    turn.drafts = frame.drafts ?? [];
    turn.question = frame.question ?? turn.question;
    turn.paused = false;
    return turn;
  }

  #followup(frame) {
    const turn = this.#byId.get(frame.turn);
    if (!turn) return null;
    const { text, provider, model, at } = frame;
    turn.followup = { text, provider, model, at };
    return { turn };
  }

  #record(record) {
    const known = this.#byId.get(record.turn);
    const turn = known ?? this.#open(record.turn);
    turn.mid = record.client_msg_id ?? turn.mid;
    turn.at = record.at ?? turn.at;
    turn.question = record.question ?? turn.question;
    turn.retryOf = record.retry_of ?? null;
    turn.feedback = record.feedback ?? turn.feedback;
    turn.followup = record.followup ?? turn.followup;
    const running = record.state === 'running';
    if (running && known) return turn;
    const keep = Boolean(known) && record.state === 'interrupted' && isLater(turn, record);
    turn.ahead = keep;
    if (!keep) {
      turn.text = record.text ?? '';
      turn.drafts = record.drafts ?? [];
    }
    turn.source = record.source ?? null;
    turn.degraded = Boolean(record.degraded);
    turn.provider = record.provider ?? (keep ? turn.provider : null);
    turn.model = record.model ?? (keep ? turn.model : null);
    turn.finish = record.finish ?? null;
    turn.ageS = record.age_s ?? null;
    turn.tried = record.tried ?? turn.tried;
    turn.paused = false;
    turn.state = running ? 'running' : ended(record.finish, record.state);
    return turn;
  }
}

const FRAMES = {
  start(turn, frame) {
    turn.mid = frame.client_msg_id ?? null;
    turn.question = frame.text;
    turn.at = frame.at ?? null;
    turn.retryOf = frame.retry_of ?? null;
    turn.text = '';
    turn.drafts = [];
  },
  attempt(turn, frame) {
    turn.attempt = frame.attempt;
    if (frame.after) turn.failed.push(frame.after.provider);
    turn.paused = turn.text !== '';
    if (turn.paused) turn.pausedFrom = turn.provider;
    turn.provider = frame.provider;
    turn.model = frame.model;
  },
  token(turn, frame) {
    turn.text += frame.text;
    turn.paused = false;
  },
  restart(turn, frame) {
    turn.drafts = [...turn.drafts, { provider: frame.from, text: turn.text }];
    turn.text = '';
    turn.attempt = frame.attempt;
    turn.provider = frame.to ?? null;
    if (!frame.to) turn.model = null;
    turn.paused = false;
  },
  done(turn, frame) {
    turn.text = frame.text;
    turn.drafts = frame.drafts ?? turn.drafts;
    turn.source = frame.source;
    turn.degraded = Boolean(frame.degraded);
    turn.provider = frame.provider ?? null;
    turn.model = frame.model ?? null;
    turn.finish = frame.finish;
    turn.tried = frame.tried ?? null;
    turn.ageS = frame.age_s ?? null;
    turn.paused = false;
    turn.state = ended(frame.finish, 'done');
  },
};

function blank(id) {
  return {
    id,
    mid: null,
    at: null,
    question: '',
    retryOf: null,
    seq: 0,
    ahead: false, // interrupted, and this page has seen more of it than the server has kept
    state: 'running', // running | done | stopped | interrupted
    text: '',
    drafts: [],
    attempt: 0,
    provider: null,
    model: null,
    paused: false, // another attempt runs while text of the one before stands
    pausedFrom: null,
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

function ended(finish, state) {
  if (finish === 'stopped') return 'stopped';
  return finish === 'interrupted' || state === 'interrupted' ? 'interrupted' : 'done';
}

/**
 * Whether this page has seen more of an interrupted answer than the server had on disk: the same text and longer, or a
 * later attempt, the server's text being a draft here.
 */
function isLater(turn, record) {
  const told = record.text ?? '';
  if (turn.text.length > told.length && turn.text.startsWith(told) && turn.drafts.length >= (record.drafts?.length ?? 0)) {
    return true;
  }
  return turn.drafts.length > (record.drafts?.length ?? 0) && turn.drafts.some((draft) => draft.text.startsWith(told));
}

/** The providers that were asked for this answer and failed, each once, in order. */
export function unavailable(turn) {
  const failed = Array.isArray(turn.tried) && turn.tried.length
    ? turn.tried.filter((one) => one.outcome !== 'ok' && one.outcome !== 'stopped').map((one) => one.provider)
    : [...turn.failed, ...turn.drafts.map((draft) => draft.provider)];
  return [...new Set(failed)].filter((name) => name && name !== turn.provider);
}

/** How many words a draft has. */
export function words(text) {
  return text.split(/\s+/).filter(Boolean).length;
}

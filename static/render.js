// The transcript on the page: turns in order, then what waits to be sent. Changes are gathered and drawn at most once a
// frame; the text's end is followed only while the reader is at it.

import { h, icon } from './dom.js';
import { AnswerView, QuestionView } from './message.js';
import { texts } from './texts.js';

// A hidden page gets no frames, but another tab may be compared with it: draw then, too, only seldom.
const HIDDEN_MS = 400;
// A long history is drawn in slices, newest first, so that no task is long.
const SLICE_MS = 12;
// An answer whose last block is long costs more a frame; it is then drawn less often than every frame.
const SHARE = 4;
const NEAR_PX = 48;

export class Log {
  /**
   * `model()` gives `{turns, frozen, entries, known}`: the transcript's turns, the text at which Stop froze the running
   * one (or null), what waits as `[{id, text, state, note, acts}]`, and whether the server has been heard.
   */
  constructor({ model, empty, onRetry, onFeedback, onCopy, onAct, onEarlier, onDrawn }) {
    Object.assign(this, { model, onRetry, onFeedback, onCopy, onAct, onDrawn, empty });
    this.views = new Map(); // turn id -> {section, question, answer}
    this.waiting = new Map(); // client_msg_id -> {section, question}
    this.dirty = new Set();
    this.following = true;
    this.cost = 0;
    this.drawnAt = 0;
    this.earlier = h('button', { type: 'button', class: 'fs-earlier', hidden: true, on: { click: onEarlier } }, texts.earlier);
    this.column = h('div', { class: 'fs-column' }, this.earlier, empty);
    this.el = h(
      'div', { class: 'fs-log', data: { role: 'log' }, role: 'log', tabindex: '0', aria: { live: 'off', label: texts.transcript } },
      this.column,
    );
    this.jump = h(
      'button', { type: 'button', class: 'fs-jump', hidden: true, on: { click: () => this.follow() } },
      icon('latest'), texts.jump,
    );
    this.el.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    // The room changes under the reader: a banner comes, the composer grows, a phone's keyboard opens.
    this.resizing = new ResizeObserver(() => this.#settle());
    this.resizing.observe(this.el);
    this.resizing.observe(this.column);
  }

  /** Something of this turn changed; without one, what waits or the order did. */
  touch(turn = null) {
    if (turn) this.dirty.add(turn.id);
    if (this.scheduled) return;
    this.scheduled = true;
    const draw = () => {
      if (!this.scheduled) return;
      cancelAnimationFrame(this.frame);
      clearTimeout(this.timer);
      if (performance.now() - this.drawnAt < SHARE * this.cost) {
        this.frame = requestAnimationFrame(draw);
        this.timer = setTimeout(draw, HIDDEN_MS);
        return;
      }
      this.scheduled = false;
      this.draw();
    };
    this.frame = requestAnimationFrame(draw);
    this.timer = setTimeout(draw, HIDDEN_MS);
  }

  draw() {
    this.holding(() => this.#draw());
    if (this.dirty.size) this.touch();
  }

  #draw() {
    const begun = performance.now();
    const model = this.model();
    this.#arrange(model);
    const retried = new Set(model.turns.map((turn) => turn.retryOf));
    for (let i = model.turns.length - 1; i >= 0; i -= 1) {
      const turn = model.turns[i];
      if (!this.dirty.has(turn.id)) continue;
      if (performance.now() - begun > SLICE_MS) break;
      this.dirty.delete(turn.id);
      this.#update(turn, model.turns[i - 1], model, retried.has(turn.id));
    }
    // Styles and layout belong to the cost of a draw.
    if (this.following) this.#settle();
    const now = performance.now();
    this.cost = this.dirty.size || now - begun < 4 ? 0 : now - begun;
    this.drawnAt = now;
    this.onDrawn(model);
  }

  /** To the end, and stay there. */
  follow() {
    this.following = true;
    this.#settle();
  }

  /** Changes what may stand above without moving what the reader reads. */
  holding(change) {
    const { top } = this.el.getBoundingClientRect();
    const held = this.following ? null : [...this.views.values()].find(({ section }) => section.getBoundingClientRect().bottom > top);
    const was = held?.section.getBoundingClientRect().top;
    change();
    if (held?.section.isConnected) this.el.scrollTop += held.section.getBoundingClientRect().top - was;
    this.#settle();
  }

  clear() {
    for (const view of [...this.views.values(), ...this.waiting.values()]) view.section.remove();
    this.views.clear();
    this.waiting.clear();
    this.dirty.clear();
    this.following = true;
  }

  destroy() {
    this.resizing.disconnect();
    cancelAnimationFrame(this.frame);
    clearTimeout(this.timer);
    this.scheduled = true;
  }

  /** Sections in the order of turns, then of what waits. */
  #arrange({ turns, entries, known }) {
    const ids = new Set(turns.map((turn) => turn.id));
    drop(this.views, (id) => !ids.has(id));
    for (const turn of turns) if (!this.views.has(turn.id)) this.#open(turn);
    const waits = new Set(entries.map((entry) => entry.id));
    drop(this.waiting, (id) => !waits.has(id));
    const sections = turns.map((turn) => this.views.get(turn.id).section);
    for (const entry of entries) {
      const view = this.waiting.get(entry.id) ?? this.#wait(entry);
      view.question.update(entry);
      sections.push(view.section);
    }
    let at = this.empty.nextSibling;
    for (const section of sections) {
      if (section === at) at = at.nextSibling;
      else this.column.insertBefore(section, at);
    }
    this.empty.hidden = !known || sections.length > 0;
  }

  /** The message that waited becomes the turn's question: the same element, so nothing flickers. */
  #open(turn) {
    const waited = this.waiting.get(turn.mid);
    const { section, question } = waited ?? this.#wait({ id: turn.mid, text: turn.question });
    this.waiting.delete(turn.mid);
    const answer = new AnswerView(turn, this);
    section.append(answer.el);
    const view = { section, question, answer };
    this.views.set(turn.id, view);
    this.dirty.add(turn.id);
    return view;
  }

  #wait(entry) {
    const question = new QuestionView({ onAct: (act) => this.onAct(entry.id, act) });
    const section = h('section', { class: 'fs-turn' }, entry.text !== '' && question.el, question.note);
    const view = { section, question };
    this.waiting.set(entry.id, view);
    return view;
  }

  #update(turn, before, { frozen }, retried) {
    const { section, question, answer } = this.views.get(turn.id);
    // Asked again right below: the question need not stand there twice.
    const repeated = Boolean(turn.retryOf) && before?.id === turn.retryOf;
    if (repeated || turn.question === '') question.el.remove();
    else if (!question.el.isConnected) section.prepend(question.el);
    question.update({ text: turn.question, turn: turn.id, note: turn.retryOf ? texts.again : '' });
    answer.update(turn, { frozen: turn.state === 'running' ? frozen : null, retried });
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.el;
    const below = scrollHeight - scrollTop - clientHeight;
    // A move upwards is the reader's, and even a small one means: stay here. Content that shrinks ends at the bottom.
    if (scrollTop < this.top - 1 && below > 2) this.following = false;
    else if (below < NEAR_PX) this.following = true;
    this.top = scrollTop;
    this.jump.hidden = this.following;
  }

  #settle() {
    if (this.following) {
      this.el.scrollTop = this.el.scrollHeight;
      this.top = this.el.scrollTop;
    }
    this.jump.hidden = this.following || this.el.scrollHeight - this.el.scrollTop - this.el.clientHeight < NEAR_PX;
  }
}

function drop(views, gone) {
  for (const [id, view] of views) {
    if (!gone(id)) continue;
    view.section.remove();
    views.delete(id);
  }
}

// The transcript on the page: turns in order, then what waits to be sent. Changes are gathered and drawn at most once a
// frame; the text's end is followed only while the reader is at it.

import { button, h } from './dom.js';
import { AnswerView, QuestionView } from './message.js';
import { texts } from './texts.js';

const HIDDEN_MS = 400; // a hidden page gets no frames, but what it shows shall be true
const SLICE_MS = 8; // a long history is drawn in slices, newest first, so that no task is long
const SHARE = 4; // a draw that was slow is followed by this many times its own length without one
const NEAR_PX = 48;

export class Log {
  /**
   * `model()` gives `{turns, frozen, entries, known}`: the turns, the text at which Stop froze the running one (or null),
   * what waits as `{id, text, state, note, acts}`, and whether the server has been heard. `empty`: shown while there is
   * nothing. `onDrawn()` is called after each draw; the other `on…` are the buttons'.
   */
  constructor({ model, empty, onEarlier, onDrawn, ...acts }) {
    Object.assign(this, { model, empty, onDrawn, acts });
    this.views = new Map(); // turn id -> {section, question, answer}
    this.waiting = new Map(); // client_msg_id -> {section, question}
    this.dirty = new Set();
    this.following = true;
    this.quietUntil = 0;
    this.earlier = button('fs-earlier', onEarlier, { hidden: true }, texts.earlier);
    this.column = h('div', { class: 'fs-column' }, this.earlier, empty);
    this.el = h(
      'div', { class: 'fs-log', data: { role: 'log' }, role: 'log', tabindex: '0', aria: { live: 'off', label: texts.transcript } },
      this.column,
    );
    this.jump = button('fs-jump', () => this.follow(), { hidden: true }, texts.jump);
    this.el.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    // The room changes under the reader: a banner comes, the composer grows, a phone's keyboard opens.
    this.resizing = new ResizeObserver(() => this.#settle());
    this.resizing.observe(this.el);
    this.resizing.observe(this.column);
  }

  /** Something of this turn changed; without one, what waits or the order did. */
  touch(turn = null) {
    if (turn) this.dirty.add(turn.id);
    this.frame ??= requestAnimationFrame(() => this.draw());
    this.timer ??= setTimeout(() => this.draw(), HIDDEN_MS);
  }

  draw() {
    this.#cancel();
    if (performance.now() < this.quietUntil) this.touch();
    else this.holding(() => this.#draw());
    if (this.dirty.size) this.touch();
  }

  /** To the end, and stay there. */
  follow() {
    this.following = true;
    this.#settle();
  }

  /** Changes what may stand above without moving what the reader reads. */
  holding(change) {
    const { top } = this.el.getBoundingClientRect();
    const at = (view) => view.section.getBoundingClientRect();
    const held = this.following ? null : [...this.views.values()].find((view) => at(view).bottom > top);
    const was = held && at(held).top;
    change();
    if (held?.section.isConnected) this.el.scrollTop += at(held).top - was;
    this.#settle();
  }

  clear() {
    drop(this.views, () => true);
    drop(this.waiting, () => true);
    this.dirty.clear();
    this.following = true;
  }

  destroy() {
    this.#cancel();
    this.resizing.disconnect();
  }

  #cancel() {
    cancelAnimationFrame(this.frame);
    clearTimeout(this.timer);
    this.frame = this.timer = null;
  }

  #draw() {
    const begun = performance.now();
    const { turns, frozen, entries, known } = this.model();
    this.#arrange(turns, entries, known);
    const retried = new Set(turns.map((turn) => turn.retryOf));
    turns.findLast((turn, i) => {
      if (!this.dirty.delete(turn.id)) return false;
      this.#update(turn, turns[i - 1], { frozen, retried: retried.has(turn.id) });
      return performance.now() - begun > SLICE_MS;
    });
    this.#settle(); // styles and layout belong to what a draw costs
    const spent = performance.now() - begun;
    this.quietUntil = this.dirty.size || spent < 4 ? 0 : begun + SHARE * spent;
    this.onDrawn();
  }

  /** Sections in the order of turns, then of what waits. */
  #arrange(turns, entries, known) {
    const ids = new Set(turns.map((turn) => turn.id));
    drop(this.views, (id) => !ids.has(id));
    const sections = turns.map((turn) => (this.views.get(turn.id) ?? this.#open(turn)).section);
    for (const id of this.dirty) if (!ids.has(id)) this.dirty.delete(id);
    const waits = new Set(entries.map((entry) => entry.id));
    drop(this.waiting, (id) => !waits.has(id));
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
    const view = this.waiting.get(turn.mid) ?? this.#wait({ id: turn.mid, text: turn.question });
    this.waiting.delete(turn.mid);
    view.answer = new AnswerView(turn, this.acts);
    view.section.append(view.answer.el);
    this.views.set(turn.id, view);
    this.dirty.add(turn.id).add(turn.retryOf); // the one asked again says so
    return view;
  }

  #wait({ id, text }) {
    const question = new QuestionView((act) => this.acts.onAct(id, act));
    const section = h('section', { class: 'fs-turn' }, text && question.el, question.note);
    const view = { section, question };
    this.waiting.set(id, view);
    return view;
  }

  #update(turn, before, how) {
    const { section, question, answer } = this.views.get(turn.id);
    // Asked again right below: the question need not stand there twice.
    if (turn.question === '' || (turn.retryOf && before?.id === turn.retryOf)) question.el.remove();
    else if (!question.el.isConnected) section.prepend(question.el);
    question.update({ text: turn.question, turn: turn.id, note: turn.retryOf ? texts.again : '' });
    answer.update(turn, how);
  }

  #scrolled() {
    const { scrollTop } = this.el;
    // A move upwards is the reader's, and even a small one means: stay here. Content that shrinks ends at the bottom.
    if (scrollTop < this.top - 1 && this.#below() > 2) this.following = false;
    else if (this.#below() < NEAR_PX) this.following = true;
    this.top = scrollTop;
    this.#showJump();
  }

  #below() {
    return this.el.scrollHeight - this.el.scrollTop - this.el.clientHeight;
  }

  #settle() {
    if (this.following) {
      this.el.scrollTop = this.el.scrollHeight;
      this.top = this.el.scrollTop;
    }
    this.#showJump();
  }

  #showJump() {
    this.jump.hidden = this.following || this.#below() < NEAR_PX;
  }
}

function drop(views, gone) {
  for (const [id, view] of views) {
    if (!gone(id)) continue;
    view.section.remove();
    views.delete(id);
  }
}

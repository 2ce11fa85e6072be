// The transcript on the page: the turns in order, then the pending messages. Changes are collected and drawn at most once
// per animation frame. The view follows the end of the text only while the reader is there.

import { button, h } from './dom.js';
import { t } from './i18n.js';
import { AnswerView, QuestionView } from './message_view.js';

const HIDDEN_PAGE_DELAY_MS = 400; // a hidden page gets no animation frames, but must still be up to date
const DRAW_SLICE_MS = 8; // a long history is drawn in slices, newest turn first, to avoid long tasks
const BREAK_FACTOR = 4; // the time from one slow draw to the next, as a multiple of the draw's duration
const END_MARGIN_PX = 48;

export class TranscriptView {
  /**
   * `model()` returns `{turns, frozenText, entries, isLoaded}`: the turns, the text at which Stop froze the running one (or
   * `null`), the pending messages as `{id, text, state, note, actions}`, and whether a welcome has arrived. `empty` is the
   * element shown while there is nothing else. `onDrawn()` is called after each draw; the other callbacks belong to buttons.
   */
  constructor({ model, empty, onEarlier, onDrawn, ...callbacks }) {
    Object.assign(this, { model, empty, onDrawn, callbacks });
    this.turnViews = new Map(); // turn id -> {section, question, answer}
    this.pendingViews = new Map(); // client_msg_id -> {section, question}
    this.dirty = new Set(); // ids of the turns to draw
    this.isFollowing = true;
    this.breakUntil = 0;
    this.earlier = button('fs-earlier', onEarlier, { hidden: true }, t.earlier);
    this.column = h('div', { class: 'fs-column' }, this.earlier, empty);
    this.el = h(
      'div', { class: 'fs-log', data: { role: 'log' }, role: 'log', tabindex: '0', aria: { live: 'off', label: t.transcript } },
      this.column,
    );
    this.jump = button('fs-jump', () => this.follow(), { hidden: true }, t.jump);
    this.el.addEventListener('scroll', () => this.#onScroll(), { passive: true });
    // The height changes when a banner appears, the composer grows or a phone's keyboard opens.
    this.resizing = new ResizeObserver(() => this.#scrollToEnd());
    this.resizing.observe(this.el);
    this.resizing.observe(this.column);
  }

  /** Schedules a draw, because this turn changed or, without one, the pending messages or the order. */
  invalidate(turn = null) {
    if (turn) this.dirty.add(turn.id);
    this.frame ??= requestAnimationFrame(() => this.draw());
    this.timer ??= setTimeout(() => this.draw(), HIDDEN_PAGE_DELAY_MS);
  }

  draw() {
    this.#cancelDraw();
    if (performance.now() < this.breakUntil) this.invalidate();
    else this.keepPosition(() => this.#draw());
    if (this.dirty.size) this.invalidate();
  }

  /** Scrolls to the end and stays there. */
  follow() {
    this.isFollowing = true;
    this.#scrollToEnd();
  }

  /** Runs a change that may alter heights without moving the text that the reader sees. */
  keepPosition(change) {
    const { top } = this.el.getBoundingClientRect();
    const rect = (view) => view.section.getBoundingClientRect();
    const anchor = this.isFollowing ? null : [...this.turnViews.values()].find((view) => rect(view).bottom > top);
    const before = anchor && rect(anchor).top;
    change();
    if (anchor?.section.isConnected) this.el.scrollTop += rect(anchor).top - before;
    this.#scrollToEnd();
  }

  clear() {
    removeViews(this.turnViews);
    removeViews(this.pendingViews);
    this.dirty.clear();
    this.isFollowing = true;
  }

  destroy() {
    this.#cancelDraw();
    this.resizing.disconnect();
  }

  #cancelDraw() {
    cancelAnimationFrame(this.frame);
    clearTimeout(this.timer);
    this.frame = this.timer = null;
  }

  #draw() {
    const startedAt = performance.now();
    const { turns, frozenText, entries, isLoaded } = this.model();
    this.#arrange(turns, entries, isLoaded);
    const retried = new Set(turns.map((turn) => turn.retryOf));
    // The search ends when the slice is used up; the rest stays dirty.
    turns.findLast((turn, i) => {
      if (!this.dirty.delete(turn.id)) return false;
      this.#update(turn, turns[i - 1], { frozenText, wasRetried: retried.has(turn.id) });
      return performance.now() - startedAt > DRAW_SLICE_MS;
    });
    this.#scrollToEnd(); // forces styles and layout, which are part of the cost
    const spent = performance.now() - startedAt;
    this.breakUntil = this.dirty.size || spent < 4 ? 0 : startedAt + BREAK_FACTOR * spent;
    this.onDrawn();
  }

  /** Brings the sections in order: the turns, then the pending messages. */
  #arrange(turns, entries, isLoaded) {
    const turnIds = new Set(turns.map((turn) => turn.id));
    removeViews(this.turnViews, turnIds);
    const sections = turns.map((turn) => (this.turnViews.get(turn.id) ?? this.#addTurn(turn)).section);
    for (const id of this.dirty) if (!turnIds.has(id)) this.dirty.delete(id);
    const entryIds = new Set(entries.map((entry) => entry.id));
    removeViews(this.pendingViews, entryIds);
    for (const entry of entries) {
      const view = this.pendingViews.get(entry.id) ?? this.#addPending(entry);
      view.question.update(entry);
      sections.push(view.section);
    }
    let next = this.empty.nextSibling;
    for (const section of sections) {
      if (section === next) next = next.nextSibling;
      else this.column.insertBefore(section, next);
    }
    this.empty.hidden = !isLoaded || sections.length > 0;
  }

  /** Adds a turn. A pending message becomes its question and keeps its element, so that nothing flickers. */
  #addTurn(turn) {
    const view = this.pendingViews.get(turn.mid) ?? this.#addPending({ id: turn.mid, text: turn.question });
    this.pendingViews.delete(turn.mid);
    view.answer = new AnswerView(turn, this.callbacks);
    view.section.append(view.answer.el);
    this.turnViews.set(turn.id, view);
    this.dirty.add(turn.id).add(turn.retryOf); // the retried turn changes too
    return view;
  }

  #addPending({ id, text }) {
    const question = new QuestionView((action) => this.callbacks.onAction(id, action));
    const section = h('section', { class: 'fs-turn' }, text && question.el, question.note);
    const view = { section, question };
    this.pendingViews.set(id, view);
    return view;
  }

  #update(turn, previous, options) {
    const { section, question, answer } = this.turnViews.get(turn.id);
    // A retry directly below the turn that it retries does not repeat the question.
    if (turn.question === '' || (turn.retryOf && previous?.id === turn.retryOf)) question.el.remove();
    else if (!question.el.isConnected) section.prepend(question.el);
    question.update({ text: turn.question, turn: turn.id, note: turn.retryOf ? t.askedAgain : '' });
    answer.update(turn, options);
  }

  #onScroll() {
    const { scrollTop } = this.el;
    // Any upward move comes from the reader and ends following, unless the content shrank, which ends at the bottom.
    if (scrollTop < this.lastScrollTop - 1 && this.#belowPx() > 2) this.isFollowing = false;
    else if (this.#belowPx() < END_MARGIN_PX) this.isFollowing = true;
    this.lastScrollTop = scrollTop;
    this.#updateJump();
  }

  /** The height of the content below the visible part. */
  #belowPx() {
    return this.el.scrollHeight - this.el.scrollTop - this.el.clientHeight;
  }

  /** Scrolls to the end if the view follows it. */
  #scrollToEnd() {
    if (this.isFollowing) {
      this.el.scrollTop = this.el.scrollHeight;
      this.lastScrollTop = this.el.scrollTop;
    }
    this.#updateJump();
  }

  #updateJump() {
    this.jump.hidden = this.isFollowing || this.#belowPx() < END_MARGIN_PX;
  }
}

/** Removes all views but those of the ids to keep. */
function removeViews(views, kept = new Set()) {
  for (const [id, view] of views) {
    if (kept.has(id)) continue;
    view.section.remove();
    views.delete(id);
  }
}

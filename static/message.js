// One turn on the page: the visitor's words, the answer, what is to be said about it, and what can be done with it.
// `update` brings the elements in line with the turn; it touches only what differs.

import { h, icon, iconButton, setText, shape } from './dom.js';
import { MarkdownView } from './markdown.js';
import { clock, texts } from './texts.js';
import { unavailable, words } from './transcript.js';

/** The visitor's message, and a note below it. `el.rawText` is its text to the letter. */
export class QuestionView {
  constructor({ onAct }) {
    this.onAct = onAct;
    this.text = h('div', { class: 'fs-bubble', dir: 'auto', data: { role: 'text' } });
    this.note = h('div', { class: 'fs-note', hidden: true });
    this.el = h(
      'article', { class: 'fs-question', data: { role: 'message', from: 'user' } },
      h('h2', { class: 'fs-hidden' }, texts.you), this.text,
    );
  }

  update({ text, turn = null, state = 'done', note = '', acts = [] }) {
    const { el } = this;
    el.rawText = text;
    setText(this.text, text);
    if (turn) el.dataset.turn = turn;
    el.dataset.state = state;
    const said = `${note}|${acts}`;
    if (said === this.said) return;
    this.said = said;
    this.note.hidden = note === '';
    this.note.replaceChildren(
      h('span', {}, note),
      ...acts.map((act) => h('button', { type: 'button', class: 'fs-link', data: { act }, on: { click: () => this.onAct(act) } }, texts[act])),
    );
  }
}

/** The answer of a turn. `el.rawText` is the text that is shown, to the letter and without Markdown's rendering. */
export class AnswerView {
  constructor(turn, { onRetry, onFeedback, onCopy }) {
    const { id } = turn;
    this.text = h('div', { class: 'fs-md', data: { role: 'text' } });
    this.markdown = new MarkdownView(this.text);
    this.dots = h('div', { class: 'fs-dots', role: 'img', aria: { label: texts.waiting } }, h('i'), h('i'), h('i'));
    this.pause = h('p', { class: 'fs-pause', hidden: true });
    this.label = h('span', { class: 'fs-label', hidden: true, data: { role: 'label' } });
    this.ending = h('span', { class: 'fs-ending', hidden: true, data: { role: 'ending' } });
    this.chip = h('span', { class: 'fs-chip', hidden: true, data: { role: 'chip' } });
    this.retry = h(
      'button', { type: 'button', class: 'fs-tool', data: { role: 'retry' }, title: texts.retry, on: { click: () => onRetry(id) } },
      icon('retry'), h('span', {}, texts.retry),
    );
    const thumb = (value) => iconButton(value, texts[value], {
      data: { role: value }, aria: { pressed: 'false' }, on: { click: () => onFeedback(id, value) },
    });
    this.thumbs = [thumb('up'), thumb('down')];
    this.tools = h(
      'span', { class: 'fs-tools' },
      iconButton('copy', texts.copy, { data: { role: 'copy' }, on: { click: (event) => onCopy(id, event.currentTarget) } }),
      this.retry, ...this.thumbs,
    );
    this.foot = h('div', { class: 'fs-foot-line', hidden: true }, this.label, this.ending, this.chip, this.tools);
    this.drafts = h('div', { class: 'fs-drafts', hidden: true });
    this.el = h(
      'article', { class: 'fs-answer', data: { role: 'message', from: 'assistant', turn: id } },
      h('h2', { class: 'fs-hidden' }, texts.answer),
      this.text, this.dots, this.pause, this.foot, this.drafts,
    );
  }

  /** `frozen`: the text at the moment Stop was pressed, shown until the server confirms. `retried`: asked again. */
  update(turn, { frozen = null, retried = false } = {}) {
    const { el } = this;
    const running = turn.state === 'running';
    const shown = running && frozen !== null ? frozen : turn.text;
    el.rawText = shown;
    el.dataset.state = running ? 'streaming' : turn.state;
    el.dataset.source = turn.source ?? '';
    el.classList.toggle('is-paused', turn.paused);
    el.classList.toggle('is-retried', retried);
    this.text.hidden = shown === '';
    this.markdown.update(shown, !running);
    this.dots.hidden = !(running && shown === '' && frozen === null);
    this.pause.hidden = !turn.paused;
    if (turn.paused) setText(this.pause, texts.switching(turn.pausedFrom, turn.provider));
    this.#marks(turn, running);
    this.#drafts(turn.drafts);
    this.foot.hidden = running;
    this.tools.hidden = retried;
    for (const button of this.thumbs) {
      button.hidden = turn.state === 'interrupted';
      button.setAttribute('aria-pressed', String(turn.feedback === button.dataset.role));
    }
    this.#followup(turn.followup);
  }

  #marks(turn, running) {
    const source = texts.sources[turn.source];
    say(this.label, !running && source ? source(texts.age(turn.ageS)) : '', turn.degraded ? 'triangle' : 'dot');
    this.label.classList.toggle('is-degraded', turn.degraded);
    const ending = turn.state === 'stopped' || turn.state === 'interrupted' ? texts[turn.state] : texts.finishes[turn.finish];
    say(this.ending, running ? '' : ending ?? '', turn.state === 'interrupted' ? 'square' : null);
    this.ending.classList.toggle('is-down', turn.state === 'interrupted');
    const answered = turn.source === 'ai' && turn.provider && turn.state !== 'interrupted' && turn.text !== '';
    say(this.chip, !running && answered ? texts.answeredBy(turn.provider, unavailable(turn)) : '', null);
    if (turn.model) this.chip.title = turn.model;
    // What broke off asks for it; elsewhere it is one tool among others.
    this.retry.classList.toggle('is-wanted', turn.state === 'interrupted');
  }

  #drafts(drafts) {
    // Text of a draft never changes, so their number tells all; a restart before any text leaves none to show.
    const some = drafts.filter((draft) => draft.text.trim() !== '');
    if (some.length === this.drafts.childElementCount) return;
    this.drafts.hidden = some.length === 0;
    this.drafts.replaceChildren(...some.map(draftView));
  }

  #followup(followup) {
    if (!followup || this.later) return;
    const text = h('div', { class: 'fs-md', data: { role: 'text' } });
    new MarkdownView(text).update(followup.text, true);
    const label = h('span', { class: 'fs-label', data: { role: 'label' }, title: followup.model ?? '' });
    say(label, texts.later(followup.provider, clock(followup.at)), 'dot');
    this.later = h(
      'article', { class: 'fs-answer fs-later', data: {
        role: 'message', from: 'assistant', turn: this.el.dataset.turn, source: 'ai', state: 'done', followup: '',
      } },
      h('h2', { class: 'fs-hidden' }, texts.laterAnswer), text, h('div', { class: 'fs-foot-line' }, label),
    );
    this.later.rawText = followup.text;
    this.el.after(this.later);
  }
}

function say(el, words, form) {
  if (el.dataset.said === words) return;
  el.dataset.said = words;
  el.hidden = words === '';
  el.replaceChildren(...(form && words ? [shape(form)] : []), words);
}

/** One line until it is opened. */
function draftView(draft) {
  const text = h('div', { class: 'fs-md' });
  new MarkdownView(text).update(draft.text, true);
  const details = h(
    'details', { class: 'fs-draft', data: { role: 'draft' } },
    h('summary', {}, texts.draft(draft.provider, words(draft.text))), text,
  );
  details.rawText = draft.text;
  return details;
}

// One turn on the page: the visitor's words, the answer, what is to be said about it and what can be done with it.
// `update` brings the elements in line with the turn and touches only what differs.

import { h, iconButton, setText, shape, wordButton } from './dom.js';
import { Prose } from './prose.js';
import { age, clock, texts } from './texts.js';
import { unavailable, words } from './transcript.js';

/** The visitor's message, and a note below it. `el.rawText` is its text to the letter. */
export class QuestionView {
  /** `onAct(act)`: what the visitor chose to do with a message that was refused. */
  constructor(onAct) {
    this.onAct = onAct;
    this.text = h('div', { class: 'fs-bubble', dir: 'auto', data: { role: 'text' } });
    this.note = h('div', { class: 'fs-note', hidden: true });
    this.el = h(
      'article', { class: 'fs-question', data: { role: 'message', from: 'user' } },
      h('h2', { class: 'fs-hidden' }, texts.you), this.text,
    );
  }

  update({ text, turn = '', state = 'done', note, acts = [] }) {
    this.el.rawText = text;
    setText(this.text, text);
    Object.assign(this.el.dataset, { turn, state });
    if (note === this.said) return;
    this.said = note;
    this.note.hidden = note === '';
    this.note.replaceChildren(h('span', {}, note), ...acts.map((act) => wordButton(texts[act], () => this.onAct(act))));
  }
}

/** The answer of a turn. `el.rawText` is the text that is shown, to the letter and without Markdown's rendering. */
export class AnswerView {
  constructor({ id }, { onRetry, onFeedback, onCopy }) {
    const mark = (role) => h('span', { class: `fs-${role}`, hidden: true, data: { role } });
    this.text = h('div', { class: 'fs-md', data: { role: 'text' } });
    this.prose = new Prose(this.text);
    this.dots = h('div', { class: 'fs-dots', role: 'img', aria: { label: texts.waiting } }, h('i'), h('i'), h('i'));
    this.pause = h('p', { class: 'fs-pause', hidden: true });
    this.label = mark('label');
    this.ending = mark('ending');
    this.chip = mark('chip');
    this.retry = iconButton('retry', texts.retry, () => onRetry(id), { data: { role: 'retry' } });
    this.retry.append(h('span', {}, texts.retry));
    this.thumbs = ['up', 'down'].map((value) =>
      iconButton(value, texts[value], () => onFeedback(id, value), { data: { role: value }, aria: { pressed: 'false' } }));
    this.tools = h(
      'span', { class: 'fs-tools' },
      iconButton('copy', texts.copy, (event) => onCopy(this.el.rawText, event.currentTarget), { data: { role: 'copy' } }),
      this.retry, ...this.thumbs,
    );
    this.foot = h('div', { class: 'fs-foot-line', hidden: true }, this.label, this.ending, this.chip, this.tools);
    this.drafts = h('div', { class: 'fs-drafts', hidden: true });
    this.el = h(
      'article', { class: 'fs-answer', data: { role: 'message', from: 'assistant', turn: id } },
      h('h2', { class: 'fs-hidden' }, texts.answer), this.text, this.dots, this.pause, this.foot, this.drafts,
    );
  }

  /** `frozen`: the text at which Stop was pressed, shown until the server confirms. `retried`: it was asked again. */
  update(turn, { frozen = null, retried = false }) {
    const { el } = this;
    const running = turn.state === 'running';
    const shown = (running ? frozen : null) ?? turn.text;
    el.rawText = shown;
    Object.assign(el.dataset, { state: running ? 'streaming' : turn.state, source: turn.source ?? '' });
    el.classList.toggle('is-paused', turn.paused);
    el.classList.toggle('is-retried', retried);
    this.text.hidden = shown === '';
    this.prose.update(shown, !running);
    this.dots.hidden = !running || shown !== '' || frozen !== null;
    this.pause.hidden = !turn.paused;
    setText(this.pause, turn.paused ? texts.switching(turn.pausedFrom, turn.provider) : '');
    this.foot.hidden = running;
    if (!running) this.#foot(turn, retried);
    this.#drafts(turn.drafts);
    this.#followup(turn.followup);
  }

  #foot(turn, retried) {
    const interrupted = turn.state === 'interrupted';
    say(this.label, texts.sources[turn.source]?.(age(turn.ageS)), turn.degraded ? 'triangle' : 'dot');
    this.label.classList.toggle('is-degraded', turn.degraded);
    say(this.ending, texts.endings[turn.state] ?? texts.endings[turn.finish], interrupted && 'square');
    this.ending.classList.toggle('is-down', interrupted);
    const answered = turn.source === 'ai' && turn.provider && turn.text !== '' && !interrupted;
    say(this.chip, answered && texts.answeredBy(turn.provider, unavailable(turn)));
    this.chip.title = turn.model ?? '';
    this.tools.hidden = retried;
    // What broke off asks for it; elsewhere it is one tool among others.
    this.retry.classList.toggle('is-wanted', interrupted);
    for (const thumb of this.thumbs) {
      thumb.hidden = interrupted;
      thumb.setAttribute('aria-pressed', turn.feedback === thumb.dataset.role);
    }
  }

  #drafts(drafts) {
    // A draft never changes, so their number tells all; a restart before any text left none to show.
    const some = drafts.filter((draft) => draft.text.trim() !== '');
    if (some.length === this.drafts.childElementCount) return;
    this.drafts.hidden = some.length === 0;
    this.drafts.replaceChildren(...some.map(({ provider, text }) => h(
      'details', { class: 'fs-draft', data: { role: 'draft' } },
      h('summary', {}, texts.draft(provider, words(text))), whole(text),
    )));
  }

  #followup(followup) {
    if (!followup || this.later) return;
    const { text, provider, model, at } = followup;
    const label = h('span', { class: 'fs-label', data: { role: 'label' }, title: model });
    say(label, texts.later(provider, clock(at)), 'dot');
    const { turn } = this.el.dataset;
    this.later = h(
      'article', {
        class: 'fs-answer fs-later',
        data: { role: 'message', from: 'assistant', turn, source: 'ai', state: 'done', followup: '' },
      },
      h('h2', { class: 'fs-hidden' }, texts.laterAnswer), whole(text, { role: 'text' }),
      h('div', { class: 'fs-foot-line' }, label),
    );
    this.later.rawText = text;
    this.el.after(this.later);
  }
}

/** Words with their shape, or nothing. */
function say(el, said, form) {
  el.hidden = !said;
  if (el.textContent !== (said || '')) el.replaceChildren(...[form && shape(form), said].filter(Boolean));
}

/** Markdown that does not grow. */
function whole(text, data) {
  const el = h('div', { class: 'fs-md', data });
  new Prose(el).update(text, true);
  return el;
}

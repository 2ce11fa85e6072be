// The views of one turn: the visitor's question, and the answer with its labels and buttons. `update` changes only the
// elements that differ.

import { h, iconButton, setText, statusIcon, textButton } from './dom.js';
import { formatAge, formatTime, t } from './i18n.js';
import { MarkdownText } from './markdown_loader.js';
import { countWords, failedProviders } from './transcript.js';

/** The visitor's message and the note below it. `el.rawText` is its exact text. */
export class QuestionView {
  /** `onAction(action)` is called when the visitor chooses what to do with a refused message. */
  constructor(onAction) {
    this.onAction = onAction;
    this.text = h('div', { class: 'fs-bubble', dir: 'auto', data: { role: 'text' } });
    this.note = h('div', { class: 'fs-note', hidden: true });
    this.el = h(
      'article', { class: 'fs-question', data: { role: 'message', from: 'user' } },
      h('h2', { class: 'fs-hidden' }, t.you), this.text,
    );
  }

  update({ text, turn = '', state = 'done', note, actions = [] }) {
    this.el.rawText = text;
    setText(this.text, text);
    Object.assign(this.el.dataset, { turn, state });
    if (note === this.shownNote) return;
    this.shownNote = note;
    this.note.hidden = note === '';
    this.note.replaceChildren(h('span', {}, note), ...actions.map((action) => textButton(t[action], () => this.onAction(action))));
  }
}

/** The answer of a turn. `el.rawText` is the exact text shown, before Markdown rendering. */
export class AnswerView {
  constructor({ id }, { onRetry, onFeedback, onCopy }) {
    const label = (role) => h('span', { class: `fs-${role}`, hidden: true, data: { role } });
    this.text = h('div', { class: 'fs-md', data: { role: 'text' } });
    this.markdown = new MarkdownText(this.text);
    this.dots = h('div', { class: 'fs-dots', role: 'img', aria: { label: t.waiting } }, h('i'), h('i'), h('i'));
    this.pause = h('p', { class: 'fs-pause', hidden: true });
    this.label = label('label');
    this.ending = label('ending');
    this.chip = label('chip');
    this.retry = iconButton('retry', t.retry, () => onRetry(id), { data: { role: 'retry' } });
    this.retry.append(h('span', {}, t.retry));
    this.thumbs = ['up', 'down'].map((value) =>
      iconButton(value, t[value], () => onFeedback(id, value), { data: { role: value }, aria: { pressed: 'false' } }));
    this.tools = h(
      'span', { class: 'fs-tools' },
      iconButton('copy', t.copy, (event) => onCopy(this.el.rawText, event.currentTarget), { data: { role: 'copy' } }),
      this.retry, ...this.thumbs,
    );
    this.foot = h('div', { class: 'fs-foot-line', hidden: true }, this.label, this.ending, this.chip, this.tools);
    this.drafts = h('div', { class: 'fs-drafts', hidden: true });
    this.el = h(
      'article', { class: 'fs-answer', data: { role: 'message', from: 'assistant', turn: id } },
      h('h2', { class: 'fs-hidden' }, t.answer), this.text, this.dots, this.pause, this.foot, this.drafts,
    );
  }

  /** `frozenText` is the text at which Stop was pressed; it is shown until the server confirms. `wasRetried`: a retry of this turn exists. */
  update(turn, { frozenText = null, wasRetried = false }) {
    const { el } = this;
    const isRunning = turn.state === 'running';
    const text = (isRunning ? frozenText : null) ?? turn.text;
    el.rawText = text;
    Object.assign(el.dataset, { state: isRunning ? 'streaming' : turn.state, source: turn.source ?? '' });
    el.classList.toggle('is-paused', turn.isPaused);
    el.classList.toggle('is-retried', wasRetried);
    this.text.hidden = text === '';
    this.markdown.update(text, !isRunning);
    this.dots.hidden = !isRunning || text !== '' || frozenText !== null;
    this.pause.hidden = !turn.isPaused;
    setText(this.pause, turn.isPaused ? t.switching(turn.pausedProvider, turn.provider) : '');
    this.foot.hidden = isRunning;
    if (!isRunning) this.#updateFoot(turn, wasRetried);
    this.#updateDrafts(turn.drafts);
    this.#addFollowup(turn.followup);
  }

  #updateFoot(turn, wasRetried) {
    const isInterrupted = turn.state === 'interrupted';
    setLabel(this.label, t.sources[turn.source]?.(formatAge(turn.ageS)), turn.degraded ? 'triangle' : 'dot');
    this.label.classList.toggle('is-degraded', turn.degraded);
    setLabel(this.ending, t.endings[turn.state] ?? t.endings[turn.finish], isInterrupted && 'square');
    this.ending.classList.toggle('is-down', isInterrupted);
    const hasChip = turn.source === 'ai' && turn.provider && turn.text !== '' && !isInterrupted;
    setLabel(this.chip, hasChip && t.answeredBy(turn.provider, failedProviders(turn)));
    this.chip.title = turn.model ?? '';
    this.tools.hidden = wasRetried;
    // Retry stands out after an interruption; otherwise it is one tool among others.
    this.retry.classList.toggle('is-wanted', isInterrupted);
    for (const thumb of this.thumbs) {
      thumb.hidden = isInterrupted;
      thumb.setAttribute('aria-pressed', turn.feedback === thumb.dataset.role);
    }
  }

  #updateDrafts(drafts) {
    // A draft never changes, so comparing the number is enough. A restart before any text leaves an empty draft.
    const shown = drafts.filter((draft) => draft.text.trim() !== '');
    if (shown.length === this.drafts.childElementCount) return;
    this.drafts.hidden = shown.length === 0;
    this.drafts.replaceChildren(...shown.map(({ provider, text }) => h(
      'details', { class: 'fs-draft', data: { role: 'draft' } },
      h('summary', {}, t.draft(provider, countWords(text))), staticMarkdown(text),
    )));
  }

  #addFollowup(followup) {
    if (!followup || this.followup) return;
    const { text, provider, model, at } = followup;
    const label = h('span', { class: 'fs-label', data: { role: 'label' }, title: model });
    setLabel(label, t.later(provider, formatTime(at)), 'dot');
    const { turn } = this.el.dataset;
    this.followup = h(
      'article', {
        class: 'fs-answer fs-later',
        data: { role: 'message', from: 'assistant', turn, source: 'ai', state: 'done', followup: '' },
      },
      h('h2', { class: 'fs-hidden' }, t.laterAnswer), staticMarkdown(text, { role: 'text' }),
      h('div', { class: 'fs-foot-line' }, label),
    );
    this.followup.rawText = text;
    this.el.after(this.followup);
  }
}

/** Shows a text with an optional icon, or hides the label if there is no text. */
function setLabel(el, text, icon) {
  el.hidden = !text;
  if (el.textContent !== (text || '')) el.replaceChildren(...[icon && statusIcon(icon), text].filter(Boolean));
}

/** Creates an element with Markdown that does not grow. */
function staticMarkdown(text, data) {
  const el = h('div', { class: 'fs-md', data });
  new MarkdownText(el).update(text, true);
  return el;
}

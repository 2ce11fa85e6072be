// The message input. It grows to six lines; Enter sends, Shift-Enter starts a new line. While an answer runs, Stop replaces
// Send, and a message sent meanwhile waits in the outbox.

import { button, h, icon, setText } from './dom.js';
import { t } from './i18n.js';

export class Composer {
  constructor({ text, onSend, onStop, onInput }) {
    Object.assign(this, { onSend, onInput });
    const roundButton = (role, type, click) =>
      button(`fs-go fs-${role}`, click, { type, label: t[role], data: { role } }, icon(role));
    this.textarea = h('textarea', { rows: '1', dir: 'auto', placeholder: t.placeholder, aria: { label: t.placeholder } }, text);
    this.send = roundButton('send', 'submit', () => {});
    this.stop = roundButton('stop', 'button', onStop);
    this.hint = h('p', { class: 'fs-hint' });
    this.el = h(
      'form', { class: 'fs-foot' },
      h(
        'div', { class: 'fs-composer', tabindex: '-1', data: { role: 'composer' }, on: { focus: () => this.focus() } },
        this.textarea, this.send, this.stop,
      ),
      this.hint,
    );
    this.el.addEventListener('submit', (event) => this.#submit(event));
    this.textarea.addEventListener('input', () => this.#changed());
    this.textarea.addEventListener('keydown', (event) => {
      // While an input method composes, Enter selects a word.
      if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) this.#submit(event);
    });
  }

  /** `hint` says what happens to a message sent now. `maxChars` is the longest message allowed. */
  update({ isRunning, hint, maxChars }) {
    Object.assign(this, { hintText: hint, maxChars: maxChars ?? Infinity });
    const hadFocus = [this.send, this.stop].includes(this.el.getRootNode().activeElement);
    this.stop.hidden = !isRunning;
    this.send.hidden = isRunning;
    if (hadFocus) this.focus(); // the focused button may be hidden now
    this.#resize();
  }

  get value() {
    return this.textarea.value;
  }

  set value(text) {
    this.textarea.value = text;
    this.#changed();
  }

  focus() {
    this.#resize();
    this.textarea.focus();
  }

  #submit(event) {
    event.preventDefault();
    if (this.send.disabled) return;
    const text = this.value.trim();
    this.value = '';
    this.onSend(text);
  }

  #changed() {
    this.#resize();
    this.onInput(this.value);
  }

  #resize() {
    const { textarea, value, maxChars } = this;
    // In a closed panel the textarea has no height yet.
    if (this.sizedFor !== value && textarea.scrollHeight) {
      this.sizedFor = value;
      textarea.style.height = 'auto';
      textarea.style.height = `${textarea.scrollHeight}px`;
    }
    // The server counts characters, not UTF-16 code units.
    const length = value.length > maxChars ? [...value.trim()].length : 0;
    const isTooLong = length > maxChars;
    this.send.disabled = isTooLong || value.trim() === '';
    this.hint.classList.toggle('is-down', isTooLong);
    setText(this.hint, isTooLong ? t.tooLong(length, maxChars) : this.hintText ?? '');
  }
}

// Where one writes: it grows to six lines, Enter sends, Shift-Enter breaks. While an answer runs, Stop takes Send's
// place; what is sent meanwhile waits in the outbox.

import { button, h, icon, setText } from './dom.js';
import { texts } from './texts.js';

export class Composer {
  constructor({ text, onSend, onStop, onInput }) {
    Object.assign(this, { onSend, onInput });
    const go = (role, type, click) =>
      button(`fs-go fs-${role}`, click, { type, words: texts[role], data: { role } }, icon(role));
    this.area = h('textarea', { rows: '1', dir: 'auto', placeholder: texts.placeholder, aria: { label: texts.placeholder } }, text);
    this.send = go('send', 'submit', () => {});
    this.stop = go('stop', 'button', onStop);
    this.hint = h('p', { class: 'fs-hint' });
    this.el = h(
      'form', { class: 'fs-foot' },
      h(
        'div', { class: 'fs-composer', tabindex: '-1', data: { role: 'composer' }, on: { focus: () => this.focus() } },
        this.area, this.send, this.stop,
      ),
      this.hint,
    );
    this.el.addEventListener('submit', (event) => this.#submit(event));
    this.area.addEventListener('input', () => this.#changed());
    this.area.addEventListener('keydown', (event) => {
      // An input method's Enter chooses a word; it does not send.
      if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) this.#submit(event);
    });
  }

  /** `hint`: an honest word on what happens to a message now. `most`: the longest allowed. */
  update({ running, hint, most }) {
    Object.assign(this, { words: hint, most: most ?? Infinity });
    const had = [this.send, this.stop].includes(this.el.getRootNode().activeElement);
    this.stop.hidden = !running;
    this.send.hidden = running;
    if (had) this.focus(); // the button has gone, the keyboard stays here
    this.#fit();
  }

  get value() {
    return this.area.value;
  }

  set value(text) {
    this.area.value = text;
    this.#changed();
  }

  focus() {
    this.#fit();
    this.area.focus();
  }

  #submit(event) {
    event.preventDefault();
    if (this.send.disabled) return;
    const text = this.value.trim();
    this.value = '';
    this.onSend(text);
  }

  #changed() {
    this.#fit();
    this.onInput(this.value);
  }

  #fit() {
    const { area, value, most } = this;
    // Where it is not shown, in a panel that is closed, it has no height yet.
    if (this.fitted !== value && area.scrollHeight) {
      this.fitted = value;
      area.style.height = 'auto';
      area.style.height = `${area.scrollHeight}px`;
    }
    // The server counts characters, not UTF-16 units.
    const length = value.length > most ? [...value.trim()].length : 0;
    const over = length > most;
    this.send.disabled = over || value.trim() === '';
    this.hint.classList.toggle('is-down', over);
    setText(this.hint, over ? texts.tooLong(length, most) : this.words ?? '');
  }
}

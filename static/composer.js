// Where one writes: grows to six lines, Enter sends, Shift-Enter breaks. While an answer runs, Stop takes Send's place;
// what is sent meanwhile waits in the outbox.

import { h, icon, setText } from './dom.js';
import { texts } from './texts.js';

export class Composer {
  constructor({ text, onSend, onStop, onInput }) {
    Object.assign(this, { onSend, onInput });
    this.most = Infinity;
    this.area = h('textarea', { rows: '1', dir: 'auto', placeholder: texts.placeholder, enterkeyhint: 'send', aria: { label: texts.placeholder } });
    this.sendButton = h('button', { type: 'submit', class: 'fs-go', disabled: true, title: texts.send, aria: { label: texts.send }, data: { role: 'send' } }, icon('send'));
    this.stopButton = h(
      'button', { type: 'button', class: 'fs-go fs-stop', hidden: true, title: texts.stop, aria: { label: texts.stop }, data: { role: 'stop' }, on: { click: onStop } },
      icon('stop'),
    );
    this.hint = h('p', { class: 'fs-hint', hidden: true });
    this.count = h('p', { class: 'fs-hint fs-over', hidden: true });
    this.el = h(
      'form', { class: 'fs-foot', on: { submit: (event) => this.#submit(event) } },
      h('div', { class: 'fs-composer', data: { role: 'composer' }, on: { click: (event) => event.target === event.currentTarget && this.focus() } },
        this.area, this.sendButton, this.stopButton),
      this.count, this.hint,
    );
    this.area.value = text;
    this.area.addEventListener('input', () => this.#changed());
    this.area.addEventListener('keydown', (event) => {
      // An input method's Enter chooses a word; it does not send.
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#submit(event);
    });
  }

  /** `hint` is the honest word on what happens to a message now. */
  update({ running, hint, most }) {
    this.most = most || Infinity;
    const focused = this.el.contains(this.el.getRootNode().activeElement);
    if (this.stopButton.hidden === running) {
      this.stopButton.hidden = !running;
      this.sendButton.hidden = running;
      // The focused button has gone: keep the keyboard where it was.
      if (focused && this.el.getRootNode().activeElement !== this.area) this.area.focus();
    }
    this.hint.hidden = !hint;
    setText(this.hint, hint ?? '');
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
    this.area.focus();
  }

  #changed() {
    this.#fit();
    this.onInput(this.area.value);
  }

  #submit(event) {
    event.preventDefault();
    const text = this.area.value.trim();
    if (text === '' || this.#length() > this.most) return;
    this.value = '';
    this.onSend(text);
  }

  #length() {
    const { value } = this.area;
    // The server counts characters, not UTF-16 units; counted only where it can matter.
    return value.length > this.most ? [...value].length : value.length;
  }

  #fit() {
    const { area } = this;
    if (this.fitted !== area.value || this.width !== area.clientWidth) {
      area.style.height = 'auto';
      area.style.height = `${area.scrollHeight}px`;
      this.fitted = area.value;
      this.width = area.clientWidth;
    }
    const length = this.#length();
    const over = length > this.most;
    this.sendButton.disabled = over || area.value.trim() === '';
    this.count.hidden = !over;
    if (over) setText(this.count, texts.tooLong(length, this.most));
  }
}

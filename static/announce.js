// What is told to assistive technology: one hidden polite region, and at most three changes of it an answer: that it is
// being written, one thing in between, and its end. The transcript itself is not live: streamed text read out word by
// word would be noise.

import { h } from './dom.js';

export class Announcer {
  constructor() {
    this.el = h('div', { class: 'fs-hidden', data: { role: 'status' }, role: 'status', aria: { live: 'polite', atomic: 'true' } });
    this.left = Infinity;
  }

  /** An answer begins. */
  begin(words) {
    this.left = 3;
    this.#say(words);
  }

  /** It ends; after it the region is free again. */
  end(words) {
    this.left = Math.max(this.left, 1);
    this.#say(words);
    this.rest();
  }

  /** No answer runs. */
  rest() {
    this.left = Infinity;
  }

  /** Something else; while an answer runs, one such thing is told and the last word is kept for the answer's end. */
  tell(words) {
    if (this.left > 1) this.#say(words);
  }

  #say(words) {
    this.left -= 1;
    // The same words again would be no change and stay unsaid.
    this.el.textContent = this.el.textContent === words ? `${words}\u00a0` : words;
  }
}

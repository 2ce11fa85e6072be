// Announcements for assistive technology: one hidden polite live region. An answer changes it at most three times: when it
// starts, once in between, and when it ends. The transcript itself is not live, because reading out streamed text word by
// word would be noise.

import { h } from './dom.js';

export class LiveRegion {
  constructor() {
    this.el = h('div', { class: 'fs-hidden', data: { role: 'status' }, role: 'status', aria: { live: 'polite', atomic: 'true' } });
    this.remaining = Infinity;
  }

  /** Announces the start of an answer. */
  answerStarted(text) {
    this.remaining = 3;
    this.#announce(text);
  }

  /** Announces the end of an answer. */
  answerEnded(text) {
    this.remaining = Math.max(this.remaining, 1);
    this.#announce(text);
    this.reset();
  }

  /** Lifts the limit, as no answer is running. */
  reset() {
    this.remaining = Infinity;
  }

  /** Announces a message. During an answer only one is announced, so that the end of the answer is always heard. */
  announce(text) {
    if (this.remaining > 1) this.#announce(text);
  }

  #announce(text) {
    this.remaining -= 1;
    // The same text again would not change the region, and so would not be read out.
    this.el.textContent = this.el.textContent === text ? `${text}\u00a0` : text;
  }
}

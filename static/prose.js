// An answer's text in an element: as Markdown once that is loaded, plain until then and where it cannot be. What Markdown
// needs is more than half of all the code, and the first paint needs none of it.

import { setText } from './dom.js';

let View = null; // Markdown's, once it is here
const waiting = new Set();

/** Brings Markdown; what stands there plain is shown anew. */
export async function loadMarkdown() {
  if (View) return;
  ({ MarkdownView: View } = await import('./markdown.js'));
  for (const prose of waiting) prose.update(prose.text, prose.whole);
  waiting.clear();
}

export class Prose {
  constructor(el) {
    this.el = el;
  }

  /** Shows `text`; `whole`: it grows no more. */
  update(text, whole) {
    Object.assign(this, { text, whole });
    this.el.classList.toggle('is-plain', !View);
    if (View) {
      this.view ??= new View(this.el);
      this.view.update(text, whole);
    } else {
      waiting.add(this);
      setText(this.el, text);
    }
  }
}

// Text that is rendered as Markdown once the renderer has loaded, and shown as plain text until then or if loading fails.
// The renderer and its libraries are more than half of the code, and the first paint does not need them.

import { setText } from './dom.js';

let MarkdownView = null;
const waiting = new Set();

/** Loads the renderer and renders what is shown as plain text so far. */
export async function loadMarkdown() {
  if (MarkdownView) return;
  ({ MarkdownView } = await import('./markdown.js'));
  for (const view of waiting) view.update(view.text, view.isComplete);
  waiting.clear();
}

export class MarkdownText {
  constructor(el) {
    this.el = el;
  }

  /** Shows `text`. `isComplete` means that it does not grow any more. */
  update(text, isComplete) {
    Object.assign(this, { text, isComplete });
    this.el.classList.toggle('is-plain', !MarkdownView);
    if (MarkdownView) {
      this.view ??= new MarkdownView(this.el);
      this.view.update(text, isComplete);
    } else {
      waiting.add(this);
      setText(this.el, text);
    }
  }
}

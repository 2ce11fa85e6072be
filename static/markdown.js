// Renders model output, which is untrusted: HTML in it is shown as text, every render passes DOMPurify with a short list of
// tags, links may use http, https and mailto only, and no image or other resource is ever loaded.
//
// A growing answer is parsed from its last block on. The elements of the blocks before it are final, so the cost of a draw
// does not grow with the answer.

import { h, iconButton } from './dom.js';
import { t } from './i18n.js';
import { Marked } from './vendor/marked.esm.js';
import createPurifier from './vendor/purify.esm.js';

const escape = (text) => text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);

const marked = new Marked({
  breaks: true,
  tokenizer: {
    // In "Use a <div> here" the tag is shown as text. Only line breaks are taken as HTML, because models use them.
    html() {},
    tag(src) {
      const raw = /^<br\s*\/?>/i.exec(src)?.[0];
      return raw && { type: 'br', raw };
    },
  },
  renderer: {
    // All headings have one level, below the message's own heading. The class sets the size.
    heading({ tokens, depth }) {
      return `<h3 class="fs-h${depth}">${this.parser.parseInline(tokens)}</h3>`;
    },
    image: ({ href, text }) => `<a href="${escape(href)}">${escape(text || href)}</a>`,
    checkbox: ({ checked }) => (checked ? '☑ ' : '☐ '),
    html: ({ text }) => escape(text),
  },
});

const SANITIZE_OPTIONS = {
  ALLOWED_TAGS: 'p br h3 strong em del code pre blockquote ul ol li hr a table thead tbody tr th td'.split(' '),
  ALLOWED_ATTR: ['href', 'title', 'class', 'start', 'align'],
  ADD_URI_SAFE_ATTR: ['start', 'align'], // not addresses, so exempt from ALLOWED_URI_REGEXP
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?:\/\/|mailto:)/i,
  RETURN_DOM_FRAGMENT: true,
};
const ALLOWED_CLASS = /^(?:fs-h[1-6]|language-[\w+#.-]{1,30})$/;

const purify = createPurifier(window);
purify.addHook('uponSanitizeAttribute', (_, attribute) => {
  if (attribute.attrName === 'class' && !ALLOWED_CLASS.test(attribute.attrValue)) attribute.keepAttr = false;
});
purify.addHook('afterSanitizeAttributes', (node) => {
  if (!node.hasAttribute('href')) return;
  node.setAttribute('rel', 'noopener nofollow');
  node.setAttribute('target', '_blank');
});

function render(tokens) {
  const fragment = purify.sanitize(marked.parser(tokens), SANITIZE_OPTIONS);
  for (const block of fragment.querySelectorAll('p, ul, ol, h3, blockquote, th, td')) block.dir = 'auto';
  // Wide tables and code scroll on their own, also by keyboard (hence the tabindex).
  for (const table of fragment.querySelectorAll('table')) {
    const frame = h('div', { class: 'fs-scroll', tabindex: '0' });
    table.replaceWith(frame);
    frame.append(table);
  }
  for (const pre of fragment.querySelectorAll('pre')) {
    const frame = h(
      'div', { class: 'fs-code', dir: 'ltr' },
      h('div', { class: 'fs-code-head' },
        h('span', {}, pre.firstChild.className.replace('language-', '')),
        iconButton('copy', t.copyCode, null, { data: { copy: 'code' } })),
    );
    pre.replaceWith(frame);
    pre.tabIndex = 0;
    frame.append(pre);
  }
  return fragment;
}

/** Starts highlighting the code in a fragment that does not grow any more. */
function highlight(fragment) {
  const blocks = [...fragment.querySelectorAll('pre > code[class]')];
  // A failure leaves the code readable, just without colours.
  if (blocks.length) import('./highlight.js').then(({ highlightCode }) => Promise.all(blocks.map(highlightCode))).catch(() => {});
  return fragment;
}

/** A Markdown text that may grow, in an element. */
export class MarkdownView {
  constructor(el) {
    this.el = el;
    this.#reset();
  }

  /**
   * Shows `text`. `isComplete` means that it does not grow any more. If it continues the text shown, only the last block is
   * rendered again.
   */
  update(text, isComplete) {
    if (text === this.text && isComplete === this.isComplete) return;
    // A link definition at the end may belong to a settled block, so everything is rendered again.
    const hasDefinitions = isComplete && this.settledLength > 0 && /^ {0,3}\[[^\]\n]+\]:/m.test(text);
    if (!text.startsWith(this.text) || hasDefinitions) this.#reset();
    Object.assign(this, { text, isComplete });
    const source = text.replace(/\r\n?/g, '\n');
    const tokens = marked.lexer(source.slice(this.settledLength));
    const last = tokens.findLastIndex((token) => token.type !== 'space');
    const raw = tokens.slice(0, Math.max(last, 0)).map((token) => token.raw).join('');
    // Blocks are settled only if the lexer returns their exact source. Otherwise they stay in the tail.
    if (raw !== '' && source.startsWith(raw, this.settledLength)) {
      this.tail.before(highlight(render(tokens.splice(0, last))));
      this.settledLength += raw.length;
    }
    const rest = render(tokens);
    this.tail.replaceChildren(isComplete ? highlight(rest) : rest);
  }

  #reset() {
    Object.assign(this, { text: '', isComplete: false, settledLength: 0 });
    this.tail = h('div', { class: 'fs-tail' });
    this.el.replaceChildren(this.tail);
  }
}

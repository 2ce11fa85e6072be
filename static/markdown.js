// Model output to elements. It is text of strangers: nothing in it is taken for HTML, every render passes DOMPurify with
// a short list of tags, links lead to http, https and mailto alone, and nothing is ever loaded for it.
//
// A growing answer is parsed from its last block on: blocks before it are settled and their elements are not touched
// again, so the cost of a frame does not grow with the answer.

import { Marked } from './vendor/marked.esm.js';
import createPurifier from './vendor/purify.esm.js';
import { h, iconButton } from './dom.js';
import { texts } from './texts.js';

const escape = (text) =>
  text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

const marked = new Marked({
  gfm: true,
  breaks: true,
  tokenizer: {
    // "Use a <div> here" shall show the words; a line break is the one tag that models write on purpose.
    html() {},
    tag(src) {
      const found = /^<br\s*\/?>/i.exec(src);
      return found ? { type: 'br', raw: found[0] } : undefined;
    },
  },
  renderer: {
    // All at one level under the message's own heading, whatever level the model began with; the class has the size.
    heading({ tokens, depth }) {
      return `<h3 class="fs-h${depth}">${this.parser.parseInline(tokens)}</h3>`;
    },
    image({ href, text, title }) {
      return `<a href="${escape(href)}">${escape(text || title || href)}</a>`;
    },
    checkbox({ checked }) {
      return checked ? '☑ ' : '☐ ';
    },
    html({ text }) {
      return escape(text);
    },
  },
});

const RULES = {
  ALLOWED_TAGS: [
    'p', 'br', 'h3', 'strong', 'em', 'del', 'code', 'pre', 'blockquote', 'ul', 'ol', 'li', 'hr', 'a',
    'table', 'thead', 'tbody', 'tr', 'th', 'td',
  ],
  ALLOWED_ATTR: ['href', 'title', 'class', 'start', 'align'],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?:\/\/|mailto:)/i,
  RETURN_DOM_FRAGMENT: true,
};
const CLASS = /^(?:fs-h[1-6]|language-[\w+#.-]{1,30})$/;

// A purifier of our own, so that hooks of the page that embeds us and ours do not meet.
const purify = createPurifier(window);
purify.addHook('uponSanitizeAttribute', (_, attribute) => {
  if (attribute.attrName === 'class' && !CLASS.test(attribute.attrValue)) attribute.keepAttr = false;
});
purify.addHook('afterSanitizeAttributes', (node) => {
  if (node.nodeName !== 'A' || !node.hasAttribute('href')) return;
  node.setAttribute('rel', 'noopener nofollow');
  node.setAttribute('target', '_blank');
});

function build(tokens) {
  const fragment = purify.sanitize(marked.parser(tokens), RULES);
  for (const block of fragment.querySelectorAll('p, ul, ol, h3, blockquote, th, td')) block.dir = 'auto';
  for (const table of fragment.querySelectorAll('table')) {
    const frame = h('div', { class: 'fs-scroll', tabindex: '0' });
    table.replaceWith(frame);
    frame.append(table);
  }
  for (const pre of fragment.querySelectorAll('pre')) {
    const language = /language-(\S+)/.exec(pre.firstElementChild?.className ?? '')?.[1] ?? '';
    const frame = h('div', { class: 'fs-code', dir: 'ltr' });
    pre.replaceWith(frame);
    pre.tabIndex = 0;
    frame.append(
      h('div', { class: 'fs-code-head' }, h('span', {}, language), iconButton('copy', texts.copyCode, { data: { copy: 'code' } })),
      pre,
    );
  }
  return fragment;
}

/** One Markdown text in an element, as it grows. */
export class MarkdownView {
  constructor(el) {
    this.el = el;
    this.tail = h('div', { class: 'fs-tail' });
    this.reset();
  }

  reset() {
    this.text = '';
    this.settled = 0;
    this.whole = false;
    this.tail.replaceChildren();
    this.el.replaceChildren(this.tail);
  }

  /** Shows `text`. Where it is what was shown and more, only the last block is made anew. */
  update(text, whole) {
    if (text === this.text && whole === this.whole) return;
    // A definition at the end may give links to blocks long settled.
    const defines = whole && !this.whole && this.settled > 0 && /^ {0,3}\[[^\]\n]+\]:/m.test(text);
    if (!text.startsWith(this.text) || defines) this.reset();
    this.text = text;
    this.whole = whole;
    const source = text.replace(/\r\n?/g, '\n');
    const tokens = marked.lexer(source.slice(this.settled));
    const last = tokens.findLastIndex((token) => token.type !== 'space');
    const before = tokens.slice(0, Math.max(last, 0));
    const length = before.reduce((sum, token) => sum + token.raw.length, 0);
    const { links } = tokens;
    const render = (some) => build(Object.assign(some, { links }));
    // Settled is only what the lexer gives back to the letter; otherwise the tail just stays longer.
    if (length > 0 && source.startsWith(before.map((token) => token.raw).join(''), this.settled)) {
      this.tail.before(render(before));
      this.settled += length;
      this.tail.replaceChildren(render(tokens.slice(last)));
    } else {
      this.tail.replaceChildren(render(tokens));
    }
  }
}

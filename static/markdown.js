// Model output to elements. It is strangers' text: nothing in it is taken for HTML, every render passes DOMPurify with a
// short list of tags, links lead to http, https and mailto alone, and nothing is ever loaded for it.
//
// A growing answer is parsed from its last block on. The blocks before it are settled: their elements are not touched
// again, so the cost of a frame does not grow with the answer.

import { h, iconButton } from './dom.js';
import { texts } from './texts.js';
import { Marked } from './vendor/marked.esm.js';
import createPurifier from './vendor/purify.esm.js';

const escape = (text) => text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);

const marked = new Marked({
  breaks: true,
  tokenizer: {
    // "Use a <div> here" shall show the words; a line break is the one tag that models write on purpose.
    html() {},
    tag(src) {
      const raw = /^<br\s*\/?>/i.exec(src)?.[0];
      return raw && { type: 'br', raw };
    },
  },
  renderer: {
    // All at one level under the message's own heading, whatever level the model began with; the class has the size.
    heading({ tokens, depth }) {
      return `<h3 class="fs-h${depth}">${this.parser.parseInline(tokens)}</h3>`;
    },
    image: ({ href, text }) => `<a href="${escape(href)}">${escape(text || href)}</a>`,
    checkbox: ({ checked }) => (checked ? '☑ ' : '☐ '),
    html: ({ text }) => escape(text),
  },
});

const RULES = {
  ALLOWED_TAGS: 'p br h3 strong em del code pre blockquote ul ol li hr a table thead tbody tr th td'.split(' '),
  ALLOWED_ATTR: ['href', 'title', 'class', 'start', 'align'],
  ADD_URI_SAFE_ATTR: ['start', 'align'], // they hold no address, so the rule for addresses is not theirs
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?:\/\/|mailto:)/i,
  RETURN_DOM_FRAGMENT: true,
};
const CLASS = /^(?:fs-h[1-6]|language-[\w+#.-]{1,30})$/;

const purify = createPurifier(window);
purify.addHook('uponSanitizeAttribute', (_, attribute) => {
  if (attribute.attrName === 'class' && !CLASS.test(attribute.attrValue)) attribute.keepAttr = false;
});
purify.addHook('afterSanitizeAttributes', (node) => {
  if (!node.hasAttribute('href')) return;
  node.setAttribute('rel', 'noopener nofollow');
  node.setAttribute('target', '_blank');
});

function build(tokens) {
  const fragment = purify.sanitize(marked.parser(tokens), RULES);
  for (const block of fragment.querySelectorAll('p, ul, ol, h3, blockquote, th, td')) block.dir = 'auto';
  // What may be wider than the page scrolls by itself, by keyboard too.
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
        iconButton('copy', texts.copyCode, null, { data: { copy: 'code' } })),
    );
    pre.replaceWith(frame);
    pre.tabIndex = 0;
    frame.append(pre);
  }
  return fragment;
}

/** Has the code in it coloured, some time soon: it grows no more. */
function colour(fragment) {
  const blocks = [...fragment.querySelectorAll('pre > code[class]')];
  // Without colours it is code all the same.
  if (blocks.length) import('./code.js').then(({ paint }) => Promise.all(blocks.map(paint))).catch(() => {});
  return fragment;
}

/** One Markdown text in an element, as it grows. */
export class MarkdownView {
  constructor(el) {
    this.el = el;
    this.#reset();
  }

  /** Shows `text`; `whole`: it grows no more. Where it continues what was shown, only the last block is made anew. */
  update(text, whole) {
    if (text === this.text && whole === this.whole) return;
    // A link's definition at the end may be meant for blocks long settled.
    const defines = whole && this.settled > 0 && /^ {0,3}\[[^\]\n]+\]:/m.test(text);
    if (!text.startsWith(this.text) || defines) this.#reset();
    Object.assign(this, { text, whole });
    const source = text.replace(/\r\n?/g, '\n');
    const tokens = marked.lexer(source.slice(this.settled));
    const last = tokens.findLastIndex((token) => token.type !== 'space');
    const raw = tokens.slice(0, Math.max(last, 0)).map((token) => token.raw).join('');
    // Settled is only what the lexer gives back to the letter; otherwise the tail just stays longer.
    if (raw !== '' && source.startsWith(raw, this.settled)) {
      this.tail.before(colour(build(tokens.splice(0, last))));
      this.settled += raw.length;
    }
    const rest = build(tokens);
    this.tail.replaceChildren(whole ? colour(rest) : rest);
  }

  #reset() {
    Object.assign(this, { text: '', whole: false, settled: 0 });
    this.tail = h('div', { class: 'fs-tail' });
    this.el.replaceChildren(this.tail);
  }
}

// Syntax highlighting. Loaded when the first code block is complete; each language is loaded on its first use.

import hljs from './vendor/highlight/core.min.js';
import createPurifier from './vendor/purify.esm.js';

const MAX_CHARS = 20_000; // highlighting longer code would block the page

/** The names that models use for languages, where the grammar's file has another name. */
const ALIASES = {
  'c#': 'csharp', 'c++': 'cpp', cc: 'cpp', console: 'shell', cs: 'csharp', docker: 'dockerfile', golang: 'go', h: 'c', hpp: 'cpp',
  htm: 'xml', html: 'xml', js: 'javascript', jsonc: 'json', jsx: 'javascript', kt: 'kotlin', kts: 'kotlin', md: 'markdown',
  mjs: 'javascript', patch: 'diff', py: 'python', rb: 'ruby', rs: 'rust', sh: 'bash', svg: 'xml', toml: 'ini', ts: 'typescript',
  tsx: 'typescript', vue: 'xml', yml: 'yaml', zsh: 'bash',
};
const LANGUAGES = new Set(
  ('bash c cpp csharp css diff dockerfile go ini java javascript json kotlin markdown php python ruby rust shell sql swift '
    + 'typescript xml yaml').split(' '),
);
const SANITIZE_OPTIONS = { ALLOWED_TAGS: ['span'], ALLOWED_ATTR: ['class'], RETURN_DOM_FRAGMENT: true };

const loading = new Map();
// A separate instance: the hooks of the one in markdown.js remove the highlighting classes.
const purify = createPurifier(window);

/** Highlights the code in an element if its language is known. The text itself never changes. */
export async function highlightCode(code) {
  const name = /language-(\S+)/.exec(code.className)?.[1].toLowerCase() ?? '';
  const language = ALIASES[name] ?? name;
  const text = code.textContent;
  if (!LANGUAGES.has(language) || text.length > MAX_CHARS) return;
  if (!loading.has(language)) {
    loading.set(language, import(`./vendor/highlight/${language}.min.js`).then((grammar) => hljs.registerLanguage(language, grammar.default)));
  }
  await loading.get(language);
  const highlighted = purify.sanitize(hljs.highlight(text, { language, ignoreIllegals: true }).value, SANITIZE_OPTIONS);
  if (highlighted.textContent === text) code.replaceChildren(highlighted);
}

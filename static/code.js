// Code in colours. Loaded when a block of code has settled; each language when it is first met.

import hljs from './vendor/highlight/core.min.js';
import createPurifier from './vendor/purify.esm.js';

const MOST = 20_000; // longer code stays plain: colouring it would hold up the page

/** What models call languages, where that is not the name of the file. */
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
const RULES = { ALLOWED_TAGS: ['span'], ALLOWED_ATTR: ['class'], RETURN_DOM_FRAGMENT: true };

const loading = new Map();
// Of its own: the hooks of the other one know no classes of colours.
const purify = createPurifier(window);

/** Colours the code in this element, where its language is known. Its text stays what it is, to the letter. */
export async function paint(code) {
  const name = /language-(\S+)/.exec(code.className)?.[1].toLowerCase() ?? '';
  const language = ALIASES[name] ?? name;
  const text = code.textContent;
  if (!LANGUAGES.has(language) || text.length > MOST) return;
  if (!loading.has(language)) {
    loading.set(language, import(`./vendor/highlight/${language}.min.js`).then((grammar) => hljs.registerLanguage(language, grammar.default)));
  }
  await loading.get(language);
  const painted = purify.sanitize(hljs.highlight(text, { language, ignoreIllegals: true }).value, RULES);
  if (painted.textContent === text) code.replaceChildren(painted);
}

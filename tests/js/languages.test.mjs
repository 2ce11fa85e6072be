import assert from 'node:assert/strict';
import { test } from 'node:test';
import { choose } from '../../static/texts.js';

const load = async (language) => (await import(`../../static/words/${language}.js`)).default;
const LANGUAGES = ['en', 'de', 'es', 'fr', 'ar'];

/** Every text of a language by its path; functions are called with numbers and names. */
function* texts(words, path = '') {
  for (const [key, value] of Object.entries(words)) {
    const at = `${path}.${key}`;
    if (typeof value === 'object') yield* texts(value, at);
    else if (typeof value === 'string') yield [at, value];
    else for (const args of [[1, 1], [2, 5], [11, 1_234], ['aurora', []], ['aurora', ['borealis']], ['aurora', 'cascade']]) {
      if (/draft/.test(at) && typeof args[1] !== 'number') continue;
      if (/answeredBy/.test(at) !== Array.isArray(args[1])) continue;
      yield [`${at}(${args})`, value(...args)];
    }
  }
}

const shape = (words) => JSON.stringify(words, (_, value) => (typeof value === 'function' ? `f${value.length}` : typeof value === 'string' ? 's' : value));

for (const language of LANGUAGES) {
  test(`every text is there: ${language}`, async () => {
    const words = await load(language);
    assert.equal(shape(words), shape(await load('en')));
    assert.equal(words.lang, language);
    assert.equal(words.dir, language === 'ar' ? 'rtl' : 'ltr');
    for (const [at, text] of texts(words)) assert.ok(text.trim() && !/undefined|null|NaN|\[object/.test(text), `${at}: ${text}`);
  });
}

test('no language but English repeats its sentences', async () => {
  const english = new Map(texts(await load('en')));
  for (const language of LANGUAGES.slice(1)) {
    for (const [at, text] of texts(await load(language))) {
      if (text.includes(' ') && !/status|health|ages/.test(at)) assert.notEqual(text, english.get(at), `${language}${at}`);
    }
  }
});

test('the first language that there is, is spoken', () => {
  assert.equal(choose(['de-AT', 'en']), 'de');
  assert.equal(choose(['nl', 'FR_ca']), 'fr');
  assert.equal(choose(['xx', '../en', 'constructor']), 'en');
  assert.equal(choose([]), 'en');
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseLocale, formatAge, loadLocale } from '../../static/i18n.js';

const load = async (locale) => (await import(`../../static/locales/${locale}.js`)).default;
const LOCALES = ['en', 'de', 'es', 'fr', 'ar'];

/** Yields every text of a locale with its path. Functions are called with numbers and names. */
function* allTexts(texts, parent = '') {
  for (const [key, value] of Object.entries(texts)) {
    const path = `${parent}.${key}`;
    if (typeof value === 'object') yield* allTexts(value, path);
    else if (typeof value === 'string') yield [path, value];
    else for (const args of [[1, 1], [2, 5], [11, 1_234], ['aurora', []], ['aurora', ['borealis']], ['aurora', 'cascade']]) {
      if (/draft/.test(path) && typeof args[1] !== 'number') continue;
      if (/answeredBy/.test(path) !== Array.isArray(args[1])) continue;
      yield [`${path}(${args})`, value(...args)];
    }
  }
}

const shape = (texts) => JSON.stringify(texts, (_, value) => (typeof value === 'function' ? `f${value.length}` : typeof value === 'string' ? 's' : value));

for (const locale of LOCALES) {
  test(`every text exists: ${locale}`, async () => {
    const texts = await load(locale);
    assert.equal(shape(texts), shape(await load('en')));
    assert.equal(texts.lang, locale);
    assert.equal(texts.dir, locale === 'ar' ? 'rtl' : 'ltr');
    for (const [path, text] of allTexts(texts)) assert.ok(text.trim() && !/undefined|null|NaN|\[object/.test(text), `${path}: ${text}`);
  });
}

test('no sentence is left in English', async () => {
  const english = new Map(allTexts(await load('en')));
  for (const locale of LOCALES.slice(1)) {
    for (const [path, text] of allTexts(await load(locale))) {
      if (text.includes(' ') && !/status|health|ages/.test(path)) assert.notEqual(text, english.get(path), `${locale}${path}`);
    }
  }
});

test('chooseLocale returns the first supported language, or English', () => {
  assert.equal(chooseLocale(['de-AT', 'en']), 'de');
  assert.equal(chooseLocale(['nl', 'FR_ca']), 'fr');
  assert.equal(chooseLocale(['xx', '../en', 'constructor']), 'en');
  assert.equal(chooseLocale([]), 'en');
});

test('formatAge uses the largest unit that fits', async () => {
  await loadLocale('en');
  assert.equal(formatAge(null), '');
  assert.equal(formatAge(5), 'less than a minute');
  assert.equal(formatAge(60), '1 minute');
  assert.equal(formatAge(7_300), '2 hours');
  assert.equal(formatAge(200_000), '2 days');
});

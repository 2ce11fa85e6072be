// The words that visitors read, in their language. They stand in words/, one module a language, and only one is loaded.

const LANGUAGES = ['en', 'de', 'es', 'fr', 'ar'];

/** All words, once `speak` is done: see words/en.js for what there is. */
export const texts = {};

/** The first of the wanted languages (as `de-AT`) that there is; English where there is none. Pure. */
export function choose(wanted) {
  const bases = wanted.map((one) => String(one).toLowerCase().split(/[-_]/)[0]);
  return bases.find((one) => LANGUAGES.includes(one)) ?? 'en';
}

/** Loads the words. `locale` comes before what the browser is set to. */
export async function speak(locale) {
  const wanted = [locale, ...(globalThis.navigator?.languages ?? [])].filter(Boolean);
  const { default: words } = await import(`./words/${choose(wanted)}.js`);
  Object.assign(texts, words);
}

/** "2 hours"; empty where no age is known. */
export function age(seconds) {
  const { ages } = texts;
  if (seconds === null) return '';
  if (seconds < 60) return ages.less;
  if (seconds < 3_600) return ages.minutes(Math.round(seconds / 60));
  if (seconds < 172_800) return ages.hours(Math.round(seconds / 3_600));
  return ages.days(Math.round(seconds / 86_400));
}

/** The time of day of a moment, as the visitor's own place writes it. */
export function clock(at) {
  return at ? new Date(at).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' }) : '';
}

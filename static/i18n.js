// Localisation. Each language is a module in locales/ with all texts that visitors read; only one of them is loaded.

const LOCALES = ['en', 'de', 'es', 'fr', 'ar'];

/** The texts of the loaded locale; empty until `loadLocale` resolves. See locales/en.js for the keys. */
export const t = {};

/** Returns the first supported language of a preference list such as `['de-AT', 'en']`, or English if none is. */
export function chooseLocale(preferred) {
  const languages = preferred.map((tag) => String(tag).toLowerCase().split(/[-_]/)[0]);
  return languages.find((language) => LOCALES.includes(language)) ?? 'en';
}

/** Loads the texts into `t`. `locale` takes precedence over the browser's languages. */
export async function loadLocale(locale) {
  const preferred = [locale, ...(globalThis.navigator?.languages ?? [])].filter(Boolean);
  const { default: texts } = await import(`./locales/${chooseLocale(preferred)}.js`);
  Object.assign(t, texts);
}

/** Formats an age, as "2 hours". Returns an empty string for `null`. */
export function formatAge(seconds) {
  const { ages } = t;
  if (seconds === null) return '';
  if (seconds < 60) return ages.underAMinute;
  if (seconds < 3_600) return ages.minutes(Math.round(seconds / 60));
  if (seconds < 172_800) return ages.hours(Math.round(seconds / 3_600));
  return ages.days(Math.round(seconds / 86_400));
}

/** Formats the time of day in the format and zone of the browser. */
export function formatTime(at) {
  return at ? new Date(at).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' }) : '';
}

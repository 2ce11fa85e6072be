// The status page, kept fresh: the same page is fetched again and its main part takes the place of the old one, so what is shown is what the
// server draws and nothing else. Also: moments in the reader's own time, countdowns, and what an operator may do.

const EVERY_MS = 1500; // with what a look takes, a change is seen within two seconds
const OLD_MS = 6000; // some looks missed
const KEY = 'failsoft:admin';

let heard = performance.now();
let ahead = 0; // of the server's clock before ours
let timer = null;
let asking = null;

const form = document.querySelector('form.key');
const age = document.querySelector('[data-role="age"]');
const { dataset: words } = document.body; // what is said here, in the page's language
// Moments as the reader's own place writes them, where it speaks the page's language.
const { lang } = document.documentElement;
const locale = navigator.languages.find((one) => one.split('-')[0] === lang) ?? lang;
const token = () => sessionStorage.getItem(KEY);

function headers() {
  return token() ? { authorization: `Bearer ${token()}` } : {};
}

/** Moments in the reader's own words and zone. */
function localise(root) {
  for (const el of root.querySelectorAll('time[datetime]')) {
    const at = new Date(el.dateTime);
    const today = at.toDateString() === new Date().toDateString();
    el.title = el.dateTime;
    el.textContent = today
      ? at.toLocaleTimeString(locale, { hour: '2-digit', minute: '2-digit' })
      : at.toLocaleString(locale, { dateStyle: 'medium', timeStyle: 'short' });
  }
}

/** What changes with time alone. */
function tick() {
  const now = Date.now() + ahead;
  for (const el of document.querySelectorAll('[data-until]')) {
    const left = Math.ceil((new Date(el.dataset.until) - now) / 1000);
    const said = left > 0 ? words.againIn.replace('{n}', left) : words.againNow;
    if (el.textContent !== said) el.textContent = said;
  }
  const silent = performance.now() - heard;
  const old = silent > OLD_MS;
  document.body.classList.toggle('is-old', old);
  const said = old ? words.old.replace('{n}', Math.round(silent / 1000)) : words.live;
  if (age.textContent !== said) age.textContent = said;
}

/** Where the keyboard is, so that it stays there when the page is drawn anew. */
function place() {
  const el = document.activeElement?.closest?.('[data-order]');
  return el && { name: el.closest('[data-name]').dataset.name, order: el.dataset.order };
}

function show(main) {
  const old = document.querySelector('main');
  ahead = new Date(main.dataset.now) - Date.now();
  heard = performance.now();
  localise(main);
  const compared = (el) => {
    const copy = el.cloneNode(true);
    delete copy.dataset.now;
    for (const until of copy.querySelectorAll('[data-until]')) until.textContent = '';
    return copy.innerHTML;
  };
  if (compared(old) !== compared(main)) {
    const at = place();
    old.replaceWith(main);
    if (at) document.querySelector(`[data-name="${at.name}"] [data-order="${at.order}"]`)?.focus();
  } else {
    old.dataset.now = main.dataset.now;
    old.dataset.operator = main.dataset.operator;
  }
  if (form) form.hidden = main.dataset.operator === 'true';
  tick();
}

async function look() {
  clearTimeout(timer);
  asking?.abort();
  asking = new AbortController();
  const limit = setTimeout(() => asking.abort(), EVERY_MS * 2);
  try {
    const answer = await fetch(location.pathname + location.search, { headers: headers(), cache: 'no-store', signal: asking.signal });
    if (!answer.ok) throw new Error(answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
    show(document.adoptNode(page.querySelector('main')));
  } catch {
    tick(); // it says how old the page is
  }
  clearTimeout(limit);
  if (!document.hidden) timer = setTimeout(look, EVERY_MS);
}

async function order(button) {
  const { name } = button.closest('[data-name]').dataset;
  button.disabled = true;
  const answer = await fetch(`/admin/providers/${encodeURIComponent(name)}`, {
    method: 'POST',
    headers: { ...headers(), 'content-type': 'application/json' },
    body: JSON.stringify({ action: button.dataset.order }),
  }).catch(() => null);
  button.disabled = false;
  if (!answer?.ok) button.title = 'That did not work; try again.';
  await look();
}

document.addEventListener('click', ({ target }) => {
  const button = target.closest('[data-order]');
  if (button) order(button);
});

form?.addEventListener('submit', async (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, form.token.value);
  await look();
  const right = document.querySelector('main').dataset.operator === 'true';
  form.querySelector('output').textContent = right ? '' : 'That token is not the right one.';
  if (!right) sessionStorage.removeItem(KEY);
  form.token.value = '';
});

document.addEventListener('visibilitychange', () => !document.hidden && look());
if (form) form.hidden = false;
localise(document);
setInterval(tick, 1000);
look();

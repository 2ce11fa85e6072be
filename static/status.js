// Keeps the status page up to date: fetches the same page again and replaces `main`, so that everything shown comes from
// the server. It also localises times, updates countdowns, and sends an operator's actions.

const POLL_INTERVAL_MS = 1500; // with the time of a request, a change shows within two seconds
const STALE_AFTER_MS = 6000;
const TOKEN_KEY = 'failsoft:admin';

let receivedAt = performance.now();
let clockOffset = 0; // server clock minus browser clock, in milliseconds
let timer = null;
let request = null;

const form = document.querySelector('form.key');
const age = document.querySelector('[data-role="age"]');
const { dataset: texts } = document.body; // in the language of the page
// Times use the browser's regional format if it has the language of the page.
const { lang } = document.documentElement;
const locale = navigator.languages.find((tag) => tag.split('-')[0] === lang) ?? lang;
const token = () => sessionStorage.getItem(TOKEN_KEY);

function headers() {
  return token() ? { authorization: `Bearer ${token()}` } : {};
}

/** Shows times in the browser's format and zone. */
function localizeTimes(root) {
  for (const el of root.querySelectorAll('time[datetime]')) {
    const date = new Date(el.dateTime);
    const isToday = date.toDateString() === new Date().toDateString();
    el.title = el.dateTime;
    el.textContent = isToday
      ? date.toLocaleTimeString(locale, { hour: '2-digit', minute: '2-digit' })
      : date.toLocaleString(locale, { dateStyle: 'medium', timeStyle: 'short' });
  }
}

/** Updates the countdowns and the age of the page. */
function updateAges() {
  const now = Date.now() + clockOffset;
  for (const el of document.querySelectorAll('[data-until]')) {
    const seconds = Math.ceil((new Date(el.dataset.until) - now) / 1000);
    const text = seconds > 0 ? texts.againIn.replace('{n}', seconds) : texts.againNow;
    if (el.textContent !== text) el.textContent = text;
  }
  const silentMs = performance.now() - receivedAt;
  const isStale = silentMs > STALE_AFTER_MS;
  document.body.classList.toggle('is-old', isStale);
  const text = isStale ? texts.old.replace('{n}', Math.round(silentMs / 1000)) : texts.live;
  if (age.textContent !== text) age.textContent = text;
}

const cardOf = (el) => el.closest('[data-name]');
const card = (name) => document.querySelector(`[data-name="${name}"]`);

/** Returns the focused control as a provider's name and a selector, to restore the focus after `main` is replaced. */
function focusedControl() {
  const el = document.activeElement?.closest?.('[data-order], .begin [name]');
  return el && { name: cardOf(el).dataset.name, selector: el.name ? `[name="${el.name}"]` : `[data-order="${el.dataset.order}"]` };
}

// By provider, and kept when `main` is replaced: the values of the drill forms, and the error of the last action.
const formValues = new Map();
const actionErrors = new Map();

function restoreForms(root) {
  for (const el of root.querySelectorAll('[data-name]')) {
    const { name } = el.dataset;
    const drillForm = el.querySelector('.begin');
    for (const [field, value] of Object.entries(drillForm ? (formValues.get(name) ?? {}) : {})) drillForm[field].value = value;
    const error = el.querySelector('[data-role="failed"]');
    if (error) error.textContent = actionErrors.get(name) ?? '';
  }
}

/** Returns the markup of `main` without what changes by itself. */
function comparable(main) {
  const copy = main.cloneNode(true);
  delete copy.dataset.now;
  for (const countdown of copy.querySelectorAll('[data-until]')) countdown.textContent = '';
  return copy.innerHTML;
}

function render(main) {
  const old = document.querySelector('main');
  clockOffset = new Date(main.dataset.now) - Date.now();
  receivedAt = performance.now();
  localizeTimes(main);
  restoreForms(main);
  if (comparable(old) !== comparable(main)) {
    const focused = focusedControl();
    old.replaceWith(main);
    if (focused) card(focused.name)?.querySelector(focused.selector)?.focus();
  } else {
    old.dataset.now = main.dataset.now;
    old.dataset.operator = main.dataset.operator;
  }
  if (form) form.hidden = main.dataset.operator === 'true';
  updateAges();
}

async function refresh() {
  clearTimeout(timer);
  request?.abort();
  request = new AbortController();
  const timeout = setTimeout(() => request.abort(), POLL_INTERVAL_MS * 2);
  try {
    const response = await fetch(location.pathname + location.search, { headers: headers(), cache: 'no-store', signal: request.signal });
    if (!response.ok) throw new Error(response.status);
    const page = new DOMParser().parseFromString(await response.text(), 'text/html');
    render(document.adoptNode(page.querySelector('main')));
  } catch {
    updateAges(); // shows that the page is stale
  }
  clearTimeout(timeout);
  if (!document.hidden) timer = setTimeout(refresh, POLL_INTERVAL_MS);
}

/** Returns the path, method and body of an action's request. */
function actionRequest(name, action) {
  const provider = encodeURIComponent(name);
  if (action === 'end-drill') return [`/admin/drills?provider=${provider}`, 'DELETE'];
  if (action !== 'begin-drill') return [`/admin/providers/${provider}`, 'POST', { action }];
  const { fault, minutes } = card(name).querySelector('.begin');
  return ['/admin/drills', 'POST', { provider: name, fault: fault.value, for: `${minutes.value}m` }];
}

async function sendAction(button) {
  const { name } = cardOf(button).dataset;
  const [path, method, body] = actionRequest(name, button.dataset.order);
  button.disabled = true;
  const response = await fetch(path, {
    method,
    headers: { ...headers(), ...(body && { 'content-type': 'application/json' }) },
    body: body && JSON.stringify(body),
  }).catch(() => null);
  button.disabled = false;
  actionErrors.delete(name);
  if (!response?.ok) {
    const result = await response?.json().catch(() => null);
    actionErrors.set(name, result?.error?.message ?? 'That did not work. Try again.');
  }
  restoreForms(document);
  await refresh();
}

document.addEventListener('click', ({ target }) => {
  const button = target.closest('[data-order]');
  if (button?.type === 'button') sendAction(button);
});

document.addEventListener('submit', (event) => {
  const drillForm = event.target.closest('.begin');
  if (!drillForm) return;
  event.preventDefault();
  sendAction(drillForm.querySelector('button'));
});

document.addEventListener('input', ({ target }) => {
  const drillForm = target.closest('.begin');
  if (!drillForm) return;
  formValues.set(cardOf(drillForm).dataset.name, { fault: drillForm.fault.value, minutes: drillForm.minutes.value });
});

form?.addEventListener('submit', async (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN_KEY, form.token.value);
  await refresh();
  const isAccepted = document.querySelector('main').dataset.operator === 'true';
  form.querySelector('output').textContent = isAccepted ? '' : 'This token is not valid.';
  if (!isAccepted) sessionStorage.removeItem(TOKEN_KEY);
  form.token.value = '';
});

document.addEventListener('visibilitychange', () => !document.hidden && refresh());
if (form) form.hidden = false;
localizeTimes(document);
setInterval(updateAges, 1000);
refresh();

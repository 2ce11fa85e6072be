// The launcher: what a site embeds. A round button now; the chat itself is fetched at the first hover, focus or opening.
//
//     <script src="https://chat.example.com/widget.js" async data-title="Help" data-accent="#0a7" data-theme="auto"
//       data-position="right" data-locale="de" data-greeting="Hello!" data-open></script>
//
// It stands in a shadow root with style sheets of script's making: a strict policy of the host page has nothing to forbid,
// and its style sheets nothing to change. The one global is `Failsoft`:
//   open(), close(), toggle(), send(text), identify(token), destroy()
//   on(event, listener)   `ready` (once, also for who listens late), `open`, `close`, `message`, `status`, `error`;
//                         gives a function that ends it
// What is called before the chat is there waits for it. Before this script is there, a list takes the calls:
//     (window.Failsoft ??= []).push(['open']);
(() => {
  'use strict';
  const early = window.Failsoft;
  if (typeof early?.open === 'function') return; // the page has one already
  const script = document.currentScript ?? document.querySelector('script[src*="/widget.js"]');
  const base = new URL('.', script.src).href;
  const { title, accent, theme, position, locale, open: opened, greeting } = script.dataset;

  const WORDS = {
    en: ['Open the chat', 'Close the chat', 'The chat cannot be reached at the moment.', 'Try again', 'Loading the chat'],
    de: ['Chat öffnen', 'Chat schließen', 'Der Chat ist im Moment nicht erreichbar.', 'Erneut versuchen', 'Der Chat wird geladen'],
    es: ['Abrir el chat', 'Cerrar el chat', 'El chat no está disponible en este momento.', 'Reintentar', 'Cargando el chat'],
    fr: ['Ouvrir le chat', 'Fermer le chat', 'Le chat est injoignable pour le moment.', 'Réessayer', 'Chargement du chat'],
    ar: ['فتح المحادثة', 'إغلاق المحادثة', 'لا يمكن الوصول إلى المحادثة حاليًا.', 'إعادة المحاولة', 'جارٍ تحميل المحادثة'],
  };
  const wanted = [locale, ...navigator.languages].filter(Boolean).map((one) => one.toLowerCase().split(/[-_]/)[0]);
  const language = wanted.find((one) => Object.hasOwn(WORDS, one)) ?? 'en';
  const [OPEN, CLOSE, UNREACHABLE, AGAIN, LOADING] = WORDS[language];
  const NARROW = '(max-width: 479.98px)';

  // In pixels: the root font size is the host's. What the host says of this element itself, however important, loses
  // against what is important here.
  const CSS = [
    ':host { all: initial !important; display: contents !important; }',
    '.fsw { color-scheme: light dark; --a: var(--fs-accent, #3056d3); font: 400 16px/1.5 system-ui, -apple-system, "Segoe UI",',
    '  Roboto, "Noto Sans", "Helvetica Neue", sans-serif; text-align: start; }',
    '.fsw[data-theme="light"] { color-scheme: light; } .fsw[data-theme="dark"] { color-scheme: dark; }',
    '.fsw [hidden] { display: none !important; }',
    '.fsw-launcher, .fsw-panel { position: fixed; box-sizing: border-box; z-index: 2147483000; right: 20px; bottom: 20px; }',
    '.fsw[data-position="left"] > * { right: auto; left: 20px; }',
    '.fsw button { margin: 0; padding: 0; border: 0; font: inherit; cursor: pointer; }',
    '.fsw svg { display: block; fill: none; stroke: currentColor; stroke-width: 1.5; stroke-linecap: round; stroke-linejoin: round; }',
    '.fsw > .fsw-launcher { display: grid; place-items: center; width: 56px; height: 56px; border-radius: 28px; background: var(--a);',
    '  color: var(--fs-on-accent, oklch(from var(--a) clamp(0, (0.66 - l) * 1000, 1) 0 0)); box-shadow: 0 4px 16px rgb(0 0 0 / .2);',
    '  transition: transform 150ms ease-out; }',
    '.fsw-launcher svg { width: 26px; height: 26px; }',
    '.fsw-launcher:hover { transform: scale(1.05); }',
    '.fsw-launcher:focus-visible { outline: 2px solid #ffffff; outline-offset: 0; box-shadow: 0 0 0 5px #1b1d21; }',
    '.fsw-panel { bottom: 88px; width: 384px; max-width: calc(100vw - 40px); height: 600px; max-height: calc(100dvh - 108px);',
    '  border: 1px solid light-dark(#e2e3e8, #303338); border-radius: 12px; overflow: hidden; outline: 0;',
    '  background: light-dark(#ffffff, #151618); color: light-dark(#1b1d21, #e9eaec); box-shadow: 0 8px 32px rgb(0 0 0 / .2);',
    '  transition: opacity 150ms ease-out, transform 150ms ease-out; }',
    '@starting-style { .fsw-panel { opacity: 0; transform: translateY(8px); } }',
    '.fsw-chat { height: 100%; container: fs / inline-size; }',
    '.fsw-wait { display: flex; flex-direction: column; height: 100%; }',
    '.fsw-bar { display: flex; align-items: center; justify-content: space-between; gap: 12px; min-height: 52px; padding: 0 12px 0 16px;',
    '  border-bottom: 1px solid light-dark(#e2e3e8, #303338); font-weight: 600; }',
    '.fsw-bar button { display: grid; place-items: center; width: 32px; height: 32px; border-radius: 8px; background: none; color: light-dark(#5b5f68, #a3a8b1); }',
    '.fsw-said { display: grid; place-items: center; align-content: center; gap: 16px; flex: 1; padding: 24px; text-align: center; color: light-dark(#5b5f68, #a3a8b1); }',
    '.fsw-said p { margin: 0; }',
    '.fsw-said button { height: 36px; padding: 0 16px; border: 1px solid light-dark(#8b8f98, #6f747d); border-radius: 8px; background: none; color: light-dark(#1b1d21, #e9eaec); }',
    '.fsw-wait button:focus-visible { outline: 2px solid light-dark(#1b1d21, #e9eaec); outline-offset: 2px; }',
    `@media ${NARROW} {`,
    '  .fsw[data-position] > .fsw-panel { inset: 0; width: 100%; max-width: none; height: 100dvh; max-height: none; border: 0; border-radius: 0; }',
    '  .fsw-launcher[aria-expanded="true"] { display: none !important; }',
    '}',
    '@media (prefers-reduced-motion: reduce) { .fsw * { transition: none !important; } }',
    '@media print { .fsw { display: none; } }',
  ].join('\n');

  const ICONS = { chat: 'M4 5.5h12a1.5 1.5 0 0 1 1.5 1.5v6a1.5 1.5 0 0 1-1.5 1.5H9L5.5 17v-2.5H4A1.5 1.5 0 0 1 2.5 13V7A1.5 1.5 0 0 1 4 5.5z', close: 'M5 5l10 10M15 5L5 15' };
  const icon = (name, size) => {
    const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
    const attributes = { viewBox: '0 0 20 20', width: size, height: size, class: 'fs-icon', 'aria-hidden': 'true' };
    for (const key in attributes) svg.setAttribute(key, attributes[key]);
    path.setAttribute('d', ICONS[name]);
    svg.append(path);
    return svg;
  };
  const make = (tag, props, ...children) => {
    const el = document.createElement(tag);
    for (const key in props) el.setAttribute(key, props[key]);
    el.append(...children);
    return el;
  };
  const button = (kind, name, click, ...children) => {
    const el = make('button', { type: 'button', class: kind, ...(name && { 'aria-label': name, title: name }) }, ...children);
    el.addEventListener('click', click);
    return el;
  };

  const listeners = new Map();
  const leaving = new AbortController();
  let host; // once the page has a body
  let parts; // the promise of the chat's modules
  let tries = 0;
  let starting;
  let chat;
  let token = null;
  let back = null; // who had the focus when the panel opened
  const waiting = []; // what is to be done when the element is there
  const unsent = []; // what is to be sent when the chat is there
  const behind = []; // of the host's, what cannot be reached while the panel fills the screen

  const emit = (event, detail = {}) => {
    for (const listener of listeners.get(event) ?? []) {
      try {
        listener(detail);
      } catch (error) {
        reportError(error); // the host's own
      }
    }
  };
  const run = (work) => (host ? work() : waiting.push(work));

  const launcher = button('fsw-launcher', OPEN, () => api.toggle(), icon('chat', 26));
  launcher.dataset.role = 'launcher';
  const room = make('div', { class: 'fsw-chat' });
  const panel = make('section', { class: 'fsw-panel', role: 'dialog', tabindex: '-1', 'aria-label': title || 'Chat', hidden: '', 'data-role': 'panel' }, room);
  const frame = make('div', { class: 'fsw', lang: language, dir: language === 'ar' ? 'rtl' : 'ltr', 'data-position': position === 'left' ? 'left' : 'right' }, launcher, panel);
  if (theme === 'light' || theme === 'dark') frame.dataset.theme = theme;
  const style = new CSSStyleSheet();
  const shown = () => !panel.hidden;

  const flush = () => unsent.splice(0).forEach((text) => chat.send(text));

  /** Something in the chat's place. */
  const say = (words, ...more) => {
    const bar = make('div', { class: 'fsw-bar' }, make('span', { dir: 'auto' }, title || 'Chat'), button('', CLOSE, () => api.close(), icon('close', 18)));
    room.replaceChildren(make('div', { class: 'fsw-wait' }, bar, make('div', { class: 'fsw-said', role: 'status' }, make('p', {}, words), ...more)));
  };

  /** Fetches the chat, once; again if that failed, under another name: a browser may remember the failure. */
  const fetchParts = () => {
    const again = tries ? `?again=${tries}` : '';
    parts ??= Promise.all([
      import(`${base}static/chat.js${again}`),
      import(`${base}static/texts.js`).then((texts) => texts.speak(locale)),
      fetch(`${base}static/style.css`).then((answer) => (answer.ok ? answer.text() : Promise.reject(new Error(answer.statusText)))),
    ]).catch((error) => {
      parts = null;
      tries += 1;
      throw error;
    });
    return parts;
  };

  /** The chat in the panel. */
  const start = () => {
    if (chat || starting || leaving.signal.aborted) return;
    say(LOADING);
    starting = fetchParts().then(([{ mount }, , css]) => {
      if (leaving.signal.aborted) return;
      const sheet = new CSSStyleSheet();
      sheet.replaceSync(css);
      host.shadowRoot.adoptedStyleSheets = [style, sheet];
      const close = button('fs-tool', CLOSE, () => api.close(), icon('close', 18));
      const focus = shown() && host.shadowRoot.activeElement !== null;
      chat = mount(room, {
        base, title, greeting, token, focus, demo: false, theme: frame.dataset.theme, tools: [close],
        on: (event, detail) => event !== 'ready' && emit(event, detail),
      });
      flush();
    }).catch((error) => {
      say(UNREACHABLE, button('', '', () => start(), AGAIN));
      console.error('Failsoft: the chat cannot be loaded.', error);
      emit('error', { code: 'unreachable', message: String(error) });
    }).finally(() => {
      starting = null;
    });
  };

  /** On a phone the panel is all there is: above the keyboard, and nothing behind it can be reached. */
  const fit = () => {
    const { height, offsetTop } = visualViewport;
    const whole = shown() && !leaving.signal.aborted && matchMedia(NARROW).matches;
    panel.style.height = whole ? `${height}px` : '';
    panel.style.top = whole ? `${offsetTop}px` : '';
    if (whole === panel.hasAttribute('aria-modal')) return;
    panel.toggleAttribute('aria-modal', whole);
    if (whole) {
      panel.setAttribute('aria-modal', 'true');
      behind.push(...[...document.body.children].filter((el) => el !== host && !el.inert));
    }
    for (const el of whole ? behind : behind.splice(0)) el.inert = whole;
  };

  /** Where the panel is all there is, the keyboard goes round in it. */
  const cycle = (event) => {
    const stops = [...panel.querySelectorAll('a[href], button, select, summary, textarea, [tabindex="0"]')]
      .filter((el) => !el.disabled && el.checkVisibility({ visibilityProperty: true }));
    const at = stops.indexOf(host.shadowRoot.activeElement);
    const next = event.shiftKey ? at <= 0 && stops.at(-1) : at === stops.length - 1 && stops[0];
    if (!next) return;
    event.preventDefault();
    next.focus();
  };

  /** `calm`: nobody asked for it, so the focus stays where it is. */
  const show = (calm = false) => {
    if (shown()) return;
    back = document.activeElement;
    panel.hidden = false;
    launcher.setAttribute('aria-expanded', 'true');
    launcher.setAttribute('aria-label', CLOSE);
    launcher.title = CLOSE;
    launcher.replaceChildren(icon('close', 26));
    fit();
    if (chat) chat.focus();
    else if (!calm) panel.focus();
    start();
    emit('open');
  };

  const hide = () => {
    if (!shown()) return;
    const within = host.shadowRoot.activeElement;
    panel.hidden = true;
    launcher.setAttribute('aria-expanded', 'false');
    launcher.setAttribute('aria-label', OPEN);
    launcher.title = OPEN;
    launcher.replaceChildren(icon('chat', 26));
    fit();
    // Back to where it came from; who is elsewhere by now stays there.
    const away = back && back !== host && back !== document.body && back.isConnected;
    if (within) (away ? back : launcher).focus();
    emit('close');
  };

  const api = {
    open: () => run(() => show()),
    close: () => run(hide),
    toggle: () => run(() => (shown() ? hide() : show())),
    /** Sends as the visitor; the panel stays as it is. */
    send: (text) => run(() => {
      unsent.push(...[String(text ?? '').trim()].filter(Boolean));
      if (chat) flush();
      else start();
    }),
    /** From now on, the visitor of this token; null: nobody in particular. */
    identify: (given) => run(() => {
      token = given ?? null;
      chat?.identify(token);
    }),
    on: (event, listener) => {
      if (!listeners.has(event)) listeners.set(event, new Set());
      listeners.get(event).add(listener);
      if (event === 'ready' && host) queueMicrotask(() => listener({}));
      return () => listeners.get(event).delete(listener);
    },
    destroy: () => run(() => {
      leaving.abort();
      fit();
      chat?.destroy();
      host.remove();
      listeners.clear();
      if (window.Failsoft === api) delete window.Failsoft;
    }),
    /** What the list of early calls takes. */
    push: (...calls) => calls.forEach(([name, ...args]) => api[name]?.(...args)),
  };
  window.Failsoft = api;

  const place = () => {
    if (!customElements.get('failsoft-chat')) customElements.define('failsoft-chat', class extends HTMLElement {});
    const el = document.createElement('failsoft-chat');
    const shadow = el.attachShadow({ mode: 'open' });
    style.replaceSync(CSS);
    shadow.adoptedStyleSheets = [style];
    shadow.append(frame);
    launcher.setAttribute('aria-expanded', 'false');
    if (accent && window.CSS.supports('color', accent)) el.style.setProperty('--fs-accent', accent);
    document.body.append(el);
    host = el;
    const { signal } = leaving;
    for (const event of ['pointerenter', 'focus', 'touchstart']) {
      launcher.addEventListener(event, () => fetchParts().catch(() => {}), { signal, passive: true });
    }
    shadow.addEventListener('keydown', (event) => {
      if (event.key === 'Tab' && panel.hasAttribute('aria-modal')) cycle(event);
      if (event.key !== 'Escape' || event.isComposing || !shown()) return;
      event.stopPropagation();
      hide();
    }, { signal });
    for (const event of ['resize', 'scroll']) visualViewport.addEventListener(event, fit, { signal });
    emit('ready');
    for (const work of waiting.splice(0)) work();
    if (opened !== undefined && opened !== 'false') show(true);
  };

  if (Array.isArray(early)) api.push(...early);
  if (document.body) place();
  else document.addEventListener('DOMContentLoaded', place);
})();

// The script that a site embeds. It shows the launcher button; the chat itself loads on the first hover, focus or opening.
//
//     <script src="https://chat.example.com/widget.js" async data-title="Help" data-accent="#0a7" data-theme="auto"
//       data-position="right" data-locale="de" data-greeting="Hello!" data-open></script>
//
// Everything is in a shadow root with constructed style sheets: a strict content security policy of the host page does not
// block it, and the host's style sheets do not change it. The only global is `Failsoft`:
//   open(), close(), toggle(), send(text), identify(token), destroy()
//   on(event, listener)   `ready` (once, also for late listeners), `open`, `close`, `message`, `status`, `error`;
//                         returns a function that removes the listener
// Calls made before the chat has loaded are queued. Before this script has loaded, an array takes the calls:
//     (window.Failsoft ??= []).push(['open']);
(() => {
  'use strict';
  const earlyCalls = window.Failsoft;
  if (typeof earlyCalls?.open === 'function') return; // the page has a widget already
  const script = document.currentScript ?? document.querySelector('script[src*="/widget.js"]');
  const base = new URL('.', script.src).href;
  const { title, accent, theme, position, locale, open: opened, greeting } = script.dataset;

  const TEXTS = {
    en: ['Open chat', 'Close chat', 'The chat is unavailable at the moment.', 'Try again', 'Loading chat…'],
    de: ['Chat öffnen', 'Chat schließen', 'Der Chat ist im Moment nicht erreichbar.', 'Erneut versuchen', 'Der Chat wird geladen …'],
    es: ['Abrir el chat', 'Cerrar el chat', 'El chat no está disponible en este momento.', 'Reintentar', 'Cargando el chat…'],
    fr: ['Ouvrir le chat', 'Fermer le chat', 'Le chat est injoignable pour le moment.', 'Réessayer', 'Chargement du chat…'],
    ar: ['فتح المحادثة', 'إغلاق المحادثة', 'لا يمكن الوصول إلى المحادثة حاليًا.', 'إعادة المحاولة', 'جارٍ تحميل المحادثة…'],
  };
  const preferred = [locale, ...navigator.languages].filter(Boolean).map((tag) => tag.toLowerCase().split(/[-_]/)[0]);
  const language = preferred.find((tag) => Object.hasOwn(TEXTS, tag)) ?? 'en';
  const [OPEN, CLOSE, UNAVAILABLE, TRY_AGAIN, LOADING] = TEXTS[language];
  const NARROW = '(max-width: 479.98px)'; // the panel fills the screen

  // Sizes are in pixels, because the root font size belongs to the host page. Important rules in a shadow root win over
  // important rules of the host page.
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
    '.fsw-notice { display: grid; place-items: center; align-content: center; gap: 16px; flex: 1; padding: 24px; text-align: center; color: light-dark(#5b5f68, #a3a8b1); }',
    '.fsw-notice p { margin: 0; }',
    '.fsw-notice button { height: 36px; padding: 0 16px; border: 1px solid light-dark(#8b8f98, #6f747d); border-radius: 8px; background: none; color: light-dark(#1b1d21, #e9eaec); }',
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
  const h = (tag, props, ...children) => {
    const el = document.createElement(tag);
    for (const key in props) el.setAttribute(key, props[key]);
    el.append(...children);
    return el;
  };
  const button = (className, label, onClick, ...children) => {
    const el = h('button', { type: 'button', class: className, ...(label && { 'aria-label': label, title: label }) }, ...children);
    el.addEventListener('click', onClick);
    return el;
  };

  const listeners = new Map(); // event -> set of listeners
  const destroyed = new AbortController();
  let host; // the <failsoft-chat> element, once the page has a body
  let modules; // promise of the chat's modules and style sheet
  let failedLoads = 0;
  let mounting; // promise, while the chat loads
  let chat;
  let token = null;
  let focusedBefore = null; // the focused element when the panel opened
  const queuedCalls = []; // run once `host` exists
  const unsentTexts = []; // sent once `chat` exists
  const inertElements = []; // elements of the host page that are inert while the panel fills the screen

  const emit = (event, detail = {}) => {
    for (const listener of listeners.get(event) ?? []) {
      try {
        listener(detail);
      } catch (error) {
        reportError(error); // an error of the host page must not stop the widget
      }
    }
  };
  const whenAttached = (call) => (host ? call() : queuedCalls.push(call));

  const launcher = button('fsw-launcher', OPEN, () => api.toggle(), icon('chat', 26));
  launcher.dataset.role = 'launcher';
  const content = h('div', { class: 'fsw-chat' });
  const panel = h('section', { class: 'fsw-panel', role: 'dialog', tabindex: '-1', 'aria-label': title || 'Chat', hidden: '', 'data-role': 'panel' }, content);
  const root = h('div', { class: 'fsw', lang: language, dir: language === 'ar' ? 'rtl' : 'ltr', 'data-position': position === 'left' ? 'left' : 'right' }, launcher, panel);
  if (theme === 'light' || theme === 'dark') root.dataset.theme = theme;
  const style = new CSSStyleSheet();
  const isOpen = () => !panel.hidden;

  const sendUnsent = () => unsentTexts.splice(0).forEach((text) => chat.send(text));

  /** Shows a message in place of the chat. */
  const showNotice = (text, ...actions) => {
    const bar = h('div', { class: 'fsw-bar' }, h('span', { dir: 'auto' }, title || 'Chat'), button('', CLOSE, () => api.close(), icon('close', 18)));
    content.replaceChildren(h('div', { class: 'fsw-wait' }, bar, h('div', { class: 'fsw-notice', role: 'status' }, h('p', {}, text), ...actions)));
  };

  /** Loads the chat once. After a failure the URL changes, because a browser may cache a failed import. */
  const loadModules = () => {
    const query = failedLoads ? `?again=${failedLoads}` : '';
    modules ??= Promise.all([
      import(`${base}static/chat.js${query}`),
      import(`${base}static/i18n.js`).then(({ loadLocale }) => loadLocale(locale)),
      fetch(`${base}static/style.css`).then((response) => (response.ok ? response.text() : Promise.reject(new Error(response.statusText)))),
    ]).catch((error) => {
      modules = null;
      failedLoads += 1;
      throw error;
    });
    return modules;
  };

  /** Mounts the chat in the panel. */
  const mountChat = () => {
    if (chat || mounting || destroyed.signal.aborted) return;
    showNotice(LOADING);
    mounting = loadModules().then(([{ mount }, , css]) => {
      if (destroyed.signal.aborted) return;
      const sheet = new CSSStyleSheet();
      sheet.replaceSync(css);
      host.shadowRoot.adoptedStyleSheets = [style, sheet];
      const close = button('fs-tool', CLOSE, () => api.close(), icon('close', 18));
      const focus = isOpen() && host.shadowRoot.activeElement !== null;
      chat = mount(content, {
        base, title, greeting, token, focus, demo: false, theme: root.dataset.theme, tools: [close],
        on: (event, detail) => event !== 'ready' && emit(event, detail),
      });
      sendUnsent();
    }).catch((error) => {
      showNotice(UNAVAILABLE, button('', '', () => mountChat(), TRY_AGAIN));
      console.error('Failsoft: the chat failed to load.', error);
      emit('error', { code: 'unreachable', message: String(error) });
    }).finally(() => {
      mounting = null;
    });
  };

  /** On a phone the panel fills the screen above the keyboard, and the page behind it becomes inert. */
  const fitToScreen = () => {
    const { height, offsetTop } = visualViewport;
    const isFullScreen = isOpen() && !destroyed.signal.aborted && matchMedia(NARROW).matches;
    panel.style.height = isFullScreen ? `${height}px` : '';
    panel.style.top = isFullScreen ? `${offsetTop}px` : '';
    if (isFullScreen === panel.hasAttribute('aria-modal')) return;
    panel.toggleAttribute('aria-modal', isFullScreen);
    if (isFullScreen) {
      panel.setAttribute('aria-modal', 'true');
      inertElements.push(...[...document.body.children].filter((el) => el !== host && !el.inert));
    }
    for (const el of isFullScreen ? inertElements : inertElements.splice(0)) el.inert = isFullScreen;
  };

  /** Keeps the Tab key within a panel that fills the screen. */
  const trapFocus = (event) => {
    const focusable = [...panel.querySelectorAll('a[href], button, select, summary, textarea, [tabindex="0"]')]
      .filter((el) => !el.disabled && el.checkVisibility({ visibilityProperty: true }));
    const index = focusable.indexOf(host.shadowRoot.activeElement);
    const next = event.shiftKey ? index <= 0 && focusable.at(-1) : index === focusable.length - 1 && focusable[0];
    if (!next) return;
    event.preventDefault();
    next.focus();
  };

  const updateLauncher = () => {
    const label = isOpen() ? CLOSE : OPEN;
    launcher.setAttribute('aria-expanded', isOpen());
    launcher.setAttribute('aria-label', label);
    launcher.title = label;
    launcher.replaceChildren(icon(isOpen() ? 'close' : 'chat', 26));
  };

  /** `keepFocus`: the visitor did not open the panel, so the focus does not move. */
  const show = (keepFocus = false) => {
    if (isOpen()) return;
    focusedBefore = document.activeElement;
    panel.hidden = false;
    updateLauncher();
    fitToScreen();
    if (chat) chat.focus();
    else if (!keepFocus) panel.focus();
    mountChat();
    emit('open');
  };

  const hide = () => {
    if (!isOpen()) return;
    const hadFocus = host.shadowRoot.activeElement;
    panel.hidden = true;
    updateLauncher();
    fitToScreen();
    // The focus returns to where it was, unless it has left the panel.
    const canReturn = focusedBefore && focusedBefore !== host && focusedBefore !== document.body && focusedBefore.isConnected;
    if (hadFocus) (canReturn ? focusedBefore : launcher).focus();
    emit('close');
  };

  const api = {
    open: () => whenAttached(() => show()),
    close: () => whenAttached(hide),
    toggle: () => whenAttached(() => (isOpen() ? hide() : show())),
    /** Sends a message as the visitor. Does not open the panel. */
    send: (text) => whenAttached(() => {
      unsentTexts.push(...[String(text ?? '').trim()].filter(Boolean));
      if (chat) sendUnsent();
      else mountChat();
    }),
    /** Sets the visitor by a token; `null` is an anonymous visitor. */
    identify: (newToken) => whenAttached(() => {
      token = newToken ?? null;
      chat?.identify(token);
    }),
    on: (event, listener) => {
      if (!listeners.has(event)) listeners.set(event, new Set());
      listeners.get(event).add(listener);
      if (event === 'ready' && host) queueMicrotask(() => listener({}));
      return () => listeners.get(event).delete(listener);
    },
    destroy: () => whenAttached(() => {
      destroyed.abort();
      fitToScreen();
      chat?.destroy();
      host.remove();
      listeners.clear();
      if (window.Failsoft === api) delete window.Failsoft;
    }),
    /** Makes calls in the form of the early-call array. */
    push: (...calls) => calls.forEach(([name, ...args]) => api[name]?.(...args)),
  };
  window.Failsoft = api;

  const attach = () => {
    if (!customElements.get('failsoft-chat')) customElements.define('failsoft-chat', class extends HTMLElement {});
    const el = document.createElement('failsoft-chat');
    const shadow = el.attachShadow({ mode: 'open' });
    style.replaceSync(CSS);
    shadow.adoptedStyleSheets = [style];
    shadow.append(root);
    launcher.setAttribute('aria-expanded', 'false');
    if (accent && window.CSS.supports('color', accent)) el.style.setProperty('--fs-accent', accent);
    document.body.append(el);
    host = el;
    const { signal } = destroyed;
    for (const event of ['pointerenter', 'focus', 'touchstart']) {
      launcher.addEventListener(event, () => loadModules().catch(() => {}), { signal, passive: true });
    }
    shadow.addEventListener('keydown', (event) => {
      if (event.key === 'Tab' && panel.hasAttribute('aria-modal')) trapFocus(event);
      if (event.key !== 'Escape' || event.isComposing || !isOpen()) return;
      event.stopPropagation();
      hide();
    }, { signal });
    for (const event of ['resize', 'scroll']) visualViewport.addEventListener(event, fitToScreen, { signal });
    emit('ready');
    for (const call of queuedCalls.splice(0)) call();
    if (opened !== undefined && opened !== 'false') show(true);
  };

  if (Array.isArray(earlyCalls)) api.push(...earlyCalls);
  if (document.body) attach();
  else document.addEventListener('DOMContentLoaded', attach);
})();

// The chat, for the full page and the widget. It connects the session with the views.
//
//     await loadLocale();
//     const chat = mount(root, { title: 'Chat' });
//
// `root` is an element or a shadow root, whose content is replaced. The caller provides style.css: a <link> on a page,
// `adoptedStyleSheets` in a shadow root. All options are optional:
//   base         the service's address; by default the one that served this module
//   title, greeting, suggestions   replace those of the service
//   token        the visitor's JWT
//   demo         false: only the demo label, no demo panel
//   theme        light | dark; by default the system's
//   focus        true: focus the composer
//   tools        elements for the end of the header
//   on           (event, detail): `ready`, `message`, `status`, `error`
// `mount` returns an object with `send(text, options)`, `identify(token)`, `fresh()`, `focus()` and `destroy()`.
// Every element with data-role="message" has the property `rawText`: the exact text shown there.

import { Banner, MODE_ICONS } from './banner.js';
import { Composer } from './composer.js';
import { button, copyText, h, iconButton, setText, statusIcon, textButton } from './dom.js';
import { formatAge, t } from './i18n.js';
import { LiveRegion } from './live_region.js';
import { loadMarkdown } from './markdown_loader.js';
import { describeEntry } from './outbox.js';
import { Session } from './session.js';
import { openStorage } from './storage.js';
import { failedProviders } from './transcript.js';
import { TranscriptView } from './transcript_view.js';

const PREFIX = 'failsoft:';
const RECONNECT_NOTICE_DELAY_MS = 1_000; // a shorter interruption is not shown
const COPIED_LABEL_MS = 1_500;
const DEFAULT_GREETING = 'Hello! How can I help?'; // the service's default, shown in the visitor's language

export function mount(root, options = {}) {
  return new Chat(root, options);
}

class Chat {
  #disconnectedAt = Date.now(); // null while the connection is open
  #listeners = new AbortController();

  constructor(root, options) {
    this.options = options;
    this.base = new URL(options.base ?? '..', import.meta.url);
    this.storage = openStorage();
    this.liveRegion = new LiveRegion();
    this.session = new Session({
      base: this.base,
      storage: this.storage,
      prefix: PREFIX,
      token: options.token,
      onEvent: (event, detail) => this.#onEvent(event, detail),
    });
    this.#layout(root);
    const { signal } = this.#listeners;
    addEventListener('pagehide', () => this.session.savePartial(true), { signal });
    addEventListener('offline', () => this.#update(), { signal });
    addEventListener('online', () => this.#update(), { signal });
    loadMarkdown().catch(() => {}); // text stays plain without it
    // Draws what was shown before a reload, ahead of the connection.
    this.view.draw();
    this.session.connection.start();
    if (options.focus) this.focus();
  }

  send(text, options) {
    this.view.follow();
    this.session.send(text, options);
  }

  identify(token) {
    this.notice.hidden = true;
    this.session.identify(token);
  }

  /** Starts a new conversation. */
  fresh() {
    this.notice.hidden = true;
    this.view.clear();
    this.session.startNewConversation();
    this.focus();
  }

  focus() {
    this.composer.focus();
  }

  destroy() {
    this.#listeners.abort();
    clearTimeout(this.timer);
    this.session.close();
    this.view.destroy();
    this.el.remove();
  }

  #layout(root) {
    const { options, session, storage } = this;
    const statusUrl = new URL(`status?lang=${t.lang}`, this.base).href;
    this.banner = new Banner({
      statusUrl,
      storage,
      key: `${PREFIX}dismissed`,
      onRetry: () => session.connection.connect(),
      onChange: () => this.#update(),
    });
    this.greeting = h('p', { class: 'fs-greeting', dir: 'auto' });
    this.view = new TranscriptView({
      model: () => this.#model(),
      empty: h(
        'section', { class: 'fs-empty', hidden: true, data: { role: 'empty' } }, this.greeting,
        ...(options.suggestions ?? t.suggestions).map((text) =>
          button('fs-suggestion', () => this.#ask(text), { dir: 'auto', data: { role: 'suggestion' } }, text)),
      ),
      onEarlier: () => session.loadEarlier() && setText(this.view.earlier, t.loading),
      onDrawn: () => session.savePartial(),
      onRetry: (id) => {
        this.view.follow();
        session.retry(id);
        this.focus();
      },
      onFeedback: (id, value) => session.feedback(id, value),
      onCopy: (text, trigger) => this.#copy(text, trigger),
      onAction: (id, action) => this.#handleRefused(id, action),
    });
    this.view.el.addEventListener('click', ({ target }) => {
      const trigger = target.closest('[data-copy]');
      if (trigger) this.#copy(trigger.closest('.fs-code').lastChild.textContent, trigger);
    });
    const tabStorage = openStorage(() => sessionStorage); // the draft belongs to this tab
    this.composer = new Composer({
      text: tabStorage.get(`${PREFIX}writing`) ?? '',
      onInput: (text) => tabStorage.set(`${PREFIX}writing`, text),
      onSend: (text) => this.send(text),
      onStop: () => session.stop(),
    });
    this.title = h('h1', {}, options.title);
    this.demoLabel = h('p', { class: 'fs-demo-still', hidden: true }, t.demo);
    this.health = h('a', { class: 'fs-status', href: statusUrl, target: '_blank', rel: 'noopener', title: t.status });
    this.notice = h('div', { class: 'fs-notice', hidden: true, data: { role: 'notice' } });
    this.el = h(
      'div', { class: 'fs', lang: t.lang, dir: t.dir },
      h(
        'header', { class: 'fs-head' }, this.title,
        h(
          'div', { class: 'fs-head-tools' }, this.health,
          iconButton('download', t.exportConversation, () => this.#export(), { data: { role: 'export' } }),
          iconButton('plus', t.newConversation, () => this.fresh(), { data: { role: 'new' } }),
          ...(options.tools ?? []),
        ),
      ),
      this.demoLabel, this.banner.el,
      h('div', { class: 'fs-body' }, this.view.el, this.view.jump),
      this.notice, this.composer.el, this.liveRegion.el,
    );
    if (options.theme) this.el.dataset.theme = options.theme;
    root.replaceChildren(this.el);
  }

  /** The data that the transcript view draws. */
  #model() {
    const { session } = this;
    const context = {
      isOpen: session.connection.state === 'open',
      isBusy: session.running !== null,
      now: Date.now(),
      maxChars: session.limits.max_message_chars,
    };
    return {
      turns: session.transcript.turns,
      frozenText: session.stopRequest?.text ?? null,
      entries: session.pending.map((entry) => describeEntry(entry, context)),
      isLoaded: this.isReady,
    };
  }

  #onEvent(event, detail) {
    const { liveRegion, view } = this;
    if (event === 'turn') view.invalidate(detail);
    if (event === 'list') view.invalidate();
    if (event === 'state') this.#stateChanged();
    if (event === 'welcome') this.#welcome(detail);
    if (event === 'error') this.#showError(detail);
    if (event === 'start') liveRegion.answerStarted(t.spoken.writing);
    if (event === 'followup') liveRegion.announce(t.spoken.later);
    if (event === 'end') {
      const { id: turn, text, source, degraded, provider } = detail;
      liveRegion.answerEnded(statusLine(detail));
      this.#emit('message', { turn, text, source, degraded, provider });
    }
    if (event === 'history') {
      setText(view.earlier, t.earlier);
      this.#update();
      if (this.isExporting) this.#export();
    }
  }

  #welcome({ title, greeting, demo, conversation }) {
    const { options } = this;
    setText(this.title, options.title || title);
    setText(this.greeting, options.greeting || (greeting === DEFAULT_GREETING ? t.greeting : greeting));
    this.notice.hidden = true;
    this.demoLabel.hidden = !demo || options.demo !== false;
    if (demo && options.demo !== false) this.#openDemo();
    if (!this.isReady) this.#emit('ready', { conversation });
    this.isReady = true;
  }

  async #openDemo() {
    if (this.hasDemo) return;
    this.hasDemo = true;
    const { DemoPanel } = await import('./demo.js').catch(() => ({}));
    if (!DemoPanel) {
      this.hasDemo = false; // the next welcome tries again
      return;
    }
    this.demo = new DemoPanel({ base: this.base, onError: (text) => this.liveRegion.announce(text) });
    this.view.keepPosition(() => this.banner.el.before(this.demo.el));
    this.el.classList.add('has-demo');
    this.#update();
  }

  #stateChanged() {
    const { state } = this.session.connection;
    const isOpen = state === 'open';
    if (state === 'waiting' && !this.isReady) this.#checkOrigin();
    clearTimeout(this.timer);
    if (isOpen !== (this.#disconnectedAt === null)) {
      this.#disconnectedAt = isOpen ? null : Date.now();
      this.view.invalidate();
    }
    if (!isOpen) this.timer = setTimeout(() => this.#update(), this.#disconnectedAt + RECONNECT_NOTICE_DELAY_MS - Date.now());
    this.#update();
  }

  /**
   * Asks the service whether this site may open the chat. A browser does not tell a page why its socket was refused, so this
   * is called when the first connection from another site fails.
   */
  async #checkOrigin() {
    if (this.isCheckingOrigin || this.base.origin === location.origin) return;
    this.isCheckingOrigin = true;
    const result = await fetch(new URL('embed/origin', this.base)).then((response) => response.json()).catch(() => null);
    this.isCheckingOrigin = false;
    if (result?.allowed !== false) return;
    this.session.denyAccess();
    const message = `${location.origin} may not open this chat; its service lists the allowed sites in server.allowed_origins`;
    console.error(`Failsoft: ${message}`);
    this.#showError({ code: 'forbidden_origin', message });
    this.#update();
  }

  /** Updates everything outside the transcript. */
  #update() {
    const { session, liveRegion } = this;
    const { status } = session;
    const { state, retryAt } = session.connection;
    const now = Date.now();
    const isOnline = navigator.onLine;
    const isDisconnected = this.#disconnectedAt !== null && now - this.#disconnectedAt >= RECONNECT_NOTICE_DELAY_MS && !session.accessDenied;
    if (!session.running) liveRegion.reset();
    this.view.keepPosition(() => {
      const shown = this.banner.update({ isOnline, isDisconnected, state, retryAt, status, now });
      if (shown && shown !== this.shownBanner) liveRegion.announce(this.banner.spoken);
      this.shownBanner = shown;
      this.demo?.update(status);
      this.view.earlier.hidden = !session.hasEarlierTurns;
      this.view.earlier.disabled = state !== 'open';
    });
    const mode = isDisconnected ? (isOnline ? 'unreachable' : 'offline') : status?.mode ?? '';
    if (mode !== this.el.dataset.mode) {
      this.el.dataset.mode = mode;
      this.health.replaceChildren(statusIcon(MODE_ICONS[mode] ?? 'square'), t.health[mode] ?? '');
      this.health.hidden = !mode;
      if (mode) this.#emit('status', { ...status, mode });
    }
    this.composer.update({
      isRunning: Boolean(session.running) && !session.stopRequest,
      hint: mode === 'outage' ? t.outage : '',
      maxChars: session.limits.max_message_chars,
    });
  }

  #ask(text) {
    this.send(text);
    this.focus();
  }

  /** Applies the visitor's choice about a refused message. */
  #handleRefused(id, action) {
    const { outbox } = this.session;
    if (action === 'edit') this.composer.value = [outbox.get(id).text, this.composer.value].filter(Boolean).join('\n');
    if (action === 'tryAgain') outbox.retry(id);
    else outbox.remove(id);
    this.focus();
    this.session.sendNext();
    this.view.invalidate();
  }

  /** Shows an error that belongs to no message. A refused message shows its error beside it. */
  #showError({ code, message, isRetry }) {
    if (code === 'forbidden_origin') this.#showNotice(t.errors[code]());
    else if (code === 'unauthorized' && this.session.token) this.#showNotice(t.errors.signed_out());
    else if (code === 'unauthorized') this.#showNotice(t.errors[code](), textButton(t.newConversation, () => this.fresh()));
    else if (isRetry) this.#showDismissible(t.errors[code]?.() ?? message);
    this.#emit('error', { code, message });
  }

  #showNotice(text, button) {
    this.notice.replaceChildren(...[h('span', {}, text), button].filter(Boolean));
    this.notice.hidden = false;
    this.liveRegion.announce(text);
  }

  #showDismissible(text) {
    this.#showNotice(text, textButton(t.dismiss, () => (this.notice.hidden = true)));
  }

  /** Exports the whole conversation, after loading its earlier pages. */
  async #export() {
    const { session } = this;
    this.isExporting = session.hasEarlierTurns && session.loadEarlier();
    if (this.isExporting) return;
    try {
      const { download, toMarkdown } = await import('./export.js');
      download(toMarkdown(this.title.textContent, session.transcript.turns, failedProviders), this.el);
    } catch {
      this.#showDismissible(t.banner.unreachable[0]);
    }
  }

  async #copy(text, trigger) {
    if (!(await copyText(text, this.el))) return;
    trigger.classList.add('is-done');
    setTimeout(() => trigger.classList.remove('is-done'), COPIED_LABEL_MS);
    this.liveRegion.announce(t.copied);
  }

  #emit(event, detail) {
    this.options.on?.(event, detail);
  }
}

/** Returns the announcement for the end of an answer. */
function statusLine({ state, source, provider, ...turn }) {
  if (state !== 'done') return t.spoken[state];
  const failed = failedProviders({ provider, ...turn });
  const origin = source === 'ai' ? failed.length && t.answeredBy(provider, failed) : t.sources[source]?.(formatAge(turn.ageS));
  return [t.spoken.done, origin].filter(Boolean).join(' ');
}

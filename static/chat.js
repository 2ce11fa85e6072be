// The chat: one module for the full page and the widget. It joins the parts; each of them knows one thing.
//
//     await speak();
//     const chat = mount(root, { title: 'Chat' });
//
// `root` is an element or a shadow root; what it held is replaced. The style sheet is the caller's to bring: a <link> on
// a page, `adoptedStyleSheets` in a shadow root. Options, all optional:
//   base         the service's address; by default where this module came from
//   title, greeting, suggestions   instead of the service's own
//   token        the visitor's JWT
//   demo         false: no demo panel here, only its label
//   theme        light | dark; else as the system has it
//   focus        true: the keyboard goes to the composer
//   tools        elements to stand at the end of the header
//   on           (event, detail): `ready`, `message`, `status`, `error`
// What is given back has `send(text, options)`, `identify(token)`, `fresh()`, `focus()`, `destroy()`.
// Every element with data-role="message" has the property `rawText`: the text that is shown there, to the letter.

import { Announcer } from './announce.js';
import { Banner, SHAPES } from './banner.js';
import { Composer } from './composer.js';
import { button, copyText, h, iconButton, setText, shape, wordButton } from './dom.js';
import { describe } from './outbox.js';
import { Log } from './render.js';
import { Session } from './session.js';
import { loadMarkdown } from './prose.js';
import { openStorage } from './storage.js';
import { age, texts } from './texts.js';
import { unavailable } from './transcript.js';

const PREFIX = 'failsoft:';
const BLIP_MS = 1_000; // away for less is not worth a word
const COPIED_MS = 1_500;
const GREETING = 'Hello! How can I help?'; // where the service's owner wrote none: then each in their language

export function mount(root, options = {}) {
  return new Chat(root, options);
}

class Chat {
  #lostAt = Date.now(); // null: the line is open
  #leaving = new AbortController();

  constructor(root, options) {
    this.options = options;
    this.base = new URL(options.base ?? '..', import.meta.url);
    this.storage = openStorage();
    this.announcer = new Announcer();
    this.session = new Session({
      base: this.base,
      storage: this.storage,
      prefix: PREFIX,
      token: options.token,
      tell: (event, detail) => this.#heard(event, detail),
    });
    this.#layout(root);
    const { signal } = this.#leaving;
    addEventListener('pagehide', () => this.session.keep(true), { signal });
    addEventListener('offline', () => this.#update(), { signal });
    addEventListener('online', () => this.#update(), { signal });
    loadMarkdown().catch(() => {}); // until then, and without it, text is plain
    // What was shown before a reload is there with the first paint, before the line is open.
    this.log.draw();
    this.session.line.start();
    if (options.focus) this.focus();
  }

  send(text, options) {
    this.log.follow();
    this.session.send(text, options);
  }

  identify(token) {
    this.notice.hidden = true;
    this.session.identify(token);
  }

  fresh() {
    this.notice.hidden = true;
    this.log.clear();
    this.session.fresh();
    this.focus();
  }

  focus() {
    this.composer.focus();
  }

  destroy() {
    this.#leaving.abort();
    clearTimeout(this.blip);
    this.session.close();
    this.log.destroy();
    this.el.remove();
  }

  #layout(root) {
    const { options, session, storage } = this;
    const statusUrl = new URL(`status?lang=${texts.lang}`, this.base).href;
    this.banner = new Banner({
      statusUrl,
      storage,
      key: `${PREFIX}dismissed`,
      onRetry: () => session.line.connect(),
      onChange: () => this.#update(),
    });
    this.greeting = h('p', { class: 'fs-greeting', dir: 'auto' });
    this.log = new Log({
      model: () => this.#model(),
      empty: h(
        'section', { class: 'fs-empty', hidden: true, data: { role: 'empty' } }, this.greeting,
        ...(options.suggestions ?? texts.suggestions).map((text) =>
          button('fs-suggestion', () => this.#ask(text), { dir: 'auto', data: { role: 'suggestion' } }, text)),
      ),
      onEarlier: () => session.loadEarlier() && setText(this.log.earlier, texts.loading),
      onDrawn: () => session.keep(),
      onRetry: (id) => {
        this.log.follow();
        session.retry(id);
        this.focus();
      },
      onFeedback: (id, value) => session.feedback(id, value),
      onCopy: (text, near) => this.#copy(text, near),
      onAct: (id, act) => this.#act(id, act),
    });
    this.log.el.addEventListener('click', ({ target }) => {
      const near = target.closest('[data-copy]');
      if (near) this.#copy(near.closest('.fs-code').lastChild.textContent, near);
    });
    const desk = openStorage(() => sessionStorage); // what is being written belongs to this tab alone
    this.composer = new Composer({
      text: desk.get(`${PREFIX}writing`) ?? '',
      onInput: (text) => desk.set(`${PREFIX}writing`, text),
      onSend: (text) => this.send(text),
      onStop: () => session.stop(),
    });
    this.title = h('h1', {}, options.title);
    this.label = h('p', { class: 'fs-demo-still', hidden: true }, texts.demo);
    this.health = h('a', { class: 'fs-status', href: statusUrl, target: '_blank', rel: 'noopener', title: texts.status });
    this.notice = h('div', { class: 'fs-notice', hidden: true, data: { role: 'notice' } });
    this.el = h(
      'div', { class: 'fs', lang: texts.lang, dir: texts.dir },
      h(
        'header', { class: 'fs-head' }, this.title,
        h(
          'div', { class: 'fs-head-tools' }, this.health,
          iconButton('save', texts.save, () => this.#export(), { data: { role: 'export' } }),
          iconButton('fresh', texts.fresh, () => this.fresh(), { data: { role: 'new' } }),
          ...(options.tools ?? []),
        ),
      ),
      this.label, this.banner.el,
      h('div', { class: 'fs-body' }, this.log.el, this.log.jump),
      this.notice, this.composer.el, this.announcer.el,
    );
    if (options.theme) this.el.dataset.theme = options.theme;
    root.replaceChildren(this.el);
  }

  /** What the log draws. */
  #model() {
    const { session } = this;
    const how = {
      open: session.line.state === 'open',
      running: session.running,
      now: Date.now(),
      most: session.limits.max_message_chars,
    };
    return {
      turns: session.transcript.turns,
      frozen: session.stopping?.text ?? null,
      entries: session.waiting.map((entry) => describe(entry, how)),
      known: this.welcomed,
    };
  }

  #heard(event, detail) {
    const { announcer, log } = this;
    if (event === 'turn') log.touch(detail);
    if (event === 'list') log.touch();
    if (event === 'state') this.#lineChanged();
    if (event === 'welcome') this.#welcome(detail);
    if (event === 'error') this.#error(detail);
    if (event === 'start') announcer.begin(texts.spoken.writing);
    if (event === 'followup') announcer.tell(texts.spoken.later);
    if (event === 'end') {
      const { id: turn, text, source, degraded, provider } = detail;
      announcer.end(lastWord(detail));
      this.#emit('message', { turn, text, source, degraded, provider });
    }
    if (event === 'history') {
      setText(log.earlier, texts.earlier);
      this.#update();
      if (this.exporting) this.#export();
    }
  }

  #welcome({ title, greeting, demo, conversation }) {
    const { options } = this;
    setText(this.title, options.title || title);
    setText(this.greeting, options.greeting || (greeting === GREETING ? texts.greeting : greeting));
    this.notice.hidden = true;
    this.label.hidden = !demo || options.demo !== false;
    if (demo && options.demo !== false) this.#openDemo();
    if (!this.welcomed) this.#emit('ready', { conversation });
    this.welcomed = true;
  }

  async #openDemo() {
    if (this.opening) return;
    this.opening = true;
    const { DemoPanel } = await import('./demo.js').catch(() => ({}));
    if (!DemoPanel) {
      this.opening = false; // it may come with the next welcome
      return;
    }
    this.demo = new DemoPanel({ base: this.base, onError: (words) => this.announcer.tell(words) });
    this.log.holding(() => this.banner.el.before(this.demo.el));
    this.el.classList.add('has-demo');
    this.#update();
  }

  #lineChanged() {
    const { state } = this.session.line;
    const open = state === 'open';
    if (state === 'waiting' && !this.welcomed) this.#askWhy();
    clearTimeout(this.blip);
    if (open !== (this.#lostAt === null)) {
      this.#lostAt = open ? null : Date.now();
      this.log.touch();
    }
    if (!open) this.blip = setTimeout(() => this.#update(), this.#lostAt + BLIP_MS - Date.now());
    this.#update();
  }

  /**
   * A browser keeps from a page why its socket was refused. Where none has ever opened on another site, the service is
   * asked whether it may.
   */
  async #askWhy() {
    if (this.asking || this.base.origin === location.origin) return;
    this.asking = true;
    const answer = await fetch(new URL('embed/origin', this.base)).then((said) => said.json()).catch(() => null);
    this.asking = false;
    if (answer?.allowed !== false) return;
    this.session.refuse();
    const message = `${location.origin} may not open this chat; its service lists such sites in server.allowed_origins`;
    console.error(`Failsoft: ${message}`);
    this.#error({ code: 'forbidden_origin', message });
    this.#update();
  }

  /** Brings everything but the transcript in line with the state. */
  #update() {
    const { session, announcer } = this;
    const { status } = session;
    const { state, retryAt } = session.line;
    const now = Date.now();
    const online = navigator.onLine;
    const lost = this.#lostAt !== null && now - this.#lostAt >= BLIP_MS && !session.refused;
    if (!session.running) announcer.rest();
    this.log.holding(() => {
      const shown = this.banner.update({ online, lost, state, retryAt, status, now });
      if (shown && shown !== this.shown) announcer.tell(this.banner.spoken);
      this.shown = shown;
      this.demo?.update(status);
      this.log.earlier.hidden = !session.more;
      this.log.earlier.disabled = state !== 'open';
    });
    const mode = lost ? (online ? 'unreachable' : 'offline') : status?.mode ?? '';
    if (mode !== this.el.dataset.mode) {
      this.el.dataset.mode = mode;
      this.health.replaceChildren(shape(SHAPES[mode] ?? 'square'), texts.health[mode] ?? '');
      this.health.hidden = !mode;
      if (mode) this.#emit('status', { ...status, mode });
    }
    this.composer.update({
      running: Boolean(session.running) && !session.stopping,
      hint: mode === 'outage' ? texts.outage : '',
      most: session.limits.max_message_chars,
    });
  }

  #ask(text) {
    this.send(text);
    this.focus();
  }

  /** What can be done with a message that was refused. */
  #act(id, act) {
    const { outbox } = this.session;
    if (act === 'edit') this.composer.value = [outbox.get(id).text, this.composer.value].filter(Boolean).join('\n');
    if (act === 'tryAgain') outbox.again(id);
    else outbox.remove(id);
    this.focus();
    this.session.pump();
    this.log.touch();
  }

  /** What is the matter with a message is said beside it; here is what has none. */
  #error({ code, message, retry }) {
    if (code === 'forbidden_origin') this.#say(texts.errors[code]());
    else if (code === 'unauthorized' && this.session.token) this.#say(texts.errors.signed_out());
    else if (code === 'unauthorized') this.#say(texts.errors[code](), wordButton(texts.fresh, () => this.fresh()));
    else if (retry) this.#say(texts.errors[code]?.() ?? message, wordButton(texts.dismiss, () => (this.notice.hidden = true)));
    this.#emit('error', { code, message });
  }

  #say(words, button) {
    this.notice.replaceChildren(...[h('span', {}, words), button].filter(Boolean));
    this.notice.hidden = false;
    this.announcer.tell(words);
  }

  /** The whole conversation as a file: earlier pages of it are loaded first. */
  async #export() {
    const { session } = this;
    this.exporting = session.more && session.loadEarlier();
    if (this.exporting) return;
    try {
      const { download, toMarkdown } = await import('./export.js');
      download(toMarkdown(this.title.textContent, session.transcript.turns, unavailable), this.el);
    } catch {
      this.#say(texts.banner.unreachable[0], wordButton(texts.dismiss, () => (this.notice.hidden = true)));
    }
  }

  async #copy(text, near) {
    if (!(await copyText(text, this.el))) return;
    near.classList.add('is-done');
    setTimeout(() => near.classList.remove('is-done'), COPIED_MS);
    this.announcer.tell(texts.copied);
  }

  #emit(event, detail) {
    this.options.on?.(event, detail);
  }
}

/** What is told when an answer has ended. */
function lastWord({ state, source, provider, ...turn }) {
  if (state !== 'done') return texts.spoken[state];
  const failed = unavailable({ provider, ...turn });
  const how = source === 'ai' ? failed.length && texts.answeredBy(provider, failed) : texts.sources[source]?.(age(turn.ageS));
  return [texts.spoken.done, how].filter(Boolean).join(' ');
}

// The chat: one module for the full page and the widget. It joins the parts; each of them knows one thing.
//
//     import { mount } from './chat.js';
//     const chat = mount(element, { title: 'Chat' });
//
// `root` is an element or a shadow root; what it held is replaced. The style sheet is the caller's to bring: a <link> on
// a page, `adoptedStyleSheets` in a shadow root. Options, all optional:
//   base         the service's address; by default where this module came from
//   title, greeting, suggestions   instead of the service's own
//   token        the visitor's JWT, or a function that gives it
//   demo         false: no demo panel here, only its label
//   theme        light | dark; else as the system has it
//   focus        true: the keyboard goes to the composer
//   tools        elements to stand at the end of the header
//   on           (event, detail): `ready`, `message`, `status`, `error`
// What is given back has `send(text)`, `identify(token)`, `fresh()`, `focus()`, `destroy()`.
// Every element with data-role="message" has the property `rawText`: the text that is shown there, to the letter.

import { Announcer } from './announce.js';
import { Banner } from './banner.js';
import { Composer } from './composer.js';
import { copyText, h, icon, iconButton, setText, shape } from './dom.js';
import { describe } from './note.js';
import { Log } from './render.js';
import { Session } from './session.js';
import { openStorage } from './storage.js';
import { texts } from './texts.js';
import { unavailable } from './transcript.js';

const PREFIX = 'failsoft:';
/** Away for less than this is not worth a word. */
const BLIP_MS = 1_000;
const COPIED_MS = 1_500;

export function mount(root, options = {}) {
  return new Chat(root, options);
}

class Chat {
  constructor(root, options) {
    this.options = options;
    this.base = new URL(options.base ?? '..', import.meta.url);
    const storage = openStorage();
    this.desk = openStorage(() => globalThis.sessionStorage); // what is being written belongs to this tab alone
    this.session = new Session({
      base: this.base,
      storage,
      prefix: PREFIX,
      token: options.token ?? null,
      tell: (event, detail) => this.#heard(event, detail),
    });
    this.announcer = new Announcer();
    this.banner = new Banner({
      statusUrl: new URL('status', this.base).href,
      storage,
      prefix: PREFIX,
      onRetry: () => this.session.line.retryNow(),
      onChange: () => this.#update(),
    });
    this.#layout(root);
    this.away = Date.now();
    this.onLeave = () => this.session.keep(true);
    this.onNet = () => this.#update();
    addEventListener('pagehide', this.onLeave);
    addEventListener('offline', this.onNet);
    addEventListener('online', this.onNet);
    // What was shown before a reload is there with the first paint, before the line is open.
    this.log.draw();
    this.session.start();
    if (options.focus) this.focus();
  }

  send(text, options) {
    this.log.follow();
    this.session.send(text, options);
  }

  identify(token) {
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
    removeEventListener('pagehide', this.onLeave);
    removeEventListener('offline', this.onNet);
    removeEventListener('online', this.onNet);
    clearTimeout(this.blip);
    this.session.close();
    this.log.destroy();
    this.el.remove();
  }

  #layout(root) {
    const { options, session } = this;
    this.title = h('h1', {}, options.title ?? '');
    this.label = h('span', { class: 'fs-tag', hidden: true }, texts.demo);
    this.health = h('a', { class: 'fs-status', href: this.banner.statusUrl, target: '_blank', rel: 'noopener' }, shape('dot'), texts.status);
    this.greeting = h('p', { class: 'fs-greeting', dir: 'auto' }, options.greeting ?? '');
    const questions = options.suggestions ?? texts.suggestions;
    const empty = h(
      'section', { class: 'fs-empty', hidden: true, data: { role: 'empty' } }, this.greeting,
      h('div', { class: 'fs-questions' }, ...questions.map((text) => h(
        'button', { type: 'button', class: 'fs-suggestion', dir: 'auto', data: { role: 'suggestion' }, on: { click: () => this.#ask(text) } }, text,
      ))),
    );
    this.log = new Log({
      empty,
      model: () => this.#model(),
      onRetry: (id) => this.#retry(id),
      onFeedback: (id, value) => session.feedback(id, value),
      onCopy: (id, button) => this.#copy(session.transcript.get(id)?.text ?? '', button),
      onAct: (id, act) => this.#act(id, act),
      onEarlier: () => this.#earlier(),
      onDrawn: () => session.keep(),
    });
    this.log.el.addEventListener('click', (event) => {
      const button = event.target.closest?.('[data-copy]');
      if (button) this.#copy(button.closest('.fs-code').querySelector('pre').textContent, button);
    });
    this.composer = new Composer({
      text: this.desk.get(`${PREFIX}writing`) ?? '',
      onSend: (text) => this.send(text),
      onStop: () => session.stop(),
      onInput: (text) => this.desk.set(`${PREFIX}writing`, text),
    });
    this.notice = h('div', { class: 'fs-notice', hidden: true, data: { role: 'notice' } });
    this.tools = h(
      'div', { class: 'fs-head-tools' }, this.health,
      iconButton('save', texts.exportAll, { data: { role: 'export' }, on: { click: () => this.#export() } }),
      iconButton('fresh', texts.fresh, { data: { role: 'new' }, on: { click: () => this.fresh() } }),
      ...(options.tools ?? []),
    );
    this.body = h('div', { class: 'fs-body' }, this.log.el, this.log.jump);
    this.el = h(
      'div', { class: 'fs' },
      h('header', { class: 'fs-head' }, this.title, this.label, this.tools),
      this.banner.el, this.body, this.notice, this.composer.el, this.announcer.el,
    );
    if (options.theme) this.el.dataset.theme = options.theme;
    root.replaceChildren(this.el);
  }

  /** What the log draws. */
  #model() {
    const { session } = this;
    const state = {
      open: session.line.state === 'open',
      running: Boolean(session.running),
      now: Date.now(),
      most: session.limits.max_message_chars ?? 0,
    };
    return {
      turns: session.transcript.turns,
      frozen: session.stopping?.text ?? null,
      entries: session.waiting.map((entry) => describe(entry, state)),
      // Before the first welcome nobody knows whether there is anything to greet over.
      known: Boolean(this.welcomed),
    };
  }

  #heard(event, detail) {
    const { announcer, session } = this;
    if (event === 'turn') this.log.touch(detail);
    else if (event === 'list') this.log.touch();
    else if (event === 'start') announcer.begin(texts.spoken.writing);
    else if (event === 'followup') announcer.tell(texts.spoken.later);
    else if (event === 'end') {
      announcer.end(lastWord(detail));
      const { id: turn, text, source, degraded, provider } = detail;
      this.#emit('message', { turn, text, source, degraded, provider });
    } else if (event === 'error') this.#error(detail);
    else if (event === 'history') {
      setText(this.log.earlier, texts.earlier);
      if (this.exporting) this.#export();
      this.#update();
    } else if (event === 'welcome') this.#welcome(detail);
    else if (event === 'state') {
      this.#lineChanged();
      this.#emit('status', session.status);
    }
  }

  #welcome(frame) {
    const first = !this.welcomed;
    this.welcomed = true;
    setText(this.title, this.options.title || frame.title || '');
    setText(this.greeting, this.options.greeting || frame.greeting || '');
    this.notice.hidden = true;
    if (frame.demo && this.options.demo === false) this.label.hidden = false;
    else if (frame.demo && !this.demo) this.#openDemo();
    this.log.touch();
    if (first) this.#emit('ready', { conversation: frame.conversation });
  }

  async #openDemo() {
    this.demo = { el: null, update() {} };
    const { DemoPanel } = await import('./demo.js');
    this.demo = new DemoPanel({ base: this.base, onError: (words) => this.announcer.tell(words) });
    this.log.holding(() => this.banner.el.before(this.demo.el));
    this.el.classList.add('has-demo');
    this.#update();
  }

  #lineChanged() {
    const open = this.session.line.state === 'open';
    if (open) this.away = null;
    else if (this.away === null) this.away = Date.now();
    clearTimeout(this.blip);
    if (!open) {
      this.blip = setTimeout(() => {
        this.#update();
        this.log.touch();
      }, Math.max(20, this.away + BLIP_MS - Date.now()));
    }
    if (open !== this.wasOpen) this.log.touch();
    this.wasOpen = open;
    this.#update();
  }

  /** Brings everything but the transcript in line with the state. */
  #update() {
    const { session } = this;
    const { state, retryAt } = session.line;
    const now = Date.now();
    const online = navigator.onLine;
    const lost = this.away !== null && now - this.away >= BLIP_MS && !session.refused;
    this.log.holding(() => {
      const mode = this.banner.update({ online, state, retryAt, lost, status: session.status, now });
      if (mode !== this.mode && mode) this.announcer.tell(this.banner.spoken);
      this.mode = mode;
      this.demo?.update(session.status);
      this.log.earlier.hidden = !session.more;
      this.log.earlier.disabled = state !== 'open';
    });
    const where = !lost ? session.status?.mode ?? 'normal' : online ? 'unreachable' : 'offline';
    this.el.dataset.mode = where;
    this.health.firstChild.dataset.shape = { normal: 'dot', degraded: 'triangle' }[where] ?? 'square';
    if (!session.running) this.announcer.rest();
    this.composer.update({
      running: Boolean(session.running) && !session.stopping,
      hint: texts.hints[where],
      most: session.limits.max_message_chars,
    });
  }

  #ask(text) {
    this.send(text);
    this.focus();
  }

  #retry(id) {
    this.log.follow();
    this.session.retry(id);
    this.focus();
  }

  /** What can be done with a message that was refused. */
  #act(id, act) {
    const { outbox } = this.session;
    const entry = outbox.get(id);
    if (act === 'tryAgain') outbox.again(id);
    else outbox.remove(id);
    if (act === 'edit' && entry) this.composer.value = [entry.text, this.composer.value].filter(Boolean).join('\n');
    if (act !== 'tryAgain') this.focus();
    this.session.pump();
    this.log.touch();
  }

  #error({ code, message, entry }) {
    if (code === 'unauthorized') this.#say(texts.errors.unauthorized(), texts.fresh, () => this.fresh());
    // What is the matter with a message is said beside it. A retry has none, and the rest is nothing to act on.
    else if (entry?.kind === 'retry' && entry.state === 'refused') this.#say(texts.errors[code]?.() ?? message);
    this.#emit('error', { code, message });
  }

  #say(words, action = null, act = null) {
    this.notice.replaceChildren(
      h('span', {}, words),
      action
        ? h('button', { type: 'button', class: 'fs-small', on: { click: act } }, action)
        : iconButton('close', texts.banner.dismiss, { on: { click: () => (this.notice.hidden = true) } }),
    );
    this.notice.hidden = false;
    this.announcer.tell(words);
  }

  #earlier() {
    if (this.session.loadEarlier()) setText(this.log.earlier, texts.loading);
  }

  /** The whole conversation as a file: earlier pages are loaded first. */
  async #export() {
    const { session } = this;
    this.exporting = session.more && session.loadEarlier();
    if (this.exporting) return;
    const { download, toMarkdown } = await import('./export.js');
    const day = new Date().toISOString().slice(0, 10);
    download(`conversation-${day}.md`, toMarkdown(this.title.textContent, session.transcript.turns), this.el);
  }

  async #copy(text, button) {
    if (!(await copyText(text, this.el))) return;
    const was = button.firstChild;
    if (button.dataset.done) return;
    button.dataset.done = 'true';
    was.replaceWith(icon('check'));
    this.announcer.tell(texts.copied);
    setTimeout(() => {
      button.firstChild.replaceWith(was);
      delete button.dataset.done;
    }, COPIED_MS);
  }

  #emit(event, detail) {
    this.options.on?.(event, detail);
  }
}

/** What is told when an answer has ended. */
function lastWord(turn) {
  if (turn.state !== 'done') return texts.spoken[turn.state];
  const failed = unavailable(turn);
  if (turn.source === 'ai') return failed.length ? `${texts.spoken.whole} ${texts.answeredBy(turn.provider, failed)}.` : texts.spoken.whole;
  return `${texts.spoken.whole} ${texts.sources[turn.source]?.(texts.age(turn.ageS)) ?? ''}`;
}

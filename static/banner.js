// The strip above the transcript: what is not as it should be, in one line, one thing at a time.

import { h, iconButton, setText, shape, wordButton } from './dom.js';
import { texts } from './texts.js';

const NORMAL_MS = 5_000;
/** How a mode looks, beside its word; all others are squares. */
export const SHAPES = { degraded: 'triangle', normal: 'dot' };

/**
 * What there is to say, worst first: the browser is offline, the server cannot be reached, no AI, a backup AI; or null.
 * `lost`: the line is away. A line that is open is never offline. Pure.
 */
export function worst({ online, lost, status, dismissed = [] }) {
  if (lost) return { mode: online ? 'unreachable' : 'offline' };
  const { mode, incident, message } = status ?? {};
  const trouble = mode === 'outage' || mode === 'degraded';
  return trouble && !dismissed.includes(incident) ? { mode, incident, message } : null;
}

export class Banner {
  constructor({ statusUrl, storage, key, onRetry, onChange }) {
    Object.assign(this, { statusUrl, storage, key, onChange });
    this.dismissed = storage.get(key) ?? [];
    this.normalUntil = 0;
    this.countdown = h('span');
    this.retry = wordButton(texts.retryNow, onRetry, { data: { role: 'retry-now' } });
    this.connection = h('span', { class: 'fs-connection', data: { role: 'connection' } }, this.countdown, this.retry);
    this.el = h('div', { class: 'fs-strip', hidden: true }, this.connection);
  }

  /** `state`, `retryAt`: the line's; `lost`: it is away long enough to be worth a word. Gives the mode shown, or null. */
  update({ online, lost, state, retryAt, status, now }) {
    this.connection.dataset.state = state;
    this.connection.hidden = !lost;
    this.retry.hidden = state !== 'waiting';
    const seconds = state === 'waiting' ? Math.ceil((retryAt - now) / 1_000) : 0;
    setText(this.countdown, state === 'open' ? texts.connected : texts.nextTry(seconds));

    let wanted = worst({ online, lost, status, dismissed: this.dismissed });
    if (wanted && !lost) this.seen = true;
    // Told once, and only to who saw the trouble.
    if (!wanted && status?.mode === 'normal' && this.seen) {
      this.seen = false;
      this.normalUntil = now + NORMAL_MS;
      setTimeout(this.onChange, NORMAL_MS);
    }
    if (!wanted && now < this.normalUntil) wanted = { mode: 'normal' };
    this.#show(wanted ?? {});
    return wanted?.mode ?? null;
  }

  #show({ mode, incident = '', message = '' }) {
    const key = [mode, incident, message].join();
    if (key === this.shown) return;
    this.shown = key;
    this.banner?.remove();
    this.el.hidden = !mode;
    if (!mode) return;
    this.el.dataset.mode = mode;
    const [word, usual] = texts.banner[mode];
    // The service speaks English.
    const sentence = texts.lang === 'en' && message ? message : usual;
    const words = h('span', { class: 'fs-banner-words' }, h('strong', {}, word), ' ', sentence);
    /** The strip in words, for who cannot see it. */
    this.spoken = `${word}. ${sentence}`;
    this.banner = h(
      'div', { class: 'fs-banner', data: { role: 'banner', mode, incident } }, shape(SHAPES[mode] ?? 'square'), words,
    );
    if (incident) {
      this.banner.append(
        h('a', { class: 'fs-link', href: this.statusUrl, target: '_blank', rel: 'noopener' }, texts.details),
        iconButton('close', texts.dismiss, () => this.#dismiss(incident)),
      );
    }
    this.el.prepend(this.banner);
  }

  #dismiss(incident) {
    this.dismissed = [...this.dismissed, incident].slice(-8); // an old incident does not come back
    this.storage.set(this.key, this.dismissed);
    this.onChange();
  }
}

// The strip above the transcript: what is not as it should be, in one line, one thing at a time.

import { h, icon, setText, shape } from './dom.js';
import { texts } from './texts.js';

const NORMAL_MS = 5_000;

/**
 * What the strip has to say, worst first: the browser is offline, the server cannot be reached, no AI, a backup AI.
 * `line`: the connection's state as the reader shall see it, `open` or `lost`. A line that is open is never offline.
 * Pure. Gives `{mode, incident?, message?}` or null.
 */
export function worst({ online, line, status, dismissed = [] }) {
  if (line !== 'open') return { mode: online ? 'unreachable' : 'offline' };
  const mode = status?.mode;
  if (mode !== 'outage' && mode !== 'degraded') return null;
  if (status.incident && dismissed.includes(status.incident)) return null;
  return { mode, incident: status.incident ?? null, message: status.message ?? '' };
}

const SHAPES = { offline: 'square', unreachable: 'square', outage: 'square', degraded: 'triangle', normal: 'dot' };

export class Banner {
  constructor({ statusUrl, storage, prefix, onRetry, onChange }) {
    Object.assign(this, { statusUrl, storage, onChange });
    this.key = `${prefix}dismissed`;
    this.dismissed = (storage.get(this.key) ?? '').split(' ').filter(Boolean);
    this.seen = false; // this page has shown trouble of the AI's
    this.countdown = h('span', { class: 'fs-countdown' });
    this.retry = h('button', { type: 'button', class: 'fs-link', data: { role: 'retry-now' }, on: { click: onRetry } }, texts.banner.retryNow);
    this.connection = h('span', { class: 'fs-connection', hidden: true, data: { role: 'connection', state: 'connecting' } }, this.countdown, this.retry);
    this.el = h('div', { class: 'fs-strip', hidden: true }, this.connection);
  }

  /** `state`, `retryAt`: the connection's. `lost`: it has been away long enough to be worth a word. */
  update({ online, state, retryAt, lost, status, now }) {
    this.#connection({ state, retryAt, lost, now });
    let wanted = worst({ online, line: lost ? 'lost' : 'open', status, dismissed: this.dismissed });
    if (wanted && !lost) this.seen = true;
    // Told once, and only to who saw the trouble.
    if (!wanted && !lost && status?.mode === 'normal' && this.seen) {
      this.seen = false;
      this.normalUntil = now + NORMAL_MS;
      setTimeout(() => this.onChange(), NORMAL_MS);
    }
    if (!wanted && now < (this.normalUntil ?? 0)) wanted = { mode: 'normal', message: '' };
    this.#show(wanted);
    return wanted?.mode ?? null;
  }

  #connection({ state, retryAt, lost, now }) {
    const { connection } = this;
    connection.dataset.state = state;
    connection.hidden = !lost;
    const seconds = state === 'waiting' ? Math.max(0, Math.ceil((retryAt - now) / 1000)) : 0;
    setText(this.countdown, state === 'open' ? texts.banner.connected : texts.banner.nextTry(seconds));
    this.retry.hidden = state !== 'waiting';
  }

  #show(wanted) {
    const key = wanted ? `${wanted.mode}|${wanted.incident ?? ''}|${wanted.message ?? ''}` : '';
    if (key === this.shown) return;
    this.shown = key;
    this.el.hidden = !wanted;
    this.banner?.remove();
    this.banner = null;
    if (!wanted) return;
    const { mode, incident } = wanted;
    this.el.dataset.mode = mode;
    const [state, sentence] = texts.banner[mode];
    const fromServer = mode === 'outage' || mode === 'degraded';
    this.banner = h(
      'div', { class: 'fs-banner', data: { role: 'banner', mode } },
      shape(SHAPES[mode]),
      h('span', { class: 'fs-banner-words' }, h('strong', {}, state), ' ', wanted.message || sentence),
      fromServer && h('a', { class: 'fs-link', href: this.statusUrl, target: '_blank', rel: 'noopener' }, texts.banner.details),
      fromServer && h(
        'button',
        { type: 'button', class: 'fs-tool', title: texts.banner.dismiss, aria: { label: texts.banner.dismiss }, on: { click: () => this.#dismiss(incident) } },
        icon('close'),
      ),
    );
    if (incident) this.banner.dataset.incident = incident;
    this.el.prepend(this.banner);
  }

  #dismiss(incident) {
    // The last few suffice: an old incident does not come back.
    this.dismissed = [...this.dismissed, incident ?? ''].slice(-8);
    this.storage.set(this.key, this.dismissed.join(' '));
    this.onChange();
  }

  /** The words of the strip for who cannot see it. */
  get spoken() {
    return this.banner?.querySelector('.fs-banner-words').textContent ?? '';
  }
}

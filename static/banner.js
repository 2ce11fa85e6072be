// The strip above the transcript. It shows one problem at a time, in one line.

import { h, iconButton, setText, statusIcon, textButton } from './dom.js';
import { t } from './i18n.js';

const RECOVERED_MS = 5_000;
/** The icons of the modes; all others have a square. */
export const MODE_ICONS = { degraded: 'triangle', normal: 'dot' };

/**
 * Returns the worst problem, or `null`. The order is: browser offline, server unreachable, no AI, backup AI. While the
 * connection is open, the browser never counts as offline.
 */
export function selectBanner({ isOnline, isDisconnected, status, dismissed = [] }) {
  if (isDisconnected) return { mode: isOnline ? 'unreachable' : 'offline' };
  const { mode, incident, message } = status ?? {};
  const isProblem = mode === 'outage' || mode === 'degraded';
  return isProblem && !dismissed.includes(incident) ? { mode, incident, message } : null;
}

export class Banner {
  constructor({ statusUrl, storage, key, onRetry, onChange }) {
    Object.assign(this, { statusUrl, storage, key, onChange });
    this.dismissed = storage.get(key) ?? [];
    this.noticeUntil = 0;
    this.countdown = h('span');
    this.retry = textButton(t.retryNow, onRetry, { data: { role: 'retry-now' } });
    this.connection = h('span', { class: 'fs-connection', data: { role: 'connection' } }, this.countdown, this.retry);
    this.el = h('div', { class: 'fs-strip', hidden: true }, this.connection);
  }

  /**
   * Returns the mode shown, or `null`. `state` and `retryAt` are the connection's; `isDisconnected` means that it has been
   * down for long enough to show it.
   */
  update({ isOnline, isDisconnected, state, retryAt, status, now }) {
    this.connection.dataset.state = state;
    this.connection.hidden = !isDisconnected;
    this.retry.hidden = state !== 'waiting';
    const seconds = state === 'waiting' ? Math.ceil((retryAt - now) / 1_000) : 0;
    setText(this.countdown, state === 'open' ? t.connected : t.nextTry(seconds));

    let banner = selectBanner({ isOnline, isDisconnected, status, dismissed: this.dismissed });
    if (banner && !isDisconnected) this.sawProblem = true;
    // The recovery is shown once, and only to visitors who saw the problem.
    if (!banner && status?.mode === 'normal' && this.sawProblem) {
      this.sawProblem = false;
      this.noticeUntil = now + RECOVERED_MS;
      setTimeout(this.onChange, RECOVERED_MS);
    }
    if (!banner && now < this.noticeUntil) banner = { mode: 'normal' };
    this.#show(banner ?? {});
    return banner?.mode ?? null;
  }

  #show({ mode, incident = '', message = '' }) {
    const shown = [mode, incident, message].join();
    if (shown === this.shown) return;
    this.shown = shown;
    this.banner?.remove();
    this.el.hidden = !mode;
    if (!mode) return;
    this.el.dataset.mode = mode;
    const [title, sentence] = t.banner[mode];
    // The service's message is in English.
    const detail = t.lang === 'en' && message ? message : sentence;
    /** The announcement for assistive technology. */
    this.spoken = `${title}. ${detail}`;
    this.banner = h(
      'div', { class: 'fs-banner', data: { role: 'banner', mode, incident } }, statusIcon(MODE_ICONS[mode] ?? 'square'),
      h('span', { class: 'fs-banner-words' }, h('strong', {}, title), ' ', detail),
    );
    if (incident) {
      this.banner.append(
        h('a', { class: 'fs-link', href: this.statusUrl, target: '_blank', rel: 'noopener' }, t.details),
        iconButton('close', t.dismiss, () => this.#dismiss(incident)),
      );
    }
    this.el.prepend(this.banner);
  }

  #dismiss(incident) {
    this.dismissed = [...this.dismissed, incident].slice(-8); // older incidents do not come back
    this.storage.set(this.key, this.dismissed);
    this.onChange();
  }
}

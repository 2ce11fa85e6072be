// Runs in every page before the page's own scripts. Records the frames on the WebSocket, what the
// page shows after each change, and errors.

window.witness = (() => {
  const seen = {
    frames: [], // {at, frame}: received from the service
    sent: [], // frames sent to the service
    opened: [], // the times of attempts to open a socket
    shown: [], // {at, turn, state, source, text, blank, paused, drafts}: an answer after each of its changes
    banners: [], // {at, mode}: after each change; mode is '' without a banner
    clicks: [], // {at, role}
    crowded: false, // there were two banners at some time
    held: [], // [start, duration]: tasks of over 50 ms, in milliseconds since 1970
    woke: null, // the time at which the page was last resumed
    shadow: null, // the widget's shadow root, if any
    trouble: [], // errors and violations of the page's own policy
  };
  const at = () => performance.now();

  window.WebSocket = class extends WebSocket {
    constructor(...args) {
      super(...args);
      seen.opened.push(at());
      this.addEventListener('message', ({ data }) => seen.frames.push({ at: at(), frame: JSON.parse(data) }));
    }

    send(data) {
      seen.sent.push(JSON.parse(data));
      super.send(data);
    }
  };

  new PerformanceObserver((list) => {
    for (const { startTime, duration } of list.getEntries()) seen.held.push([performance.timeOrigin + startTime, duration]);
  }).observe({ type: 'longtask', buffered: true });
  document.addEventListener('resume', () => (seen.woke = at()));
  addEventListener('securitypolicyviolation', (event) =>
    seen.trouble.push(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
  addEventListener('error', ({ message, target }) => seen.trouble.push(`error: ${message ?? target.outerHTML}`), true);
  addEventListener('unhandledrejection', ({ reason }) => seen.trouble.push(`rejection: ${reason}`));
  addEventListener('click', (event) => {
    const part = event.composedPath()[0].closest('[data-role]');
    if (part) seen.clicks.push({ at: at(), role: part.dataset.role });
  }, true);

  const root = () => seen.shadow ?? document;
  // A long history is drawn in slices: an element which is not filled yet does not count.
  const answers = () =>
    [...root().querySelectorAll('[data-role="message"][data-from="assistant"]:not([data-followup])')]
      .filter((el) => el.rawText !== undefined);
  const visible = (el) => Boolean(el?.checkVisibility());

  /** Returns the last frame of this type. */
  const frame = (type) => seen.frames.findLast((entry) => entry.frame.type === type)?.frame;

  const last = new Map();
  const observer = new MutationObserver(() => {
    for (const el of answers()) {
      const { turn, state, source } = el.dataset;
      const paused = visible(el.querySelector('.fs-pause'));
      const drafts = el.querySelectorAll('[data-role="draft"]').length;
      const words = el.querySelector('[data-role="text"]');
      const blank = el.rawText.trim() !== '' && !(visible(words) && words.textContent.trim());
      const now = { turn, state, source, text: el.rawText, blank, paused, drafts };
      const same = Object.entries(last.get(turn) ?? { turn: null }).every(([key, value]) => now[key] === value);
      if (same) continue;
      last.set(turn, now);
      seen.shown.push({ at: at(), ...now });
    }
    const banners = root().querySelectorAll('[data-role="banner"]');
    seen.crowded ||= banners.length > 1;
    const mode = banners[0]?.dataset.mode ?? '';
    if (mode !== (seen.banners.at(-1)?.mode ?? '')) seen.banners.push({ at: at(), mode });
  });
  const everything = { subtree: true, childList: true, attributes: true, characterData: true };
  observer.observe(document, everything);
  const { attachShadow } = Element.prototype;
  Element.prototype.attachShadow = function attach(init) {
    const shadow = attachShadow.call(this, init);
    observer.observe(shadow, everything);
    seen.shadow = shadow;
    return shadow;
  };

  return Object.assign(seen, {
    /** Stops recording what is shown, which costs more than showing it if there is much text. */
    rest: () => observer.disconnect(),
    visible,
    root,
    /** Returns the elements of all drawn answers, oldest first. */
    answers,
    /** Returns the element of the last answer. */
    answer: () => answers().at(-1),
    /** Returns the text of the last answer. */
    text: () => answers().at(-1)?.rawText ?? '',
    /** Returns the visible part of the page with this role. */
    part: (role, within = root()) =>
      [...within.querySelectorAll(`[data-role="${role}"]`)].find(visible),
    frame,
    /** Returns true if the last answer belongs to this page's last question. */
    current: () => {
      const { client_msg_id: id } = seen.sent.findLast(({ type }) => type === 'send' || type === 'retry') ?? {};
      const start = seen.frames.find(({ frame }) => frame.type === 'start' && frame.client_msg_id === id)?.frame;
      return Boolean(start) && answers().at(-1)?.dataset.turn === start.turn;
    },
  });
})();

// Making elements. Strings become text nodes, never markup, and no style attribute is written: a strict policy of the
// page that embeds us has nothing to forbid.

/** An element. `on` holds listeners, `data` and `aria` attributes of these families; false and null are left out. */
export function h(tag, { on = {}, data = {}, aria = {}, ...props } = {}, ...children) {
  const el = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value !== false && value !== null) el.setAttribute(name, value === true ? '' : value);
  }
  Object.assign(el.dataset, data);
  for (const [name, value] of Object.entries(aria)) el.setAttribute(`aria-${name}`, value);
  for (const [name, listener] of Object.entries(on)) el.addEventListener(name, listener);
  el.append(...children.filter(Boolean));
  return el;
}

/** Sets text only where it differs, so that nothing is announced or laid out anew for nothing. */
export function setText(el, text) {
  if (el.textContent !== text) el.textContent = text;
}

// 20 by 20, one stroke. The thumb that points down is the same, turned by the style sheet.
const THUMB = 'M7 9l3-6c2 0 2 1 1.5 5H15c1 0 1.5 1 1 2l-1 5c0 .5-.5 1-1 1H7zM7 9H4v7h3';
const PATHS = {
  send: 'M10 16V4M5 9l5-5 5 5',
  stop: 'M6 6h8v8H6z',
  copy: 'M8 8h8v8H8zM12 8V4H4v8h4',
  retry: 'M16 10a6 6 0 1 1-2-4.5l2 2M16 3v4.5h-4.5',
  up: THUMB,
  down: THUMB,
  close: 'M5 5l10 10M15 5L5 15',
  fresh: 'M10 4v12M4 10h12',
  save: 'M10 3v10M6 9l4 4 4-4M4 17h12',
};

/** An icon; it says nothing by itself: its button has the words. */
export function icon(name) {
  const make = (tag, props) => {
    const el = document.createElementNS('http://www.w3.org/2000/svg', tag);
    for (const key in props) el.setAttribute(key, props[key]);
    return el;
  };
  const svg = make('svg', { viewBox: '0 0 20 20', class: 'fs-icon', 'aria-hidden': 'true' });
  svg.append(make('path', { d: PATHS[name] }));
  return svg;
}

/** A button; `words` are its name where `children` have none, and its tooltip. */
export function button(kind, click, { words, aria = {}, ...props }, ...children) {
  const named = words ? { title: words, aria: { label: words, ...aria } } : { aria };
  return h('button', { type: 'button', class: kind, on: { click }, ...named, ...props }, ...children);
}

/** A small button with an icon alone. */
export function iconButton(name, words, click, props) {
  return button('fs-tool', click, { words, ...props }, icon(name));
}

/** A button that looks like a link. */
export function wordButton(words, click, props = {}) {
  return button('fs-link', click, props, words);
}

/** The shape of a state, beside its word: `dot`, `ring`, `triangle`, `square`, `off`. Colour is never alone. */
export function shape(form) {
  return h('span', { class: 'fs-shape', data: { shape: form }, aria: { hidden: 'true' } });
}

/** Puts text on the clipboard, also where the page is not served securely. `near`: where a helper element may stand. */
export async function copyText(text, near) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = h('textarea', { class: 'fs-hidden', tabindex: '-1', aria: { hidden: 'true' } }, text);
    near.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    return done;
  }
}

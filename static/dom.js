// Making elements. Nothing here takes markup from text: strings become text nodes, and no style attribute is written,
// so a strict policy of the page that embeds us has nothing to forbid.

/** An element with its properties and children. `on` holds listeners, `data` and `aria` their attributes. */
export function h(tag, { on, data, aria, ...props } = {}, ...children) {
  const el = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === 'class') el.className = value;
    else el.setAttribute(name, value === true ? '' : value);
  }
  for (const [name, value] of Object.entries(data ?? {})) el.dataset[name] = value;
  for (const [name, value] of Object.entries(aria ?? {})) el.setAttribute(`aria-${name}`, value);
  for (const [name, listener] of Object.entries(on ?? {})) el.addEventListener(name, listener);
  el.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return el;
}

/** Sets text only where it differs, so that nothing is announced or laid out anew for nothing. */
export function setText(el, text) {
  if (el.textContent !== text) el.textContent = text;
}

// 20 by 20, one stroke.
const PATHS = {
  send: 'M10 16V4M5 9l5-5 5 5',
  stop: 'M6 6h8v8H6z',
  copy: 'M7.5 7.5h8v8h-8zM12.5 7.5v-3h-8v8h3',
  check: 'M4.5 10.5l4 4 7-8.5',
  retry: 'M15.5 10a5.5 5.5 0 1 1-1.6-3.9L15.5 7.5M15.5 3.8v3.7h-3.7',
  up: 'M6.5 9l3-5.5c1.2 0 1.8.8 1.6 2L10.7 8h3.8c1 0 1.7.9 1.4 1.9l-1.3 4.6c-.2.6-.7 1-1.4 1H6.5zM6.5 9H4v6.5h2.5',
  down: 'M13.5 11l-3 5.5c-1.2 0-1.8-.8-1.6-2l.4-2.5H5.5c-1 0-1.7-.9-1.4-1.9l1.3-4.6c.2-.6.7-1 1.4-1h6.7zM13.5 11H16V4.5h-2.5',
  close: 'M5.5 5.5l9 9M14.5 5.5l-9 9',
  fresh: 'M10 4.5v11M4.5 10h11',
  save: 'M10 4v8.5M6 9l4 4 4-4M4.5 16h11',
  latest: 'M10 4.5v11M5.5 11l4.5 4.5 4.5-4.5',
};
const SVG = 'http://www.w3.org/2000/svg';

/** An icon; it says nothing by itself, its button has the words. */
export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  for (const [key, value] of Object.entries({ viewBox: '0 0 20 20', class: 'fs-icon', 'aria-hidden': 'true' })) {
    svg.setAttribute(key, value);
  }
  const path = document.createElementNS(SVG, 'path');
  path.setAttribute('d', PATHS[name]);
  svg.append(path);
  return svg;
}

/** A button with an icon alone: the words are its name and its tooltip. */
export function iconButton(name, words, props = {}) {
  const { class: extra = '', aria = {}, ...rest } = props;
  return h('button', {
    type: 'button', class: `fs-tool ${extra}`.trim(), title: words, aria: { label: words, ...aria }, ...rest,
  }, icon(name));
}

/** The shape of a state: filled dot, ring, triangle, square. Colour is never alone. */
export function shape(state) {
  return h('span', { class: 'fs-shape', data: { shape: state }, aria: { hidden: 'true' } });
}

/** Puts text on the clipboard, also where the page is not in a secure context. */
export async function copyText(text, near) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = h('textarea', { class: 'fs-hidden', aria: { hidden: 'true' }, tabindex: '-1' });
    area.value = text;
    near.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    return done;
  }
}

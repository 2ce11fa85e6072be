// Helpers that create elements. Strings become text nodes, never markup, and no style attribute is set: both work under
// the strictest content security policy of an embedding page.

/** Creates an element. `on` holds listeners, `data` and `aria` hold `data-*` and `aria-*` attributes; `false` and `null` are left out. */
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

/** Sets the text if it differs, so that an unchanged text causes no announcement and no layout. */
export function setText(el, text) {
  if (el.textContent !== text) el.textContent = text;
}

// 20 by 20, drawn with one stroke. The style sheet turns the thumb upside down for `down`.
const THUMB = 'M7 9l3-6c2 0 2 1 1.5 5H15c1 0 1.5 1 1 2l-1 5c0 .5-.5 1-1 1H7zM7 9H4v7h3';
const PATHS = {
  send: 'M10 16V4M5 9l5-5 5 5',
  stop: 'M6 6h8v8H6z',
  copy: 'M8 8h8v8H8zM12 8V4H4v8h4',
  retry: 'M16 10a6 6 0 1 1-2-4.5l2 2M16 3v4.5h-4.5',
  up: THUMB,
  down: THUMB,
  close: 'M5 5l10 10M15 5L5 15',
  plus: 'M10 4v12M4 10h12',
  download: 'M10 3v10M6 9l4 4 4-4M4 17h12',
};

/** Creates an icon. It is hidden from assistive technology; the button around it carries the label. */
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

/** Creates a button. `label` is its accessible name and tooltip, for buttons whose children have no text. */
export function button(className, click, { label, aria = {}, ...props }, ...children) {
  const named = label ? { title: label, aria: { label, ...aria } } : { aria };
  return h('button', { type: 'button', class: className, on: { click }, ...named, ...props }, ...children);
}

export function iconButton(name, label, click, props) {
  return button('fs-tool', click, { label, ...props }, icon(name));
}

/** Creates a button that looks like a link. */
export function textButton(text, click, props = {}) {
  return button('fs-link', click, props, text);
}

/** Creates the shape beside a state's name: `dot`, `ring`, `triangle`, `square` or `off`. Colour alone never tells a state. */
export function statusIcon(shape) {
  return h('span', { class: 'fs-shape', data: { shape }, aria: { hidden: 'true' } });
}

/** Copies text, also on pages without HTTPS. `parent` briefly holds the textarea that this needs. */
export async function copyText(text, parent) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const textarea = h('textarea', { class: 'fs-hidden', tabindex: '-1', aria: { hidden: 'true' } }, text);
    parent.append(textarea);
    textarea.select();
    const copied = document.execCommand('copy');
    textarea.remove();
    return copied;
  }
}

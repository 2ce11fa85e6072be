// The sample shop: the form that makes the snippet, and the widget as the snippet would show it.

const form = document.querySelector('form');
const snippet = document.querySelector('[data-role="snippet"]');
const said = document.querySelector('[data-role="said"]');
const source = new URL('/widget.js', document.body.dataset.publicUrl || location.href).href;
const NAMES = ['title', 'greeting', 'accent', 'theme', 'position', 'locale'];

/** The attributes that were chosen: `[name, value]`. */
function chosen() {
  const filled = NAMES.map((name) => [`data-${name}`, form.elements[name].value.trim()]).filter(([, value]) => value);
  return form.elements.open.checked ? [...filled, ['data-open', 'true']] : filled;
}

function write() {
  const quote = (text) => text.replace(/[&"<>]/g, (char) => `&#${char.charCodeAt(0)};`);
  const attributes = chosen().map(([name, value]) => `\n  ${name}="${quote(value)}"`).join('');
  snippet.textContent = `<script src="${source}" async${attributes}></script>`;
}

/** Puts the widget on this page anew, as it was chosen. */
function show() {
  window.Failsoft?.destroy?.();
  const tag = document.createElement('script');
  tag.src = '/widget.js';
  for (const [name, value] of chosen()) tag.setAttribute(name, value);
  document.head.append(tag);
  tag.remove();
}

form.addEventListener('input', ({ target }) => {
  if (target.name === 'colour') form.elements.accent.value = target.value;
  write();
});
form.addEventListener('change', show);
form.addEventListener('submit', (event) => event.preventDefault());
document.querySelector('[data-role="copy-snippet"]').addEventListener('click', async () => {
  const select = () => getSelection().selectAllChildren(snippet);
  try {
    await navigator.clipboard.writeText(snippet.textContent);
    said.textContent = 'Copied.';
  } catch {
    select();
    said.textContent = 'Press Ctrl+C to copy.';
  }
});
for (const button of document.querySelectorAll('[data-ask]')) {
  button.addEventListener('click', () => {
    window.Failsoft?.open();
    window.Failsoft?.send(button.dataset.ask);
  });
}
write();

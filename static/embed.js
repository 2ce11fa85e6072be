// The sample shop: the form that generates the embed snippet, and the widget with the same attributes on this page.

const form = document.querySelector('form');
const snippet = document.querySelector('[data-role="snippet"]');
const message = document.querySelector('[data-role="said"]');
const source = new URL('/widget.js', document.body.dataset.publicUrl || location.href).href;
const NAMES = ['title', 'greeting', 'accent', 'theme', 'position', 'locale'];

/** Returns the chosen attributes as `[name, value]` pairs. */
function chosenAttributes() {
  const filled = NAMES.map((name) => [`data-${name}`, form.elements[name].value.trim()]).filter(([, value]) => value);
  return form.elements.open.checked ? [...filled, ['data-open', 'true']] : filled;
}

function updateSnippet() {
  const escape = (text) => text.replace(/[&"<>]/g, (char) => `&#${char.charCodeAt(0)};`);
  const attributes = chosenAttributes().map(([name, value]) => `\n  ${name}="${escape(value)}"`).join('');
  snippet.textContent = `<script src="${source}" async${attributes}></script>`;
}

/** Replaces the widget on this page by one with the chosen attributes. */
function reloadWidget() {
  window.Failsoft?.destroy?.();
  const script = document.createElement('script');
  script.src = '/widget.js';
  for (const [name, value] of chosenAttributes()) script.setAttribute(name, value);
  document.head.append(script);
  script.remove();
}

form.addEventListener('input', ({ target }) => {
  if (target.name === 'colour') form.elements.accent.value = target.value;
  updateSnippet();
});
form.addEventListener('change', reloadWidget);
form.addEventListener('submit', (event) => event.preventDefault());
document.querySelector('[data-role="copy-snippet"]').addEventListener('click', async () => {
  try {
    await navigator.clipboard.writeText(snippet.textContent);
    message.textContent = 'Copied.';
  } catch {
    getSelection().selectAllChildren(snippet);
    message.textContent = 'Press Ctrl+C to copy.';
  }
});
for (const button of document.querySelectorAll('[data-ask]')) {
  button.addEventListener('click', () => {
    window.Failsoft?.open();
    window.Failsoft?.send(button.dataset.ask);
  });
}
updateSnippet();

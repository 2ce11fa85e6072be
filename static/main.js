// Entry point of the full page: mounts the chat into `#chat`, which fills the window.

import { mount } from './chat.js';
import { loadLocale } from './i18n.js';

const root = document.getElementById('chat');
await loadLocale();
mount(root, { title: root.dataset.title, demo: root.dataset.demo === 'true', focus: matchMedia('(hover: hover)').matches });

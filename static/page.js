// The full page: the chat in its element, at the whole window's size.

import { mount } from './chat.js';
import { speak } from './texts.js';

const root = document.getElementById('chat');
await speak();
mount(root, { title: root.dataset.title, demo: root.dataset.demo === 'true', focus: matchMedia('(hover: hover)').matches });

// The panel of the demo: the simulated providers, each to be broken and mended by hand. Loaded only there.

import { button, h, setText, shape } from './dom.js';
import { texts } from './texts.js';

const SHAPES = { closed: 'dot', half_open: 'ring', open: 'square', blocked: 'square', disabled: 'off' };
const words = {
  lead: 'Three real servers on this machine. Break one while it answers and watch.',
  fault: (name) => `Fault for ${name}`,
  break: 'Break',
  mend: 'Mend',
  broken: (fault) => `Fault: ${fault}`,
  failed: 'That did not work. Try again.',
  faults: {
    down: 'Down',
    rate_limit: 'Rate limited',
    unauthorized: 'Key refused',
    timeout: 'Silent',
    stall: 'Stalls in mid-answer',
    cut: 'Cut in mid-answer',
    garbage: 'Garbage in mid-answer',
    slow: 'Slow',
  },
  states: { closed: 'Working', half_open: 'Being tried', open: 'Down', blocked: 'Key refused', disabled: 'Switched off' },
};

export class DemoPanel {
  /** `base` is the service's address, ending in a slash; `onError(words)` tells who cannot see the panel. */
  constructor({ base, onError }) {
    Object.assign(this, { base, onError });
    this.rows = new Map();
    this.list = h('div', { class: 'fs-demo-rows' });
    this.el = h(
      'details', { class: 'fs-demo', data: { role: 'demo-panel' } },
      h('summary', {}, texts.demo), h('p', { class: 'fs-demo-lead' }, words.lead), this.list,
    );
    // A phone's first screen belongs to the conversation.
    this.el.open = matchMedia('(min-width: 640px)').matches;
  }

  update(status) {
    for (const { name, state } of status?.providers ?? []) {
      const row = this.rows.get(name) ?? this.#open(name);
      row.el.dataset.state = state;
      row.el.dataset.active = String(status.active === name);
      row.state.replaceChildren(shape(SHAPES[state] ?? 'ring'), words.states[state] ?? state);
    }
  }

  #open(name) {
    const choice = h(
      'select', { aria: { label: words.fault(name) } },
      ...Object.entries(words.faults).map(([value, label]) => h('option', { value }, label)),
    );
    const act = (action, fault) => button(
      'fs-small', () => this.#set(row, fault()), { data: { action } }, words[action], h('span', { class: 'fs-hidden' }, ` ${name}`),
    );
    const row = {
      name,
      state: h('span', { class: 'fs-demo-state' }),
      note: h('span', { class: 'fs-demo-note' }),
    };
    row.el = h(
      'div', { class: 'fs-demo-row', data: { role: 'demo', provider: name } },
      h('div', { class: 'fs-demo-name' }, h('strong', {}, name), row.state, row.note),
      h('div', { class: 'fs-demo-acts' }, choice, act('break', () => choice.value), act('mend', () => 'none')),
    );
    this.rows.set(name, row);
    this.list.append(row.el);
    return row;
  }

  async #set(row, fault) {
    let fine = false;
    try {
      const answer = await fetch(new URL(`demo/providers/${encodeURIComponent(row.name)}`, this.base), {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ fault }),
      });
      fine = answer.ok;
    } catch {
      fine = false;
    }
    if (!fine) this.onError(words.failed);
    setText(row.note, fine ? (fault === 'none' ? '' : words.broken(words.faults[fault])) : words.failed);
    row.note.classList.toggle('is-down', !fine);
  }
}

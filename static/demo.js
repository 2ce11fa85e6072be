// The panel of the demo: three simulated providers, each to be broken and mended by hand.

import { h, setText, shape } from './dom.js';
import { texts } from './texts.js';

const SHAPES = { closed: 'dot', half_open: 'ring', open: 'square', blocked: 'square', disabled: 'square' };

export class DemoPanel {
  /** `base` is the service's address, ending in a slash; `onError(words)` tells who cannot see the panel. */
  constructor({ base, onError }) {
    Object.assign(this, { base, onError });
    this.rows = new Map();
    this.list = h('div', { class: 'fs-demo-rows' });
    this.el = h(
      'details', { class: 'fs-demo', data: { role: 'demo-panel' } },
      h('summary', {}, texts.demo),
      h('p', { class: 'fs-demo-lead' }, texts.panel.lead),
      this.list,
    );
    // A phone's first screen belongs to the conversation.
    this.el.open = matchMedia('(min-width: 640px)').matches;
  }

  update(status) {
    for (const { name, state } of status?.providers ?? []) {
      const row = this.rows.get(name) ?? this.#open(name);
      row.el.dataset.state = state;
      row.el.dataset.active = String(status.active === name);
      row.state.replaceChildren(shape(SHAPES[state] ?? 'ring'), texts.panel.states[state] ?? state);
    }
  }

  #open(name) {
    const choice = h(
      'select', { aria: { label: texts.panel.fault(name) } },
      ...Object.entries(texts.panel.faults).map(([value, words]) => h('option', { value }, words)),
    );
    const state = h('span', { class: 'fs-demo-state' });
    const fault = h('span', { class: 'fs-demo-fault' });
    const error = h('p', { class: 'fs-demo-error', hidden: true });
    const button = (action, words, value) => h(
      'button', { type: 'button', class: 'fs-small', data: { action }, on: { click: () => this.#set(row, value()) } }, words,
      h('span', { class: 'fs-hidden' }, ` ${name}`),
    );
    const row = { name, state, fault, error };
    row.el = h(
      'div', { class: 'fs-demo-row', data: { role: 'demo', provider: name } },
      h('div', { class: 'fs-demo-name' }, h('strong', {}, name), state, fault),
      h('div', { class: 'fs-demo-acts' },
        choice, button('break', texts.panel.break, () => choice.value), button('mend', texts.panel.mend, () => 'none')),
      error,
    );
    this.rows.set(name, row);
    this.list.append(row.el);
    return row;
  }

  async #set(row, fault) {
    row.el.setAttribute('aria-busy', 'true');
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
    row.el.removeAttribute('aria-busy');
    row.error.hidden = fine;
    setText(row.error, fine ? '' : texts.panel.failed);
    if (!fine) this.onError(texts.panel.failed);
    else setText(row.fault, fault === 'none' ? '' : texts.panel.broken(texts.panel.faults[fault]));
  }
}

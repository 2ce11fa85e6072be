// The demo panel: injects faults into the simulated providers and clears them. Loaded only on a demo server.

import { button, h, setText, statusIcon } from './dom.js';
import { t } from './i18n.js';

const STATE_ICONS = { closed: 'dot', half_open: 'ring', open: 'square', blocked: 'square', disabled: 'off' };
// In English only: the panel exists only on a demo server.
const TEXTS = {
  lead: 'Three real servers on this machine. Break one while it answers and watch what happens.',
  fault: (name) => `Fault for ${name}`,
  break: 'Break',
  mend: 'Repair',
  active: (fault) => `Fault: ${fault}`,
  failed: 'That did not work. Try again.',
  faults: {
    down: 'Down',
    rate_limit: 'Rate limited',
    unauthorized: 'Key refused',
    timeout: 'No response',
    stall: 'Stalls mid-answer',
    cut: 'Disconnects mid-answer',
    garbage: 'Sends garbage mid-answer',
    slow: 'Slow',
  },
  states: { closed: 'Working', half_open: 'Being tested', open: 'Down', blocked: 'Key refused', disabled: 'Switched off' },
};

export class DemoPanel {
  /** `base` is the service's address with a final slash. `onError(text)` announces an error to assistive technology. */
  constructor({ base, onError }) {
    Object.assign(this, { base, onError });
    this.rows = new Map();
    this.list = h('div', { class: 'fs-demo-rows' });
    this.el = h(
      'details', { class: 'fs-demo', data: { role: 'demo-panel' } },
      h('summary', {}, t.demo), h('p', { class: 'fs-demo-lead' }, TEXTS.lead), this.list,
    );
    // On a phone the panel starts closed, to leave the screen to the conversation.
    this.el.open = matchMedia('(min-width: 640px)').matches;
  }

  update(status) {
    for (const { name, state } of status?.providers ?? []) {
      const row = this.rows.get(name) ?? this.#addRow(name);
      row.el.dataset.state = state;
      row.el.dataset.active = String(status.active === name);
      row.state.replaceChildren(statusIcon(STATE_ICONS[state] ?? 'ring'), TEXTS.states[state] ?? state);
    }
  }

  #addRow(name) {
    const select = h(
      'select', { aria: { label: TEXTS.fault(name) } },
      ...Object.entries(TEXTS.faults).map(([value, label]) => h('option', { value }, label)),
    );
    const actionButton = (action, fault) => button(
      'fs-small', () => this.#setFault(row, fault()), { data: { action } }, TEXTS[action], h('span', { class: 'fs-hidden' }, ` ${name}`),
    );
    const row = {
      name,
      state: h('span', { class: 'fs-demo-state' }),
      note: h('span', { class: 'fs-demo-note' }),
    };
    row.el = h(
      'div', { class: 'fs-demo-row', data: { role: 'demo', provider: name } },
      h('div', { class: 'fs-demo-name' }, h('strong', {}, name), row.state, row.note),
      h('div', { class: 'fs-demo-acts' }, select, actionButton('break', () => select.value), actionButton('mend', () => 'none')),
    );
    this.rows.set(name, row);
    this.list.append(row.el);
    return row;
  }

  async #setFault(row, fault) {
    const response = await fetch(new URL(`demo/providers/${encodeURIComponent(row.name)}`, this.base), {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ fault }),
    }).catch(() => null);
    const succeeded = response?.ok === true;
    if (!succeeded) this.onError(TEXTS.failed);
    setText(row.note, succeeded ? (fault === 'none' ? '' : TEXTS.active(TEXTS.faults[fault])) : TEXTS.failed);
    row.note.classList.toggle('is-down', !succeeded);
  }
}

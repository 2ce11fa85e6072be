import assert from 'node:assert/strict';
import { test } from 'node:test';
import { worst } from '../../static/banner.js';
import { toMarkdown } from '../../static/export.js';
import { delay } from '../../static/protocol.js';
import { age, speak } from '../../static/texts.js';
import { unavailable } from '../../static/transcript.js';

await speak('en');

test('backoff doubles to thirty seconds, jittered in full, never a tight loop', () => {
  const ceilings = [0, 1, 2, 3, 4, 5, 6, 60].map((attempt) => delay(attempt, 0.999999));
  assert.deepEqual(ceilings, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
  assert.equal(delay(4, 0.5), 4_000);
  assert.equal(delay(9, 0), 200);
});

test('the worst thing is said, one at a time', () => {
  const degraded = { mode: 'degraded', incident: 'i', message: 'backup' };
  const outage = { mode: 'outage', incident: 'i', message: 'none' };
  const mode = (state) => worst({ online: true, lost: false, status: null, ...state })?.mode;
  assert.equal(mode({}), undefined);
  assert.equal(mode({ status: { mode: 'normal' } }), undefined);
  assert.equal(mode({ status: degraded }), 'degraded');
  assert.equal(mode({ status: outage }), 'outage');
  assert.equal(mode({ status: outage, lost: true }), 'unreachable');
  assert.equal(mode({ status: outage, lost: true, online: false }), 'offline');
  assert.equal(mode({ status: degraded, online: false }), 'degraded', 'a line that is open is not offline');
  assert.equal(mode({ status: degraded, dismissed: ['i'] }), undefined);
  assert.equal(mode({ status: degraded, dismissed: ['i'], lost: true }), 'unreachable');
});

test('ages are said in the largest unit that fits', () => {
  assert.equal(age(null), '');
  assert.equal(age(5), 'less than a minute');
  assert.equal(age(60), '1 minute');
  assert.equal(age(7_300), '2 hours');
  assert.equal(age(200_000), '2 days');
});

test('an export says who answered and what each answer was', () => {
  const turn = {
    at: '2026-01-01T00:00:00Z', question: 'why?', text: 'because', source: 'ai', provider: 'b', tried: [{ provider: 'a', outcome: 'reset' }],
    failed: [], drafts: [], state: 'done', finish: 'stop', ageS: null, followup: null,
  };
  const text = toMarkdown('Chat', [turn, { ...turn, source: 'fallback', provider: null, state: 'done', text: 'later' }], unavailable);
  assert.match(text, /^# Chat\n\n## You · 2026-01-01T00:00:00Z\n\nwhy\?\n\n## Answer\n\nbecause\n\n_Answered by b · a unavailable_/);
  assert.match(text, /_Automatic reply · AI unavailable_\n$/);
});

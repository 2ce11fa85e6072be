import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toMarkdown } from '../../static/export.js';
import { loadLocale } from '../../static/i18n.js';
import { failedProviders } from '../../static/transcript.js';

test('toMarkdown names the provider and the source of each answer', async () => {
  await loadLocale('en');
  const turn = {
    at: '2026-01-01T00:00:00Z', question: 'why?', text: 'because', source: 'ai', provider: 'b', tried: [{ provider: 'a', outcome: 'reset' }],
    failed: [], drafts: [], state: 'done', finish: 'stop', ageS: null, followup: null,
  };
  const text = toMarkdown('Chat', [turn, { ...turn, source: 'fallback', provider: null, state: 'done', text: 'later' }], failedProviders);
  assert.match(text, /^# Chat\n\n## You · 2026-01-01T00:00:00Z\n\nwhy\?\n\n## Answer\n\nbecause\n\n_Answered by b · a unavailable_/);
  assert.match(text, /_Automatic reply · AI unavailable_\n$/);
});

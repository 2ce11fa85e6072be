import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backoffDelay } from '../../static/connection.js';

test('backoffDelay doubles up to thirty seconds, with full jitter and a minimum', () => {
  const ceilings = [0, 1, 2, 3, 4, 5, 6, 60].map((attempt) => backoffDelay(attempt, 0.999999));
  assert.deepEqual(ceilings, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
  assert.equal(backoffDelay(4, 0.5), 4_000);
  assert.equal(backoffDelay(9, 0), 200);
});

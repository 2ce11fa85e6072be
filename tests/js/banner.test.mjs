import assert from 'node:assert/strict';
import { test } from 'node:test';
import { selectBanner } from '../../static/banner.js';

test('selectBanner returns the worst problem only', () => {
  const degraded = { mode: 'degraded', incident: 'i', message: 'backup' };
  const outage = { mode: 'outage', incident: 'i', message: 'none' };
  const mode = (state) => selectBanner({ isOnline: true, isDisconnected: false, status: null, ...state })?.mode;
  assert.equal(mode({}), undefined);
  assert.equal(mode({ status: { mode: 'normal' } }), undefined);
  assert.equal(mode({ status: degraded }), 'degraded');
  assert.equal(mode({ status: outage }), 'outage');
  assert.equal(mode({ status: outage, isDisconnected: true }), 'unreachable');
  assert.equal(mode({ status: outage, isDisconnected: true, isOnline: false }), 'offline');
  assert.equal(mode({ status: degraded, isOnline: false }), 'degraded', 'an open connection is not offline');
  assert.equal(mode({ status: degraded, dismissed: ['i'] }), undefined);
  assert.equal(mode({ status: degraded, dismissed: ['i'], isDisconnected: true }), 'unreachable');
});

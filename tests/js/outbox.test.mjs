import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describe, Outbox } from '../../static/outbox.js';
import { Kept, openStorage } from '../../static/storage.js';
import { speak } from '../../static/texts.js';

await speak('en');

/** Something that speaks like localStorage: keys are own properties, values are strings. */
function area() {
  const hidden = (value) => ({ value, enumerable: false });
  return Object.defineProperties({}, {
    getItem: hidden(function get(key) { return Object.hasOwn(this, key) ? this[key] : null; }),
    setItem: hidden(function set(key, value) { this[key] = String(value); }),
    removeItem: hidden(function remove(key) { delete this[key]; }),
  });
}

function outbox(real = area()) {
  let ids = 0;
  const storage = openStorage(() => real);
  return { real, box: new Outbox({ storage, prefix: 'out:', newId: () => `${Object.keys(real).length}-${(ids += 1)}` }) };
}

const free = { open: true, running: null, now: 0 };

test('a message is sent once and kept until accepted', () => {
  const { box, real } = outbox();
  const { id } = box.add({ text: 'hi', conversation: 'c', now: 0 });
  assert.deepEqual(box.next(free), { type: 'send', client_msg_id: id, text: 'hi' });
  assert.equal(box.next(free), null);
  assert.equal(Object.keys(real).length, 1);
  box.accepted(id);
  assert.equal(box.entries.length, 0);
  assert.equal(Object.keys(real).length, 0);
});

test('a lost line sends the same id again', () => {
  const { box } = outbox();
  box.add({ text: 'hi', conversation: 'c', now: 0 });
  const first = box.next(free);
  box.lineLost();
  assert.deepEqual(box.next(free), first);
});

test('no word for ten seconds sends the same id again', () => {
  const { box } = outbox();
  box.add({ text: 'hi', conversation: 'c', now: 0 });
  const first = box.next(free);
  assert.equal(box.next({ ...free, now: 9_999 }), null);
  assert.deepEqual(box.next({ ...free, now: 10_000 }), first);
});

test('nothing goes while the line is away or a turn runs, then in order', () => {
  const { box } = outbox();
  box.add({ text: 'one', conversation: 'c', now: 0 });
  box.add({ text: 'two', conversation: 'c', now: 1 });
  assert.equal(box.next({ ...free, open: false }), null);
  assert.equal(box.next({ ...free, running: {} }), null);
  const one = box.next(free);
  assert.equal(one.text, 'one');
  box.accepted(one.client_msg_id);
  assert.equal(box.next(free).text, 'two');
});

test('a page that comes after finds what was left, oldest first', () => {
  const { box, real } = outbox();
  box.add({ text: 'late', conversation: 'c', now: 2 });
  box.add({ text: 'early', conversation: null, now: 1 });
  box.add({ text: 'elsewhere', conversation: 'other', now: 0 });
  const after = outbox(real).box;
  after.load('c');
  after.load('c');
  assert.deepEqual(after.entries.map((entry) => entry.text), ['early', 'late']);
  after.adopt('c');
  const again = outbox(real).box;
  again.load('c');
  assert.equal(again.entries.length, 2);
});

test('rate limits and busy hold, and then it goes by itself', () => {
  const { box } = outbox();
  const { id } = box.add({ text: 'hi', conversation: 'c', now: 0 });
  box.next(free);
  box.failed({ code: 'rate_limited', retryAfterS: 7, id, now: 1_000 });
  assert.equal(box.next({ ...free, now: 7_999 }), null);
  assert.equal(box.next({ ...free, now: 8_000 }).client_msg_id, id);
  box.failed({ code: 'busy', id, now: 9_000 });
  assert.equal(box.next({ ...free, now: 9_999 }), null);
  assert.equal(box.next({ ...free, now: 10_000 }).client_msg_id, id);
});

test('what the server refuses stays refused over a reload, and holds nothing back', () => {
  const { box, real } = outbox();
  const { id } = box.add({ text: 'long', conversation: 'c', now: 0 });
  box.add({ text: 'next', conversation: 'c', now: 1 });
  box.next(free);
  box.failed({ code: 'message_too_long', id, now: 0 });
  assert.equal(box.next(free).text, 'next');
  const after = outbox(real).box;
  after.load('c');
  assert.deepEqual(after.entries.map((entry) => entry.state), ['refused', 'waiting']);
  after.again(id);
  assert.equal(after.next(free).client_msg_id, id);
});

test('a retry is a frame of its own', () => {
  const { box } = outbox();
  const { id } = box.add({ turn: 't1', conversation: 'c', now: 0 });
  assert.deepEqual(box.next(free), { type: 'retry', turn: 't1', client_msg_id: id });
});

test('options go with the message', () => {
  const { box } = outbox();
  box.add({ text: 'hi', options: { cache: 'off' }, conversation: 'c', now: 0 });
  assert.deepEqual(box.next(free).options, { cache: 'off' });
});

test('an error for an unknown message is nobody\'s', () => {
  assert.equal(outbox().box.failed({ code: 'busy', id: 'x', now: 0 }), undefined);
});

test('each waiting message says why', () => {
  const entry = { id: 'm', text: 'hi', turn: null, state: 'waiting', error: null, until: 0 };
  const how = { open: true, running: null, now: 0, most: 8_000 };
  assert.match(describe(entry, { ...how, open: false }).note, /Waiting to send/);
  assert.match(describe(entry, { ...how, running: {} }).note, /current answer/);
  assert.match(describe({ ...entry, error: 'rate_limited', until: 2_500 }, how).note, /in 3 seconds/);
  const long = describe({ ...entry, state: 'refused', error: 'message_too_long' }, how);
  assert.match(long.note, /8,000 characters/);
  assert.deepEqual(long.acts, ['edit', 'discard']);
  assert.deepEqual(describe({ ...entry, state: 'refused', error: 'internal' }, how).acts, ['tryAgain', 'discard']);
  assert.match(describe({ ...entry, state: 'refused', error: 'of the future' }, how).note, /went wrong/);
  assert.equal(describe({ ...entry, state: 'sent' }, how).note, '');
});

test('without storage the page goes on', () => {
  const storage = openStorage(() => { throw new Error('forbidden'); });
  const box = new Outbox({ storage, prefix: 'out:', newId: () => 'm' });
  box.load('c');
  box.add({ text: 'hi', conversation: 'c', now: 0 });
  assert.equal(box.next(free).text, 'hi');
});

test('a running answer is kept at most four times a second, and dropped when whole', () => {
  const kept = new Kept(openStorage(() => real), 'shown:c');
  const real = area();
  kept.save({ id: 't1', text: 'a' }, 1_000);
  kept.save({ id: 't1', text: 'ab' }, 1_249);
  assert.equal(kept.all()[0].text, 'a');
  kept.save({ id: 't1', text: 'abc' }, 1_250);
  assert.equal(kept.all()[0].text, 'abc');
  kept.save({ id: 't1', text: 'abcd' }, 1_251, true);
  assert.equal(kept.all()[0].text, 'abcd');
  kept.drop('t1');
  assert.deepEqual(kept.all(), []);
});

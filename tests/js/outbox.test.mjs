import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadLocale } from '../../static/i18n.js';
import { describeEntry, Outbox } from '../../static/outbox.js';
import { openStorage, PartialAnswers } from '../../static/storage.js';

await loadLocale('en');

/** A substitute for localStorage: keys are own properties, values are strings. */
function fakeStorage() {
  const hidden = (value) => ({ value, enumerable: false });
  return Object.defineProperties({}, {
    getItem: hidden(function get(key) { return Object.hasOwn(this, key) ? this[key] : null; }),
    setItem: hidden(function set(key, value) { this[key] = String(value); }),
    removeItem: hidden(function remove(key) { delete this[key]; }),
  });
}

function outbox(real = fakeStorage()) {
  let ids = 0;
  const storage = openStorage(() => real);
  return { real, box: new Outbox({ storage, prefix: 'out:', newId: () => `${Object.keys(real).length}-${(ids += 1)}` }) };
}

const ready = { isOpen: true, isBusy: false, now: 0 };

test('a message is sent once and kept until accepted', () => {
  const { box, real } = outbox();
  const { id } = box.add({ text: 'hi', conversation: 'c', now: 0 });
  assert.deepEqual(box.next(ready), { type: 'send', client_msg_id: id, text: 'hi' });
  assert.equal(box.next(ready), null);
  assert.equal(Object.keys(real).length, 1);
  box.accept(id);
  assert.equal(box.entries.length, 0);
  assert.equal(Object.keys(real).length, 0);
});

test('a message is sent again with the same id after the connection is lost', () => {
  const { box } = outbox();
  box.add({ text: 'hi', conversation: 'c', now: 0 });
  const first = box.next(ready);
  box.requeueSent();
  assert.deepEqual(box.next(ready), first);
});

test('a message is sent again with the same id after ten seconds without a reply', () => {
  const { box } = outbox();
  box.add({ text: 'hi', conversation: 'c', now: 0 });
  const first = box.next(ready);
  assert.equal(box.next({ ...ready, now: 9_999 }), null);
  assert.deepEqual(box.next({ ...ready, now: 10_000 }), first);
});

test('messages wait for the connection and the running turn, then go in order', () => {
  const { box } = outbox();
  box.add({ text: 'one', conversation: 'c', now: 0 });
  box.add({ text: 'two', conversation: 'c', now: 1 });
  assert.equal(box.next({ ...ready, isOpen: false }), null);
  assert.equal(box.next({ ...ready, isBusy: true }), null);
  const one = box.next(ready);
  assert.equal(one.text, 'one');
  box.accept(one.client_msg_id);
  assert.equal(box.next(ready).text, 'two');
});

test('load returns the stored messages of the conversation, oldest first', () => {
  const { box, real } = outbox();
  box.add({ text: 'late', conversation: 'c', now: 2 });
  box.add({ text: 'early', conversation: null, now: 1 });
  box.add({ text: 'elsewhere', conversation: 'other', now: 0 });
  const after = outbox(real).box;
  after.load('c');
  after.load('c');
  assert.deepEqual(after.entries.map((entry) => entry.text), ['early', 'late']);
  after.setConversation('c');
  const again = outbox(real).box;
  again.load('c');
  assert.equal(again.entries.length, 2);
});

test('a rate limit or busy error delays the message', () => {
  const { box } = outbox();
  const { id } = box.add({ text: 'hi', conversation: 'c', now: 0 });
  box.next(ready);
  box.fail({ code: 'rate_limited', retryAfterS: 7, id, now: 1_000 });
  assert.equal(box.next({ ...ready, now: 7_999 }), null);
  assert.equal(box.next({ ...ready, now: 8_000 }).client_msg_id, id);
  box.fail({ code: 'busy', id, now: 9_000 });
  assert.equal(box.next({ ...ready, now: 9_999 }), null);
  assert.equal(box.next({ ...ready, now: 10_000 }).client_msg_id, id);
});

test('a refused message stays refused after a reload and does not block the next one', () => {
  const { box, real } = outbox();
  const { id } = box.add({ text: 'long', conversation: 'c', now: 0 });
  box.add({ text: 'next', conversation: 'c', now: 1 });
  box.next(ready);
  box.fail({ code: 'message_too_long', id, now: 0 });
  assert.equal(box.next(ready).text, 'next');
  const after = outbox(real).box;
  after.load('c');
  assert.deepEqual(after.entries.map((entry) => entry.state), ['refused', 'waiting']);
  after.retry(id);
  assert.equal(after.next(ready).client_msg_id, id);
});

test('a retry is sent as a retry frame', () => {
  const { box } = outbox();
  const { id } = box.add({ turn: 't1', conversation: 'c', now: 0 });
  assert.deepEqual(box.next(ready), { type: 'retry', turn: 't1', client_msg_id: id });
});

test('options are sent with the message', () => {
  const { box } = outbox();
  box.add({ text: 'hi', options: { cache: 'off' }, conversation: 'c', now: 0 });
  assert.deepEqual(box.next(ready).options, { cache: 'off' });
});

test('an error for an unknown message is ignored', () => {
  assert.equal(outbox().box.fail({ code: 'busy', id: 'x', now: 0 }), undefined);
});

test('describeEntry explains why a message waits', () => {
  const entry = { id: 'm', text: 'hi', turn: null, state: 'waiting', error: null, until: 0 };
  const context = { isOpen: true, isBusy: false, now: 0, maxChars: 8_000 };
  assert.match(describeEntry(entry, { ...context, isOpen: false }).note, /Waiting to send/);
  assert.match(describeEntry(entry, { ...context, isBusy: true }).note, /current answer/);
  assert.match(describeEntry({ ...entry, error: 'rate_limited', until: 2_500 }, context).note, /in 3 seconds/);
  const long = describeEntry({ ...entry, state: 'refused', error: 'message_too_long' }, context);
  assert.match(long.note, /8,000 characters/);
  assert.deepEqual(long.actions, ['edit', 'discard']);
  assert.deepEqual(describeEntry({ ...entry, state: 'refused', error: 'internal' }, context).actions, ['tryAgain', 'discard']);
  assert.match(describeEntry({ ...entry, state: 'refused', error: 'unknown_code' }, context).note, /went wrong/);
  assert.equal(describeEntry({ ...entry, state: 'sent' }, context).note, '');
});

test('the outbox works without storage', () => {
  const storage = openStorage(() => { throw new Error('forbidden'); });
  const box = new Outbox({ storage, prefix: 'out:', newId: () => 'm' });
  box.load('c');
  box.add({ text: 'hi', conversation: 'c', now: 0 });
  assert.equal(box.next(ready).text, 'hi');
});

test('a partial answer is saved at most four times a second, and deleted when complete', () => {
  const partials = new PartialAnswers(openStorage(() => real), 'shown:c');
  const real = fakeStorage();
  partials.save({ id: 't1', text: 'a' }, 1_000);
  partials.save({ id: 't1', text: 'ab' }, 1_249);
  assert.equal(partials.all()[0].text, 'a');
  partials.save({ id: 't1', text: 'abc' }, 1_250);
  assert.equal(partials.all()[0].text, 'abc');
  partials.save({ id: 't1', text: 'abcd' }, 1_251, true);
  assert.equal(partials.all()[0].text, 'abcd');
  partials.delete('t1');
  assert.deepEqual(partials.all(), []);
});

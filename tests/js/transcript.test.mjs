import assert from 'node:assert/strict';
import { test } from 'node:test';
import { countWords, failedProviders, Transcript } from '../../static/transcript.js';

const start = { type: 'start', turn: 't1', seq: 1, client_msg_id: 'm1', text: 'why?', at: '2026-01-01T00:00:00Z', retry_of: null };
const attempt = (seq, number, provider, after = null) => ({ type: 'attempt', turn: 't1', seq, attempt: number, provider, model: `m-${provider}`, after });
const token = (seq, text, turn = 't1') => ({ type: 'token', turn, seq, attempt: 1, text });
const restart = (seq, from, to) => ({ type: 'restart', turn: 't1', seq, attempt: 2, from, to, reason: 'stalled' });
const done = (seq, overrides = {}) => ({
  type: 'done', turn: 't1', seq, source: 'ai', degraded: false, provider: 'a', model: 'm-a', tried: [], finish: 'stop', text: 'ab', age_s: null, drafts: [], ...overrides,
});
const record = (overrides = {}) => ({
  turn: 't1', client_msg_id: 'm1', at: '2026-01-01T00:00:00Z', question: 'why?', text: 'ab', state: 'done', source: 'ai', degraded: false, provider: 'a',
  model: 'm-a', finish: 'stop', attempts: 1, tried: [], drafts: [], age_s: null, feedback: null, followup: null, retry_of: null, ...overrides,
});

function apply(...frames) {
  const transcript = new Transcript();
  for (const frame of frames) transcript.apply(frame);
  return transcript;
}

test('frames in order build the text, and done ends the turn', () => {
  const transcript = apply(start, attempt(2, 1, 'a'), token(3, 'a'), token(4, 'b'));
  assert.equal(transcript.running.text, 'ab');
  assert.deepEqual(transcript.resumePosition(), { turn: 't1', seq: 4 });
  transcript.apply(done(5));
  assert.equal(transcript.running, undefined);
  assert.equal(transcript.get('t1').state, 'done');
  assert.equal(transcript.resumePosition(), null);
});

test('an older frame changes nothing', () => {
  const transcript = apply(start, attempt(2, 1, 'a'), token(3, 'a'));
  assert.equal(transcript.apply(token(3, 'a')), null);
  assert.equal(transcript.apply(start), null);
  assert.equal(transcript.running.text, 'a');
});

test('a frame after a gap is reported, not applied', () => {
  const transcript = apply(start, attempt(2, 1, 'a'));
  const outcome = transcript.apply(token(4, 'b'));
  assert.equal(outcome.gap.id, 't1');
  assert.equal(transcript.running.text, '');
  assert.deepEqual(transcript.resumePosition(), { turn: 't1', seq: 2 });
});

test('a frame of an unknown turn is a gap from seq 0', () => {
  const transcript = new Transcript();
  assert.ok(transcript.apply(token(7, 'x')).gap);
  assert.deepEqual(transcript.resumePosition(), { turn: 't1', seq: 0 });
});

test('a frame of an unknown type is ignored', () => {
  const transcript = apply(start);
  assert.equal(transcript.apply({ type: 'novelty', turn: 't1', seq: 9 }), null);
});

test('a snapshot always applies and sets the last seq', () => {
  const transcript = apply(start, token(2, 'old'));
  transcript.apply({ type: 'snapshot', turn: 't1', seq: 40, attempt: 2, provider: 'b', model: 'm', text: 'new', drafts: [{ provider: 'a', text: 'old' }], question: 'why?' });
  assert.equal(transcript.running.text, 'new');
  transcript.apply(token(41, '!'));
  assert.equal(transcript.running.text, 'new!');
  assert.equal(transcript.running.drafts.length, 1);
});

test('an attempt after text keeps the text and pauses; a token ends the pause', () => {
  const transcript = apply(start, attempt(2, 1, 'a'), token(3, 'ab'), attempt(4, 2, 'b', { provider: 'a', reason: 'reset' }));
  const turn = transcript.running;
  assert.equal(turn.text, 'ab');
  assert.equal(turn.isPaused, true);
  assert.equal(turn.pausedProvider, 'a');
  transcript.apply(token(5, 'c'));
  assert.equal(turn.isPaused, false);
  assert.equal(turn.text, 'abc');
});

test('an attempt before any text does not pause', () => {
  assert.equal(apply(start, attempt(2, 1, 'a'), attempt(3, 2, 'b', { provider: 'a', reason: 'timeout' })).running.isPaused, false);
});

test('a restart turns the text into a draft', () => {
  const transcript = apply(start, attempt(2, 1, 'a'), token(3, 'ab'), attempt(4, 2, 'b'), restart(5, 'a', 'b'), token(6, 'xy'));
  assert.equal(transcript.running.text, 'xy');
  assert.deepEqual(transcript.running.drafts, [{ provider: 'a', text: 'ab' }]);
});

test('stopped and interrupted are states of their own', () => {
  assert.equal(apply(start, done(2, { finish: 'stopped' })).get('t1').state, 'stopped');
  assert.equal(apply(start, done(2, { finish: 'interrupted' })).get('t1').state, 'interrupted');
});

test('turns are sorted by id, in whichever order they arrive', () => {
  const transcript = new Transcript();
  transcript.applyWelcome([record({ turn: 't5' })]);
  transcript.applyHistory([record({ turn: 't1' }), record({ turn: 't3' })]);
  assert.deepEqual(transcript.turns.map((turn) => turn.id), ['t1', 't3', 't5']);
});

test('a welcome does not change a running turn', () => {
  const transcript = apply(start, token(2, 'abc'));
  transcript.applyWelcome([record({ state: 'running', text: 'a', source: null, finish: null })]);
  assert.equal(transcript.running.text, 'abc');
  transcript.apply(token(3, 'd'));
  assert.equal(transcript.running.text, 'abcd');
});

test('a welcome ends a turn whose end was missed, and late frames are ignored', () => {
  const transcript = apply(start, token(2, 'a'));
  transcript.applyWelcome([record({ text: 'abc' })]);
  assert.equal(transcript.get('t1').state, 'done');
  transcript.apply(token(3, 'b'));
  assert.equal(transcript.get('t1').text, 'abc');
});

test('an interrupted answer keeps the text that only the page has', () => {
  const transcript = apply(start, token(2, 'abcdef'));
  transcript.applyWelcome([record({ state: 'interrupted', finish: 'interrupted', text: 'abc' })]);
  const turn = transcript.get('t1');
  assert.equal(turn.text, 'abcdef');
  assert.equal(turn.state, 'interrupted');
  assert.equal(turn.localOnly, true);
  // The frames that follow on a resume hold no more than the history.
  const { drafts, provider, question } = record();
  transcript.apply({ type: 'snapshot', turn: 't1', seq: 9, attempt: 1, provider, model: 'm-a', text: 'abc', drafts, question });
  transcript.apply(done(10, { finish: 'interrupted', text: 'abc' }));
  assert.equal(turn.text, 'abcdef');
  assert.equal(turn.state, 'interrupted');
});

test('an interrupted answer with a different text takes the server\'s text', () => {
  const transcript = apply(start, token(2, 'zzzzzz'));
  transcript.applyWelcome([record({ state: 'interrupted', finish: 'interrupted', text: 'abc' })]);
  assert.equal(transcript.get('t1').text, 'abc');
  assert.equal(transcript.get('t1').localOnly, false);
});

test('a restart that the server had not saved is kept with its draft', () => {
  const transcript = apply(start, token(2, 'abcdef'), restart(3, 'a', 'b'), token(4, 'x'));
  transcript.applyWelcome([record({ state: 'interrupted', finish: 'interrupted', text: 'abc' })]);
  const turn = transcript.get('t1');
  assert.equal(turn.text, 'x');
  assert.equal(turn.drafts[0].text, 'abcdef');
});

test('a running turn that the server does not know becomes interrupted', () => {
  const transcript = apply(start, token(2, 'abc'));
  transcript.applyWelcome([]);
  assert.equal(transcript.get('t1').state, 'interrupted');
});

test('a restored turn resumes from seq 0, and is removed if it belongs to an older page', () => {
  const transcript = new Transcript();
  transcript.restore({ id: 't1', mid: 'm1', question: 'why?', text: 'abc', drafts: [], state: 'running' });
  assert.deepEqual(transcript.resumePosition(), { turn: 't1', seq: 0 });
  transcript.applyWelcome([record({ turn: 't2' })]);
  assert.equal(transcript.get('t1'), undefined);
});

test('a followup is added to its turn, and ignored for an unknown turn', () => {
  const transcript = apply(start, done(2));
  transcript.apply({ type: 'followup', turn: 't1', text: 'late', provider: 'a', model: 'm', at: '2026-01-01T00:00:00Z' });
  assert.equal(transcript.get('t1').followup.text, 'late');
  assert.equal(transcript.apply({ type: 'followup', turn: 't9', text: 'late' }), null);
  assert.equal(transcript.turns.length, 1);
});

test('failedProviders returns each failed provider once, without the one that answered', () => {
  const tried = [['a', 'timeout'], ['a', 'reset'], ['b', 'refused'], ['c', 'ok']].map(([provider, outcome]) => ({ provider, outcome }));
  assert.deepEqual(failedProviders({ tried, failed: [], drafts: [], provider: 'c' }), ['a', 'b']);
  assert.deepEqual(failedProviders({ tried: [{ provider: 'a', outcome: 'reset' }, { provider: 'a', outcome: 'ok' }], failed: [], drafts: [], provider: 'a' }), []);
  assert.deepEqual(failedProviders({ tried: null, failed: ['a'], drafts: [{ provider: 'a', text: '' }], provider: 'b' }), ['a']);
});

test('countWords splits at white space', () => {
  assert.equal(countWords('  one two\n\nthree '), 3);
  assert.equal(countWords(''), 0);
});

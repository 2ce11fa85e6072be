import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Transcript, unavailable, words } from '../../static/transcript.js';

const start = { type: 'start', turn: 't1', seq: 1, client_msg_id: 'm1', text: 'why?', at: '2026-01-01T00:00:00Z', retry_of: null };
const attempt = (seq, number, provider, after = null) => ({ type: 'attempt', turn: 't1', seq, attempt: number, provider, model: `m-${provider}`, after });
const token = (seq, text, turn = 't1') => ({ type: 'token', turn, seq, attempt: 1, text });
const restart = (seq, from, to) => ({ type: 'restart', turn: 't1', seq, attempt: 2, from, to, reason: 'stalled' });
const done = (seq, more = {}) => ({
  type: 'done', turn: 't1', seq, source: 'ai', degraded: false, provider: 'a', model: 'm-a', tried: [], finish: 'stop', text: 'ab', age_s: null, drafts: [], ...more,
});
const record = (more = {}) => ({
  turn: 't1', client_msg_id: 'm1', at: '2026-01-01T00:00:00Z', question: 'why?', text: 'ab', state: 'done', source: 'ai', degraded: false, provider: 'a',
  model: 'm-a', finish: 'stop', attempts: 1, tried: [], drafts: [], age_s: null, feedback: null, followup: null, retry_of: null, ...more,
});

function heard(...frames) {
  const transcript = new Transcript();
  for (const frame of frames) transcript.apply(frame);
  return transcript;
}

test('frames in order give the text, and done ends the turn', () => {
  const transcript = heard(start, attempt(2, 1, 'a'), token(3, 'a'), token(4, 'b'));
  assert.equal(transcript.running.text, 'ab');
  assert.deepEqual(transcript.position(), { turn: 't1', seq: 4 });
  transcript.apply(done(5));
  assert.equal(transcript.running, undefined);
  assert.equal(transcript.get('t1').state, 'done');
  assert.equal(transcript.position(), null);
});

test('an older frame changes nothing', () => {
  const transcript = heard(start, attempt(2, 1, 'a'), token(3, 'a'));
  assert.equal(transcript.apply(token(3, 'a')), null);
  assert.equal(transcript.apply(start), null);
  assert.equal(transcript.running.text, 'a');
});

test('a gap is told, not applied', () => {
  const transcript = heard(start, attempt(2, 1, 'a'));
  const outcome = transcript.apply(token(4, 'b'));
  assert.equal(outcome.gap.id, 't1');
  assert.equal(transcript.running.text, '');
  assert.deepEqual(transcript.position(), { turn: 't1', seq: 2 });
});

test('a frame of an unknown turn is a gap from zero', () => {
  const transcript = new Transcript();
  assert.ok(transcript.apply(token(7, 'x')).gap);
  assert.deepEqual(transcript.position(), { turn: 't1', seq: 0 });
});

test('a frame of a type to come is ignored', () => {
  const transcript = heard(start);
  assert.equal(transcript.apply({ type: 'novelty', turn: 't1', seq: 9 }), null);
});

test('a snapshot always applies and sets the last seq', () => {
  const transcript = heard(start, token(2, 'old'));
  transcript.apply({ type: 'snapshot', turn: 't1', seq: 40, attempt: 2, provider: 'b', model: 'm', text: 'new', drafts: [{ provider: 'a', text: 'old' }], question: 'why?' });
  assert.equal(transcript.running.text, 'new');
  transcript.apply(token(41, '!'));
  assert.equal(transcript.running.text, 'new!');
  assert.equal(transcript.running.drafts.length, 1);
});

test('an attempt after text voids nothing and pauses; a token ends the pause', () => {
  const transcript = heard(start, attempt(2, 1, 'a'), token(3, 'ab'), attempt(4, 2, 'b', { provider: 'a', reason: 'reset' }));
  const turn = transcript.running;
  assert.equal(turn.text, 'ab');
  assert.equal(turn.paused, true);
  assert.equal(turn.pausedFrom, 'a');
  transcript.apply(token(5, 'c'));
  assert.equal(turn.paused, false);
  assert.equal(turn.text, 'abc');
});

test('an attempt before any text pauses nothing', () => {
  assert.equal(heard(start, attempt(2, 1, 'a'), attempt(3, 2, 'b', { provider: 'a', reason: 'timeout' })).running.paused, false);
});

test('a restart makes the text a draft', () => {
  const transcript = heard(start, attempt(2, 1, 'a'), token(3, 'ab'), attempt(4, 2, 'b'), restart(5, 'a', 'b'), token(6, 'xy'));
  assert.equal(transcript.running.text, 'xy');
  assert.deepEqual(transcript.running.drafts, [{ provider: 'a', text: 'ab' }]);
});

test('stopped and interrupted are states of their own', () => {
  assert.equal(heard(start, done(2, { finish: 'stopped' })).get('t1').state, 'stopped');
  assert.equal(heard(start, done(2, { finish: 'interrupted' })).get('t1').state, 'interrupted');
});

test('turns stand in the order of their ids, whatever came first', () => {
  const transcript = new Transcript();
  transcript.welcome([record({ turn: 't5' })]);
  transcript.earlier([record({ turn: 't1' }), record({ turn: 't3' })]);
  assert.deepEqual(transcript.turns.map((turn) => turn.id), ['t1', 't3', 't5']);
});

test('a welcome leaves a running turn to its frames', () => {
  const transcript = heard(start, token(2, 'abc'));
  transcript.welcome([record({ state: 'running', text: 'a', source: null, finish: null })]);
  assert.equal(transcript.running.text, 'abc');
  transcript.apply(token(3, 'd'));
  assert.equal(transcript.running.text, 'abcd');
});

test('a welcome ends a turn whose end was missed; its late frames change nothing', () => {
  const transcript = heard(start, token(2, 'a'));
  transcript.welcome([record({ text: 'abc' })]);
  assert.equal(transcript.get('t1').state, 'done');
  transcript.apply(token(3, 'b'));
  assert.equal(transcript.get('t1').text, 'abc');
});

test('an interrupted answer keeps what the page saw beyond the server', () => {
  const transcript = heard(start, token(2, 'abcdef'));
  transcript.welcome([record({ state: 'interrupted', finish: 'interrupted', text: 'abc' })]);
  const turn = transcript.get('t1');
  assert.equal(turn.text, 'abcdef');
  assert.equal(turn.state, 'interrupted');
  assert.equal(turn.ahead, true);
  // What follows, to who resumes, is no more than the history said.
  const { drafts, provider, question } = record();
  transcript.apply({ type: 'snapshot', turn: 't1', seq: 9, attempt: 1, provider, model: 'm-a', text: 'abc', drafts, question });
  transcript.apply(done(10, { finish: 'interrupted', text: 'abc' }));
  assert.equal(turn.text, 'abcdef');
  assert.equal(turn.state, 'interrupted');
});

test('an interrupted answer of other words is the server\'s', () => {
  const transcript = heard(start, token(2, 'zzzzzz'));
  transcript.welcome([record({ state: 'interrupted', finish: 'interrupted', text: 'abc' })]);
  assert.equal(transcript.get('t1').text, 'abc');
  assert.equal(transcript.get('t1').ahead, false);
});

test('a restart that the server had not on disk is kept with its draft', () => {
  const transcript = heard(start, token(2, 'abcdef'), restart(3, 'a', 'b'), token(4, 'x'));
  transcript.welcome([record({ state: 'interrupted', finish: 'interrupted', text: 'abc' })]);
  const turn = transcript.get('t1');
  assert.equal(turn.text, 'x');
  assert.equal(turn.drafts[0].text, 'abcdef');
});

test('a running turn that the server does not know is interrupted', () => {
  const transcript = heard(start, token(2, 'abc'));
  transcript.welcome([]);
  assert.equal(transcript.get('t1').state, 'interrupted');
});

test('a recalled turn resumes from zero, and one of an older page goes', () => {
  const transcript = new Transcript();
  transcript.recall({ id: 't1', mid: 'm1', question: 'why?', text: 'abc', drafts: [], state: 'running' });
  assert.deepEqual(transcript.position(), { turn: 't1', seq: 0 });
  transcript.welcome([record({ turn: 't2' })]);
  assert.equal(transcript.get('t1'), undefined);
});

test('a followup goes to its turn, and one of an unknown turn nowhere', () => {
  const transcript = heard(start, done(2));
  transcript.apply({ type: 'followup', turn: 't1', text: 'late', provider: 'a', model: 'm', at: '2026-01-01T00:00:00Z' });
  assert.equal(transcript.get('t1').followup.text, 'late');
  assert.equal(transcript.apply({ type: 'followup', turn: 't9', text: 'late' }), null);
  assert.equal(transcript.turns.length, 1);
});

test('unavailable names each failed provider once, without the one that answered', () => {
  const tried = [['a', 'timeout'], ['a', 'reset'], ['b', 'refused'], ['c', 'ok']].map(([provider, outcome]) => ({ provider, outcome }));
  assert.deepEqual(unavailable({ tried, failed: [], drafts: [], provider: 'c' }), ['a', 'b']);
  assert.deepEqual(unavailable({ tried: [{ provider: 'a', outcome: 'reset' }, { provider: 'a', outcome: 'ok' }], failed: [], drafts: [], provider: 'a' }), []);
  assert.deepEqual(unavailable({ tried: null, failed: ['a'], drafts: [{ provider: 'a', text: '' }], provider: 'b' }), ['a']);
});

test('words are counted by white space', () => {
  assert.equal(words('  one two\n\nthree '), 3);
  assert.equal(words(''), 0);
});

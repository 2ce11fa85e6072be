// Every word a visitor reads, in English, but for the demo's panel, which is loaded only there. A translation is one object
// of this shape.

const count = (number, one) => `${number.toLocaleString('en')} ${one}${number === 1 ? '' : 's'}`;
const aged = (age) => (age ? ` · ${age} old` : '');

export default {
  lang: 'en',
  dir: 'ltr',

  demo: 'Demo: simulated providers',
  status: 'Status page',
  health: { normal: 'Working', degraded: 'Reduced', outage: 'No AI', unreachable: 'Not connected', offline: 'Offline' },
  save: 'Export the conversation',
  fresh: 'New conversation',
  /** In place of the service's own default, which is this in English. */
  greeting: 'Hello! How can I help?',
  suggestions: [
    'What can you help me with?',
    'Explain in simple words how the internet works',
    'Give me three ideas for a quiet weekend',
  ],

  transcript: 'Conversation',
  you: 'You',
  answer: 'Answer',
  laterAnswer: 'Later answer',
  waiting: 'Waiting for the answer',
  earlier: 'Load earlier messages',
  loading: 'Loading…',
  jump: '↓ Jump to latest',
  /** The age of a saved answer. */
  ages: {
    less: 'less than a minute',
    minutes: (number) => count(number, 'minute'),
    hours: (number) => count(number, 'hour'),
    days: (number) => count(number, 'day'),
  },
  copy: 'Copy',
  copyCode: 'Copy code',
  copied: 'Copied',
  retry: 'Retry',
  up: 'Good answer',
  down: 'Bad answer',

  answeredBy: (provider, failed) => `Answered by ${provider}${failed.length ? ` · ${failed.join(', ')} unavailable` : ''}`,
  switching: (from, to) => (from && from !== to ? `… ${from} broke off, asking ${to}` : '… trying again'),
  draft: (provider, words) => `Interrupted draft from ${provider} · ${count(words, 'word')}`,
  later: (provider, time) => `Later AI answer · ${provider}${time && ` · ${time}`}`,
  again: 'Asked again',
  /** How an answer ended, by state or finish, where that is worth a word. */
  endings: {
    stopped: 'Stopped',
    interrupted: 'Interrupted',
    length: 'Cut at the length limit',
    content_filter: 'Declined by the AI',
  },
  sources: {
    cache: (age) => `Saved answer${aged(age)}`,
    stale_cache: (age) => `Saved answer${aged(age)} · AI unavailable`,
    template: () => 'Prepared reply · AI unavailable',
    extractive: () => 'Quoted from a text · AI unavailable',
    fallback: () => 'Automatic reply · AI unavailable',
  },

  placeholder: 'Write a message',
  send: 'Send',
  stop: 'Stop the answer',
  outage: 'No AI can be reached. You get a prepared reply for now.',
  tooLong: (length, most) => `${length.toLocaleString('en')} of ${most.toLocaleString('en')} characters`,
  toSend: 'Waiting to send',
  toSendAfter: 'Waiting for the current answer',
  edit: 'Edit',
  discard: 'Discard',
  tryAgain: 'Try again',
  errors: {
    message_too_long: (most) => `Not sent: longer than ${count(most, 'character')}. Shorten it and send it again.`,
    rate_limited: (seconds) => `Too many messages at once. Sent by itself in ${count(seconds, 'second')}.`,
    busy: (seconds) => `Much is being asked right now. Sent by itself in ${count(seconds, 'second')}.`,
    shutting_down: () => 'The service is restarting. Sent by itself when it is back.',
    unauthorized: () => 'This conversation is not open to you any more.',
    signed_out: () => 'Your sign-in is not valid any more. Sign in again to go on.',
    forbidden_origin: () => 'The chat is not open to this site.',
    not_found: () => 'That answer is not known any more and cannot be asked for again.',
    bad_request: () => 'Not sent: the service could not read it.',
    internal: () => 'Not sent: something went wrong at the service.',
  },

  /** State word and sentence. */
  banner: {
    offline: ['You are offline', 'What you write is kept and sent when you are back.'],
    unreachable: ['Not connected', 'What you write is kept and sent when the connection is back.'],
    outage: ['AI unavailable', 'You still get saved and prepared replies.'],
    degraded: ['Reduced service', 'Answers come from a backup model.'],
    normal: ['Back to normal', 'Answers come from the AI as usual.'],
  },
  details: 'Details',
  dismiss: 'Dismiss',
  retryNow: 'Retry now',
  nextTry: (seconds) => (seconds > 0 ? `Next try in ${seconds} s` : 'Connecting…'),
  connected: 'Connected',

  /** For assistive technology alone. */
  spoken: {
    writing: 'The answer is being written.',
    done: 'The answer is complete.',
    stopped: 'The answer was stopped.',
    interrupted: 'The answer was interrupted.',
    later: 'A later AI answer has arrived.',
  },
};

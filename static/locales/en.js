// The English texts, and the reference for all locales: a translation is an object of the same shape. The demo panel has its
// own texts in demo.js.

const count = (number, noun) => `${number.toLocaleString('en')} ${noun}${number === 1 ? '' : 's'}`;
const aged = (age) => (age ? ` · ${age} old` : '');

export default {
  lang: 'en',
  dir: 'ltr',

  demo: 'Demo: simulated providers',
  status: 'Status page',
  health: { normal: 'Working', degraded: 'Reduced', outage: 'No AI', unreachable: 'Not connected', offline: 'Offline' },
  exportConversation: 'Export the conversation',
  newConversation: 'New conversation',
  /** Replaces the service's default greeting, which is the English text. */
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
  ages: {
    underAMinute: 'less than a minute',
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
  switching: (from, to) => (from && from !== to ? `… ${from} failed, asking ${to}` : '… trying again'),
  draft: (provider, words) => `Interrupted draft from ${provider} · ${count(words, 'word')}`,
  later: (provider, time) => `Later AI answer · ${provider}${time && ` · ${time}`}`,
  askedAgain: 'Asked again',
  /** By the answer's state or finish reason; a normal end has no text. */
  endings: {
    stopped: 'Stopped',
    interrupted: 'Interrupted',
    length: 'Cut off at the length limit',
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
  outage: 'No AI can be reached at the moment. You will get a prepared reply.',
  tooLong: (length, maxChars) => `${length.toLocaleString('en')} of ${maxChars.toLocaleString('en')} characters`,
  waitingToSend: 'Waiting to send',
  waitingForAnswer: 'Waiting for the current answer',
  edit: 'Edit',
  discard: 'Discard',
  tryAgain: 'Try again',
  errors: {
    message_too_long: (maxChars) => `Not sent: it is longer than ${count(maxChars, 'character')}. Shorten it and send it again.`,
    rate_limited: (seconds) => `Too many messages at once. It will be sent automatically in ${count(seconds, 'second')}.`,
    busy: (seconds) => `The service is busy. It will be sent automatically in ${count(seconds, 'second')}.`,
    shutting_down: () => 'The service is restarting. Your message will be sent automatically.',
    unauthorized: () => 'You no longer have access to this conversation.',
    signed_out: () => 'You are no longer signed in. Sign in again to continue.',
    forbidden_origin: () => 'This chat is not available on this site.',
    not_found: () => 'That answer is no longer available and cannot be retried.',
    bad_request: () => 'Not sent: the service could not read the message.',
    internal: () => 'Not sent: something went wrong on the server.',
  },

  /** Title and sentence. */
  banner: {
    offline: ['You are offline', 'Your messages are kept and sent when you are back online.'],
    unreachable: ['Not connected', 'Your messages are kept and sent when the connection is back.'],
    outage: ['AI unavailable', 'You still get saved and prepared replies.'],
    degraded: ['Reduced service', 'Answers come from a backup model.'],
    normal: ['Back to normal', 'Answers come from the AI as usual.'],
  },
  details: 'Details',
  dismiss: 'Dismiss',
  retryNow: 'Retry now',
  nextTry: (seconds) => (seconds > 0 ? `Next try in ${seconds} s` : 'Connecting…'),
  connected: 'Connected',

  /** Announced to assistive technology only. */
  spoken: {
    writing: 'The answer is being written.',
    done: 'The answer is complete.',
    stopped: 'The answer was stopped.',
    interrupted: 'The answer was interrupted.',
    later: 'A later AI answer has arrived.',
  },
};

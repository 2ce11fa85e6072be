// Every word a visitor reads. One place, so that a translation is one object of the same shape.

const plural = (count, one, many = `${one}s`) => `${count.toLocaleString()} ${count === 1 ? one : many}`;
const list = (names) => names.join(', ');

export const texts = {
  suggestions: [
    'What can you help me with?',
    'Explain in simple words how the internet works',
    'Give me three ideas for a quiet weekend',
  ],
  demo: 'Demo: simulated providers',

  you: 'You',
  answer: 'Answer',
  laterAnswer: 'Later answer',
  placeholder: 'Write a message',
  send: 'Send',
  stop: 'Stop the answer',
  tooLong: (length, most) => `${length.toLocaleString()} of ${most.toLocaleString()} characters`,
  jump: 'Jump to latest',
  earlier: 'Load earlier messages',
  loading: 'Loading…',
  exportAll: 'Export',
  fresh: 'New conversation',
  status: 'Status',
  transcript: 'Conversation',

  copy: 'Copy',
  copied: 'Copied',
  copyCode: 'Copy code',
  retry: 'Retry',
  up: 'Good answer',
  down: 'Bad answer',

  waiting: 'Waiting for the answer',
  answeredBy: (provider, failed) =>
    `Answered by ${provider}${failed.length ? ` · ${list(failed)} unavailable` : ''}`,
  switching: (from, to) => (from && from !== to ? `… ${from} broke off, asking ${to}` : '… trying again'),
  draft: (provider, count) => `Interrupted draft from ${provider} · ${plural(count, 'word')}`,
  interrupted: 'Interrupted',
  stopped: 'Stopped',
  sources: {
    cache: (age) => `Saved answer${age ? ` · ${age} old` : ''}`,
    stale_cache: (age) => `Saved answer${age ? ` · ${age} old` : ''} · AI unavailable`,
    template: () => 'Prepared reply · AI unavailable',
    extractive: () => 'Found in our documents · AI unavailable',
    fallback: () => 'Automatic reply · AI unavailable',
  },
  finishes: {
    length: 'Cut at the length limit',
    content_filter: 'Declined by the AI',
  },
  later: (provider, time) => `Later AI answer · ${provider}${time ? ` · ${time}` : ''}`,
  again: 'Asked again',
  age(seconds) {
    if (seconds === null || seconds === undefined) return '';
    if (seconds < 60) return 'less than a minute';
    if (seconds < 3600) return plural(Math.round(seconds / 60), 'minute');
    if (seconds < 172_800) return plural(Math.round(seconds / 3600), 'hour');
    return plural(Math.round(seconds / 86_400), 'day');
  },

  toSend: 'Waiting to send',
  toSendAfter: 'Waiting for the current answer',
  sending: 'Sending',
  edit: 'Edit',
  discard: 'Discard',
  tryAgain: 'Try again',
  errors: {
    message_too_long: (most) => `Not sent: longer than ${most.toLocaleString()} characters. Shorten it and send it again.`,
    rate_limited: (seconds) => `Too many messages at once. Sent by itself in ${plural(seconds, 'second')}.`,
    busy: (seconds) => `Much is being asked right now. Sent by itself in ${plural(seconds, 'second')}.`,
    shutting_down: () => 'The service is restarting. Sent by itself when it is back.',
    unauthorized: () => 'This conversation is not open to you any more.',
    not_found: () => 'That answer is not known any more, so it cannot be asked for again.',
    bad_request: () => 'Not sent: the service could not read it.',
    internal: () => 'Not sent: something went wrong at the service.',
  },

  banner: {
    offline: ['You are offline', 'What you write is kept and sent when you are back.'],
    unreachable: ['Not connected', 'What you write is kept and sent when the connection is back.'],
    outage: ['AI unavailable', 'You still get saved and prepared replies.'],
    degraded: ['Reduced service', 'Answers come from a backup model.'],
    normal: ['Back to normal', 'Answers come from the AI as usual.'],
    details: 'Details',
    dismiss: 'Dismiss',
    retryNow: 'Retry now',
    nextTry: (seconds) => (seconds > 0 ? `Next try in ${seconds} s` : 'Connecting…'),
    connected: 'Connected',
  },
  hints: {
    offline: 'Offline: messages wait here until you are back.',
    unreachable: 'Not connected: messages wait here until the connection is back.',
    outage: 'No AI can be reached. You get a prepared reply for now.',
  },
  spoken: {
    writing: 'The answer is being written.',
    whole: 'The answer is complete.',
    stopped: 'The answer was stopped.',
    interrupted: 'The answer was interrupted.',
    later: 'A later AI answer has arrived.',
  },

  panel: {
    lead: 'Three real servers on this machine. Break one while it answers and watch.',
    fault: (name) => `Fault for ${name}`,
    break: 'Break',
    mend: 'Mend',
    broken: (fault) => `Fault: ${fault}`,
    failed: 'That did not work. Try again.',
    faults: {
      down: 'Down',
      rate_limit: 'Rate limited',
      unauthorized: 'Key refused',
      timeout: 'Silent',
      stall: 'Stalls in mid-answer',
      cut: 'Cut in mid-answer',
      garbage: 'Garbage in mid-answer',
      slow: 'Slow',
    },
    states: {
      closed: 'Working',
      half_open: 'Being tried',
      open: 'Down',
      blocked: 'Key refused',
      disabled: 'Switched off',
    },
  },
};

/** A moment of the wall clock as the visitor's own place writes it; empty for none. */
export function clock(at) {
  const time = at ? new Date(at) : null;
  if (!time || Number.isNaN(time.getTime())) return '';
  return time.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
}

// German.

const number = (value) => value.toLocaleString('de');
const count = (value, one, many) => `${number(value)} ${value === 1 ? one : many}`;
const aged = (age) => (age ? ` · ${age} alt` : '');

export default {
  lang: 'de',
  dir: 'ltr',

  demo: 'Demo: simulierte Anbieter',
  status: 'Statusseite',
  health: { normal: 'In Betrieb', degraded: 'Eingeschränkt', outage: 'Keine KI', unreachable: 'Nicht verbunden', offline: 'Offline' },
  save: 'Gespräch exportieren',
  fresh: 'Neues Gespräch',
  greeting: 'Hallo! Wobei kann ich helfen?',
  suggestions: [
    'Wobei können Sie mir helfen?',
    'Erklären Sie in einfachen Worten, wie das Internet funktioniert',
    'Geben Sie mir drei Ideen für ein ruhiges Wochenende',
  ],

  transcript: 'Gespräch',
  you: 'Sie',
  answer: 'Antwort',
  laterAnswer: 'Spätere Antwort',
  waiting: 'Die Antwort wird erwartet',
  earlier: 'Frühere Nachrichten laden',
  loading: 'Wird geladen …',
  jump: '↓ Zum Ende springen',
  ages: {
    less: 'weniger als eine Minute',
    minutes: (value) => count(value, 'Minute', 'Minuten'),
    hours: (value) => count(value, 'Stunde', 'Stunden'),
    days: (value) => count(value, 'Tag', 'Tage'),
  },
  copy: 'Kopieren',
  copyCode: 'Code kopieren',
  copied: 'Kopiert',
  retry: 'Erneut versuchen',
  up: 'Gute Antwort',
  down: 'Schlechte Antwort',

  answeredBy: (provider, failed) => `Antwort von ${provider}${failed.length ? ` · ${failed.join(', ')} nicht erreichbar` : ''}`,
  switching: (from, to) => (from && from !== to ? `… ${from} ist abgebrochen, ${to} wird gefragt` : '… neuer Versuch'),
  draft: (provider, words) => `Abgebrochener Entwurf von ${provider} · ${count(words, 'Wort', 'Wörter')}`,
  later: (provider, time) => `Spätere KI-Antwort · ${provider}${time && ` · ${time}`}`,
  again: 'Noch einmal gefragt',
  endings: {
    stopped: 'Angehalten',
    interrupted: 'Abgebrochen',
    length: 'Am Längenlimit abgeschnitten',
    content_filter: 'Von der KI abgelehnt',
  },
  sources: {
    cache: (age) => `Gespeicherte Antwort${aged(age)}`,
    stale_cache: (age) => `Gespeicherte Antwort${aged(age)} · KI nicht verfügbar`,
    template: () => 'Vorbereitete Antwort · KI nicht verfügbar',
    extractive: () => 'Aus einem Text zitiert · KI nicht verfügbar',
    fallback: () => 'Automatische Antwort · KI nicht verfügbar',
  },

  placeholder: 'Nachricht schreiben',
  send: 'Senden',
  stop: 'Antwort anhalten',
  outage: 'Zurzeit ist keine KI erreichbar. Sie bekommen vorerst eine vorbereitete Antwort.',
  tooLong: (length, most) => `${number(length)} von ${number(most)} Zeichen`,
  toSend: 'Wartet auf das Senden',
  toSendAfter: 'Wartet auf das Ende der laufenden Antwort',
  edit: 'Bearbeiten',
  discard: 'Verwerfen',
  tryAgain: 'Erneut versuchen',
  errors: {
    message_too_long: (most) => `Nicht gesendet: länger als ${count(most, 'Zeichen', 'Zeichen')}. Kürzen Sie die Nachricht und senden Sie sie erneut.`,
    rate_limited: (seconds) => `Zu viele Nachrichten auf einmal. Wird in ${count(seconds, 'Sekunde', 'Sekunden')} von selbst gesendet.`,
    busy: (seconds) => `Gerade wird viel gefragt. Wird in ${count(seconds, 'Sekunde', 'Sekunden')} von selbst gesendet.`,
    shutting_down: () => 'Der Dienst startet neu. Wird danach von selbst gesendet.',
    unauthorized: () => 'Dieses Gespräch steht Ihnen nicht mehr offen.',
    signed_out: () => 'Ihre Anmeldung gilt nicht mehr. Melden Sie sich neu an, um fortzufahren.',
    forbidden_origin: () => 'Der Chat ist für diese Website nicht freigegeben.',
    not_found: () => 'Diese Antwort ist nicht mehr bekannt und kann nicht erneut erfragt werden.',
    bad_request: () => 'Nicht gesendet: Der Dienst konnte die Nachricht nicht lesen.',
    internal: () => 'Nicht gesendet: Beim Dienst ist etwas schiefgegangen.',
  },

  banner: {
    offline: ['Sie sind offline', 'Was Sie schreiben, wird aufgehoben und gesendet, sobald Sie wieder online sind.'],
    unreachable: ['Nicht verbunden', 'Was Sie schreiben, wird aufgehoben und gesendet, sobald die Verbindung wieder steht.'],
    outage: ['KI nicht verfügbar', 'Gespeicherte und vorbereitete Antworten gibt es weiterhin.'],
    degraded: ['Eingeschränkter Betrieb', 'Die Antworten kommen von einem Ersatzmodell.'],
    normal: ['Wieder wie gewohnt', 'Die Antworten kommen wieder von der KI.'],
  },
  details: 'Einzelheiten',
  dismiss: 'Schließen',
  retryNow: 'Jetzt versuchen',
  nextTry: (seconds) => (seconds > 0 ? `Nächster Versuch in ${seconds} s` : 'Verbindung wird aufgebaut …'),
  connected: 'Verbunden',

  spoken: {
    writing: 'Die Antwort wird geschrieben.',
    done: 'Die Antwort ist vollständig.',
    stopped: 'Die Antwort wurde angehalten.',
    interrupted: 'Die Antwort wurde abgebrochen.',
    later: 'Eine spätere KI-Antwort ist da.',
  },
};

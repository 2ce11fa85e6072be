// The German texts.

const number = (value) => value.toLocaleString('de');
const count = (value, singular, plural) => `${number(value)} ${value === 1 ? singular : plural}`;
const aged = (age) => (age ? ` · ${age} alt` : '');

export default {
  lang: 'de',
  dir: 'ltr',

  demo: 'Demo: simulierte Anbieter',
  status: 'Statusseite',
  health: { normal: 'In Betrieb', degraded: 'Eingeschränkt', outage: 'Keine KI', unreachable: 'Nicht verbunden', offline: 'Offline' },
  exportConversation: 'Gespräch exportieren',
  newConversation: 'Neues Gespräch',
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
  waiting: 'Warten auf die Antwort',
  earlier: 'Frühere Nachrichten laden',
  loading: 'Wird geladen …',
  jump: '↓ Zum Ende springen',
  ages: {
    underAMinute: 'weniger als eine Minute',
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
  switching: (from, to) => (from && from !== to ? `… ${from} ist ausgefallen, ${to} wird gefragt` : '… neuer Versuch'),
  draft: (provider, words) => `Abgebrochener Entwurf von ${provider} · ${count(words, 'Wort', 'Wörter')}`,
  later: (provider, time) => `Spätere KI-Antwort · ${provider}${time && ` · ${time}`}`,
  askedAgain: 'Noch einmal gefragt',
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
  outage: 'Im Moment ist keine KI erreichbar. Sie erhalten eine vorbereitete Antwort.',
  tooLong: (length, maxChars) => `${number(length)} von ${number(maxChars)} Zeichen`,
  waitingToSend: 'Wartet auf das Senden',
  waitingForAnswer: 'Wartet auf das Ende der laufenden Antwort',
  edit: 'Bearbeiten',
  discard: 'Verwerfen',
  tryAgain: 'Erneut versuchen',
  errors: {
    message_too_long: (maxChars) => `Nicht gesendet: länger als ${count(maxChars, 'Zeichen', 'Zeichen')}. Kürzen Sie die Nachricht und senden Sie sie erneut.`,
    rate_limited: (seconds) => `Zu viele Nachrichten auf einmal. Wird in ${count(seconds, 'Sekunde', 'Sekunden')} automatisch gesendet.`,
    busy: (seconds) => `Der Dienst ist ausgelastet. Wird in ${count(seconds, 'Sekunde', 'Sekunden')} automatisch gesendet.`,
    shutting_down: () => 'Der Dienst startet neu. Ihre Nachricht wird danach automatisch gesendet.',
    unauthorized: () => 'Sie haben keinen Zugriff mehr auf dieses Gespräch.',
    signed_out: () => 'Sie sind nicht mehr angemeldet. Melden Sie sich neu an, um fortzufahren.',
    forbidden_origin: () => 'Dieser Chat ist auf dieser Website nicht verfügbar.',
    not_found: () => 'Diese Antwort ist nicht mehr verfügbar und kann nicht wiederholt werden.',
    bad_request: () => 'Nicht gesendet: Der Dienst konnte die Nachricht nicht lesen.',
    internal: () => 'Nicht gesendet: Auf dem Server ist etwas schiefgegangen.',
  },

  banner: {
    offline: ['Sie sind offline', 'Ihre Nachrichten werden aufbewahrt und gesendet, sobald Sie wieder online sind.'],
    unreachable: ['Nicht verbunden', 'Ihre Nachrichten werden aufbewahrt und gesendet, sobald die Verbindung wieder steht.'],
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

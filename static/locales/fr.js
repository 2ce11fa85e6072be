// The French texts.

const number = (value) => value.toLocaleString('fr');
const count = (value, singular, plural) => `${number(value)} ${value < 2 ? singular : plural}`;
const aged = (age) => (age ? ` · il y a ${age}` : '');

export default {
  lang: 'fr',
  dir: 'ltr',

  demo: 'Démo : fournisseurs simulés',
  status: 'Page d’état',
  health: { normal: 'En service', degraded: 'Service réduit', outage: 'Sans IA', unreachable: 'Non connecté', offline: 'Hors ligne' },
  exportConversation: 'Exporter la conversation',
  newConversation: 'Nouvelle conversation',
  greeting: 'Bonjour ! Comment puis-je vous aider ?',
  suggestions: [
    'En quoi pouvez-vous m’aider ?',
    'Expliquez en mots simples comment fonctionne Internet',
    'Donnez-moi trois idées pour un week-end tranquille',
  ],

  transcript: 'Conversation',
  you: 'Vous',
  answer: 'Réponse',
  laterAnswer: 'Réponse tardive',
  waiting: 'En attente de la réponse',
  earlier: 'Charger les messages précédents',
  loading: 'Chargement…',
  jump: '↓ Aller à la fin',
  ages: {
    underAMinute: 'moins d’une minute',
    minutes: (value) => count(value, 'minute', 'minutes'),
    hours: (value) => count(value, 'heure', 'heures'),
    days: (value) => count(value, 'jour', 'jours'),
  },
  copy: 'Copier',
  copyCode: 'Copier le code',
  copied: 'Copié',
  retry: 'Réessayer',
  up: 'Bonne réponse',
  down: 'Mauvaise réponse',

  answeredBy: (provider, failed) => `Réponse de ${provider}${failed.length ? ` · ${failed.join(', ')} indisponible` : ''}`,
  switching: (from, to) => (from && from !== to ? `… ${from} est en panne, ${to} prend le relais` : '… nouvel essai'),
  draft: (provider, words) => `Brouillon interrompu de ${provider} · ${count(words, 'mot', 'mots')}`,
  later: (provider, time) => `Réponse tardive de l’IA · ${provider}${time && ` · ${time}`}`,
  askedAgain: 'Demandé à nouveau',
  endings: {
    stopped: 'Arrêtée',
    interrupted: 'Interrompue',
    length: 'Coupée à la longueur maximale',
    content_filter: 'Refusée par l’IA',
  },
  sources: {
    cache: (age) => `Réponse enregistrée${aged(age)}`,
    stale_cache: (age) => `Réponse enregistrée${aged(age)} · IA indisponible`,
    template: () => 'Réponse préparée · IA indisponible',
    extractive: () => 'Extrait d’un texte · IA indisponible',
    fallback: () => 'Réponse automatique · IA indisponible',
  },

  placeholder: 'Écrire un message',
  send: 'Envoyer',
  stop: 'Arrêter la réponse',
  outage: 'Aucune IA n’est joignable en ce moment. Vous recevrez une réponse préparée.',
  tooLong: (length, maxChars) => `${number(length)} caractères sur ${number(maxChars)}`,
  waitingToSend: 'En attente d’envoi',
  waitingForAnswer: 'En attente de la fin de la réponse',
  edit: 'Modifier',
  discard: 'Supprimer',
  tryAgain: 'Réessayer',
  errors: {
    message_too_long: (maxChars) => `Non envoyé : plus de ${count(maxChars, 'caractère', 'caractères')}. Raccourcissez le message et renvoyez-le.`,
    rate_limited: (seconds) => `Trop de messages à la fois. Envoi automatique dans ${count(seconds, 'seconde', 'secondes')}.`,
    busy: (seconds) => `Le service est occupé. Envoi automatique dans ${count(seconds, 'seconde', 'secondes')}.`,
    shutting_down: () => 'Le service redémarre. Votre message sera envoyé automatiquement.',
    unauthorized: () => 'Vous n’avez plus accès à cette conversation.',
    signed_out: () => 'Vous n’êtes plus connecté. Reconnectez-vous pour continuer.',
    forbidden_origin: () => 'Ce chat n’est pas disponible sur ce site.',
    not_found: () => 'Cette réponse n’est plus disponible et ne peut pas être redemandée.',
    bad_request: () => 'Non envoyé : le service n’a pas pu lire le message.',
    internal: () => 'Non envoyé : une erreur est survenue sur le serveur.',
  },

  banner: {
    offline: ['Vous êtes hors ligne', 'Vos messages sont conservés et envoyés dès que vous êtes de nouveau en ligne.'],
    unreachable: ['Non connecté', 'Vos messages sont conservés et envoyés dès que la connexion revient.'],
    outage: ['IA indisponible', 'Vous recevez toujours des réponses enregistrées et préparées.'],
    degraded: ['Service réduit', 'Les réponses viennent d’un modèle de secours.'],
    normal: ['Retour à la normale', 'Les réponses viennent de nouveau de l’IA.'],
  },
  details: 'Détails',
  dismiss: 'Fermer',
  retryNow: 'Réessayer maintenant',
  nextTry: (seconds) => (seconds > 0 ? `Prochain essai dans ${seconds} s` : 'Connexion…'),
  connected: 'Connecté',

  spoken: {
    writing: 'La réponse est en cours d’écriture.',
    done: 'La réponse est complète.',
    stopped: 'La réponse a été arrêtée.',
    interrupted: 'La réponse a été interrompue.',
    later: 'Une réponse tardive de l’IA est arrivée.',
  },
};

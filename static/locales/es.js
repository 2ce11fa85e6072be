// The Spanish texts.

const number = (value) => value.toLocaleString('es');
const count = (value, singular, plural) => `${number(value)} ${value === 1 ? singular : plural}`;
const aged = (age) => (age ? ` · de hace ${age}` : '');

export default {
  lang: 'es',
  dir: 'ltr',

  demo: 'Demostración: proveedores simulados',
  status: 'Página de estado',
  health: { normal: 'Funciona', degraded: 'Limitado', outage: 'Sin IA', unreachable: 'Sin conexión', offline: 'Sin internet' },
  exportConversation: 'Exportar la conversación',
  newConversation: 'Nueva conversación',
  greeting: '¡Hola! ¿En qué puedo ayudar?',
  suggestions: [
    '¿En qué puedes ayudarme?',
    'Explica con palabras sencillas cómo funciona internet',
    'Dame tres ideas para un fin de semana tranquilo',
  ],

  transcript: 'Conversación',
  you: 'Tú',
  answer: 'Respuesta',
  laterAnswer: 'Respuesta posterior',
  waiting: 'Esperando la respuesta',
  earlier: 'Cargar mensajes anteriores',
  loading: 'Cargando…',
  jump: '↓ Ir al final',
  ages: {
    underAMinute: 'menos de un minuto',
    minutes: (value) => count(value, 'minuto', 'minutos'),
    hours: (value) => count(value, 'hora', 'horas'),
    days: (value) => count(value, 'día', 'días'),
  },
  copy: 'Copiar',
  copyCode: 'Copiar el código',
  copied: 'Copiado',
  retry: 'Reintentar',
  up: 'Buena respuesta',
  down: 'Mala respuesta',

  answeredBy: (provider, failed) => `Respondido por ${provider}${failed.length ? ` · ${failed.join(', ')} no disponible` : ''}`,
  switching: (from, to) => (from && from !== to ? `… ${from} ha fallado, se pregunta a ${to}` : '… nuevo intento'),
  draft: (provider, words) => `Borrador interrumpido de ${provider} · ${count(words, 'palabra', 'palabras')}`,
  later: (provider, time) => `Respuesta posterior de la IA · ${provider}${time && ` · ${time}`}`,
  askedAgain: 'Preguntado de nuevo',
  endings: {
    stopped: 'Detenida',
    interrupted: 'Interrumpida',
    length: 'Cortada en el límite de longitud',
    content_filter: 'Rechazada por la IA',
  },
  sources: {
    cache: (age) => `Respuesta guardada${aged(age)}`,
    stale_cache: (age) => `Respuesta guardada${aged(age)} · IA no disponible`,
    template: () => 'Respuesta preparada · IA no disponible',
    extractive: () => 'Citado de un texto · IA no disponible',
    fallback: () => 'Respuesta automática · IA no disponible',
  },

  placeholder: 'Escribe un mensaje',
  send: 'Enviar',
  stop: 'Detener la respuesta',
  outage: 'En este momento no se puede contactar con ninguna IA. Recibirás una respuesta preparada.',
  tooLong: (length, maxChars) => `${number(length)} de ${number(maxChars)} caracteres`,
  waitingToSend: 'En espera de envío',
  waitingForAnswer: 'En espera de que termine la respuesta',
  edit: 'Editar',
  discard: 'Descartar',
  tryAgain: 'Reintentar',
  errors: {
    message_too_long: (maxChars) => `No enviado: supera los ${count(maxChars, 'carácter', 'caracteres')}. Acórtalo y envíalo de nuevo.`,
    rate_limited: (seconds) => `Demasiados mensajes a la vez. Se enviará automáticamente en ${count(seconds, 'segundo', 'segundos')}.`,
    busy: (seconds) => `El servicio está ocupado. Se enviará automáticamente en ${count(seconds, 'segundo', 'segundos')}.`,
    shutting_down: () => 'El servicio se está reiniciando. Tu mensaje se enviará automáticamente.',
    unauthorized: () => 'Ya no tienes acceso a esta conversación.',
    signed_out: () => 'Ya no has iniciado sesión. Vuelve a iniciarla para continuar.',
    forbidden_origin: () => 'Este chat no está disponible en este sitio.',
    not_found: () => 'Esa respuesta ya no está disponible y no se puede repetir.',
    bad_request: () => 'No enviado: el servicio no pudo leer el mensaje.',
    internal: () => 'No enviado: algo falló en el servidor.',
  },

  banner: {
    offline: ['Sin internet', 'Tus mensajes se guardan y se envían cuando vuelvas a tener internet.'],
    unreachable: ['Sin conexión', 'Tus mensajes se guardan y se envían cuando vuelva la conexión.'],
    outage: ['IA no disponible', 'Sigues recibiendo respuestas guardadas y preparadas.'],
    degraded: ['Servicio limitado', 'Las respuestas vienen de un modelo de reserva.'],
    normal: ['Todo en orden', 'Las respuestas vienen de la IA como siempre.'],
  },
  details: 'Detalles',
  dismiss: 'Cerrar',
  retryNow: 'Reintentar ahora',
  nextTry: (seconds) => (seconds > 0 ? `Próximo intento en ${seconds} s` : 'Conectando…'),
  connected: 'Conectado',

  spoken: {
    writing: 'Se está escribiendo la respuesta.',
    done: 'La respuesta está completa.',
    stopped: 'La respuesta se ha detenido.',
    interrupted: 'La respuesta se ha interrumpido.',
    later: 'Ha llegado una respuesta posterior de la IA.',
  },
};

// The Arabic texts, written from right to left. Nouns have forms for one, two, few (3 to 10), many (11 to 99) and other numbers.

const rules = new Intl.PluralRules('ar');
const number = (value) => value.toLocaleString('ar');
const count = (value, { one, two, few, many, other }) => {
  const form = rules.select(value);
  if (form === 'one') return one;
  if (form === 'two') return two;
  return `${number(value)} ${form === 'few' ? few : form === 'many' ? many : other}`;
};
const minute = { one: 'دقيقة واحدة', two: 'دقيقتين', few: 'دقائق', many: 'دقيقة', other: 'دقيقة' };
const hour = { one: 'ساعة واحدة', two: 'ساعتين', few: 'ساعات', many: 'ساعة', other: 'ساعة' };
const day = { one: 'يوم واحد', two: 'يومين', few: 'أيام', many: 'يومًا', other: 'يوم' };
const second = { one: 'ثانية واحدة', two: 'ثانيتين', few: 'ثوانٍ', many: 'ثانية', other: 'ثانية' };
const word = { one: 'كلمة واحدة', two: 'كلمتان', few: 'كلمات', many: 'كلمة', other: 'كلمة' };
const character = { one: 'حرف واحد', two: 'حرفين', few: 'أحرف', many: 'حرفًا', other: 'حرف' };
const aged = (age) => (age ? ` · منذ ${age}` : '');

export default {
  lang: 'ar',
  dir: 'rtl',

  demo: 'عرض تجريبي: مزوّدون مُحاكَون',
  status: 'صفحة الحالة',
  health: { normal: 'تعمل', degraded: 'خدمة محدودة', outage: 'لا ذكاء اصطناعي', unreachable: 'غير متصل', offline: 'دون إنترنت' },
  exportConversation: 'تصدير المحادثة',
  newConversation: 'محادثة جديدة',
  greeting: 'مرحبًا! كيف يمكنني مساعدتك؟',
  suggestions: ['بماذا يمكنك مساعدتي؟', 'اشرح بكلمات بسيطة كيف يعمل الإنترنت', 'أعطني ثلاث أفكار لعطلة أسبوع هادئة'],

  transcript: 'المحادثة',
  you: 'أنت',
  answer: 'الإجابة',
  laterAnswer: 'إجابة لاحقة',
  waiting: 'في انتظار الإجابة',
  earlier: 'تحميل الرسائل السابقة',
  loading: 'جارٍ التحميل…',
  jump: '↓ إلى الأحدث',
  ages: {
    underAMinute: 'أقل من دقيقة',
    minutes: (value) => count(value, minute),
    hours: (value) => count(value, hour),
    days: (value) => count(value, day),
  },
  copy: 'نسخ',
  copyCode: 'نسخ الشيفرة',
  copied: 'تم النسخ',
  retry: 'إعادة المحاولة',
  up: 'إجابة جيدة',
  down: 'إجابة سيئة',

  answeredBy: (provider, failed) => `أجاب ${provider}${failed.length ? ` · ${failed.join('، ')} غير متاح` : ''}`,
  switching: (from, to) => (from && from !== to ? `… تعطّل ${from}، ويُسأل ${to}` : '… محاولة جديدة'),
  draft: (provider, words) => `مسودة منقطعة من ${provider} · ${count(words, word)}`,
  later: (provider, time) => `إجابة لاحقة من الذكاء الاصطناعي · ${provider}${time && ` · ${time}`}`,
  askedAgain: 'سُئل مرة أخرى',
  endings: {
    stopped: 'أُوقفت',
    interrupted: 'انقطعت',
    length: 'قُطعت عند حد الطول',
    content_filter: 'رفضها الذكاء الاصطناعي',
  },
  sources: {
    cache: (age) => `إجابة محفوظة${aged(age)}`,
    stale_cache: (age) => `إجابة محفوظة${aged(age)} · الذكاء الاصطناعي غير متاح`,
    template: () => 'رد مُعدّ مسبقًا · الذكاء الاصطناعي غير متاح',
    extractive: () => 'مقتبس من نص · الذكاء الاصطناعي غير متاح',
    fallback: () => 'رد آلي · الذكاء الاصطناعي غير متاح',
  },

  placeholder: 'اكتب رسالة',
  send: 'إرسال',
  stop: 'إيقاف الإجابة',
  outage: 'لا يمكن الوصول إلى أي ذكاء اصطناعي الآن. ستحصل على رد مُعدّ مسبقًا.',
  tooLong: (length, maxChars) => `${number(length)} من ${number(maxChars)} حرف`,
  waitingToSend: 'في انتظار الإرسال',
  waitingForAnswer: 'في انتظار انتهاء الإجابة الحالية',
  edit: 'تعديل',
  discard: 'حذف',
  tryAgain: 'إعادة المحاولة',
  errors: {
    message_too_long: (maxChars) => `لم تُرسل: أطول من ${count(maxChars, character)}. اختصرها وأرسلها من جديد.`,
    rate_limited: (seconds) => `رسائل كثيرة دفعة واحدة. ستُرسل تلقائيًا بعد ${count(seconds, second)}.`,
    busy: (seconds) => `الخدمة مشغولة. ستُرسل تلقائيًا بعد ${count(seconds, second)}.`,
    shutting_down: () => 'الخدمة تُعيد التشغيل. ستُرسل رسالتك تلقائيًا.',
    unauthorized: () => 'لم يعد بإمكانك الوصول إلى هذه المحادثة.',
    signed_out: () => 'لم تعد مسجّل الدخول. سجّل الدخول من جديد للمتابعة.',
    forbidden_origin: () => 'هذه المحادثة غير متاحة على هذا الموقع.',
    not_found: () => 'لم تعد هذه الإجابة متاحة ولا يمكن طلبها من جديد.',
    bad_request: () => 'لم تُرسل: تعذّر على الخدمة قراءة الرسالة.',
    internal: () => 'لم تُرسل: حدث خطأ في الخادم.',
  },

  banner: {
    offline: ['أنت دون اتصال', 'رسائلك تُحفظ وتُرسل عند عودة الإنترنت.'],
    unreachable: ['غير متصل', 'رسائلك تُحفظ وتُرسل عند عودة الاتصال.'],
    outage: ['الذكاء الاصطناعي غير متاح', 'ما زلت تحصل على ردود محفوظة ومُعدّة.'],
    degraded: ['خدمة محدودة', 'الإجابات تأتي من نموذج احتياطي.'],
    normal: ['عادت الأمور إلى طبيعتها', 'الإجابات تأتي من الذكاء الاصطناعي كالمعتاد.'],
  },
  details: 'التفاصيل',
  dismiss: 'إغلاق',
  retryNow: 'حاول الآن',
  nextTry: (seconds) => (seconds > 0 ? `المحاولة التالية بعد ${number(seconds)} ث` : 'جارٍ الاتصال…'),
  connected: 'متصل',

  spoken: {
    writing: 'الإجابة قيد الكتابة.',
    done: 'اكتملت الإجابة.',
    stopped: 'أُوقفت الإجابة.',
    interrupted: 'انقطعت الإجابة.',
    later: 'وصلت إجابة لاحقة من الذكاء الاصطناعي.',
  },
};

//! What a message asks for, where that is not information: the key points of a text that it carries, or some other work.
//!
//! Pure. A small set of rules for English, German, Spanish and French, made to rather miss a request than to see one where none is.

use std::sync::LazyLock;

use regex::Regex;

use super::summary::sentences::sentences;

/// What a message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// The key points of a text that stands in the message.
    Summary {
        /// The message without that text.
        wish: &'a str,
        /// The text.
        text: &'a str,
    },
    /// Work that only a model can do: to write, to translate.
    Work,
    /// Anything else.
    Question,
}

/// The longest wish beside a text, in bytes.
const WISH: usize = 240;

/// A text to sum up is at least so long, in characters, or has so many sentences; with less, there is nothing to sum up.
const CHARS: usize = 200;
const SENTENCES: usize = 3;

/// What may stand before the wish itself.
const COURTESY: &str = r"(?xi) ^\W* (?: (?: hi|hello|hey|hallo|guten\stag|hola|buenos\sd[ií]as|bonjour|salut|please|kindly|bitte
    |por\sfavor|s['’]il\s(?:te|vous)\spla[iî]t|ok(?:ay)?|(?:can|could|would|will)\syou|i(?:\swould|['’]d)?\s(?:want|need|like)\syou\sto
    |help\sme(?:\sto)?|just|quickly|briefly|i\s(?:want|need)|kannst\sdu|k[oö]nn(?:t?en\ssie|test\sdu)|w[uü]rden\ssie|mir|kurz
    |puedes?|podr[ií]as?|me|brevemente|necesito|peux-tu|tu\speux|pouvez-vous|pourr(?:iez-vous|ais-tu)|bri[eè]vement ) [\s,!.:]+ )* ";

/// Verbs that say it all; or a noun after a verb that asks for it, or with nothing after it but what it is of.
const SUMMARY: &str = r"(?: summari[sz]e\b | sum\b.{0,60}\bup\b | condense\b | tl;?\s?dr\b
    | fass(?:e|t|en\ssie)?\b.{0,100}\bzusammen\b | (?:\S+\s){0,8}zusammen(?:zu)?fassen\b
    | resum(?:ir|en|irme|eme|ame|elo|irlo)\b | resum[ea]\s(?:est|el\b|la\b|l[oa]s\b|lo\b|en\b|brevemente|por\sfavor)
    | r[eé]sum(?:er|ez|e)(?:[\s-]moi)?\b
    | (?:give|write|make|create|provide|produce|show|what(?:['’]s|\sis|\sare)
      |gib|gebt|geben\ssie|schreibe?|schreiben\ssie|erstelle|erstellen\ssie|mache?|machen\ssie|was\s(?:ist|sind)
      |haz|hazme|haga|hacer|hacerme|dame|deme|darme|escribe|escriba|cu[aá]les\sson
      |fais|faites|faire|donne|donnez|donner|[eé]cris|[eé]crivez|r[eé]dige|r[eé]digez|quels\ssont)(?:[\s-](?:me|moi|us|mir|uns))?\s NOUN
    | NOUN (?: \W*$ | \W*(?:of|please|for|von|vom|des|dieses|bitte|de|del|por|du)\b ) )";

const NOUN: &str = r"(?:an?\s|the\s|eine\s|die\s|un\s|el\s|los\s|une\s|le\s|les\s)? (?:\w+\s){0,2} (?: summary | gist
    | (?:key|main)\s(?:points?|ideas?|takeaways?|sentences) | zusammenfassung | kernaussagen | hauptpunkte
    | wichtigsten\s(?:punkte|aussagen|s[aä]tze) | resumen | puntos\s(?:clave|principales)
    | r[eé]sum[eé] | synth[eè]se | points\s(?:cl[eé]s|essentiels|principaux) )\b";

const WORK: &str = r"(?: (?:write|draft|compose|translate|generate|rewrite|rephrase|paraphrase|proofread|calculate|invent|imagine
    |brainstorm|implement|debug)\b | fix\s(?:the|this|my)\s(?:bug|code)\b | plan\s(?:an?|my)\b | tell\sme\san?\s(?:joke|story)\b
    | (?:schreib|[uü]bersetz|verfass|formulier|berechn|erfind)\w*\b
    | (?:escrib[ea]|redact[ae]|traduc[ei]\w*|calcul[ae]|invent[ae])\b
    | (?:[eé]cri(?:s|vez)|r[eé]dige[rz]?|tradui(?:s|sez|re)|calcule[rz]?|invente[rz]?|racontez?)\b )";

/// What points at a text: without it, a wish in the midst of a paragraph may be about anything.
const POINTING: &str = r"(?i)\b(?: this|that|these|it|following|above|below|text|article|e-?mail|message|passage|paragraph|document|report
    |notes|transcript|story|letter|dies\w*|folgend\w*|obig\w*|textes?|artikels?|est[eao]s?|siguientes?|anterior|texto|art[ií]culo|correo
    |cet?|cette|ces|suivante?|ci-dessus|ci-dessous|texte|ceci|cela)\b";

struct Rules {
    summary: Regex,
    work: Regex,
    pointing: Regex,
    /// What is meant is not in the message.
    elsewhere: Regex,
    cut: Regex,
}

static RULES: LazyLock<Result<Rules, regex::Error>> = LazyLock::new(|| {
    Ok(Rules {
        summary: Regex::new(&format!("{COURTESY}{}", SUMMARY.replace("NOUN", NOUN)))?,
        work: Regex::new(&format!("{COURTESY}{WORK}"))?,
        pointing: Regex::new(&POINTING.replace("(?i)", "(?xi)"))?,
        elsewhere: Regex::new(r"(?i)\byour\b(?: own)?|\b(?:eure|ihre)[nrs]?\b|\bvos\b|\bvotre\b")?,
        cut: Regex::new(r"[:\n]|[.!?]+[\s]")?,
    })
});

/// Reads a message.
pub fn read(message: &str) -> Request<'_> {
    // That the rules compile is a test's business; without them, everything is a question.
    let Ok(rules) = &*RULES else {
        return Request::Question;
    };
    let message = message.trim();
    if let Some((wish, text)) = rules.before(message).or_else(|| rules.after(message)) {
        return Request::Summary { wish, text };
    }
    let head = message
        .get(..message.floor_char_boundary(WISH))
        .unwrap_or_default();
    if rules.work.is_match(head) {
        Request::Work
    } else {
        Request::Question
    }
}

impl Rules {
    /// The wish, then the text.
    fn before<'a>(&self, message: &'a str) -> Option<(&'a str, &'a str)> {
        let head = message.get(..message.floor_char_boundary(WISH))?;
        self.cut.find_iter(head).find_map(|cut| {
            let (wish, text) = message.split_at(cut.end());
            let apart = cut.as_str().contains([':', '\n']);
            self.both(wish, text, apart)
                .then_some((wish.trim(), text.trim()))
        })
    }

    /// The text, then the wish.
    fn after<'a>(&self, message: &'a str) -> Option<(&'a str, &'a str)> {
        let start = message.ceil_char_boundary(message.len().saturating_sub(WISH));
        let tail = message.get(start..)?;
        self.cut.find_iter(tail).find_map(|cut| {
            let (text, wish) = message.split_at(start + cut.end());
            let apart = cut.as_str().contains('\n');
            self.both(wish, text, apart)
                .then_some((wish.trim(), text.trim()))
        })
    }

    fn both(&self, wish: &str, text: &str, apart: bool) -> bool {
        let elsewhere = self
            .elsewhere
            .find_iter(wish)
            .any(|found| !found.as_str().ends_with("own"));
        self.summary.is_match(wish)
            && !elsewhere
            && (apart || self.pointing.is_match(wish))
            && (text.trim().chars().nth(CHARS - 1).is_some()
                || sentences(text).nth(SENTENCES - 1).is_some())
    }
}

#[cfg(test)]
mod labelled;

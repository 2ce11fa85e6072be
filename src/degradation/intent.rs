//! Detects what a message asks for: the key points of a text in it, other generative work, or
//! information.
//!
//! Pure. A small set of patterns for English, German, Spanish and French, tuned to miss a request
//! rather than to see one that is not there.

use std::sync::LazyLock;

use regex::Regex;

use super::summary::sentences::sentences;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent<'a> {
    /// The key points of a text in the message.
    Summarize {
        /// The message without that text.
        instruction: &'a str,
        text: &'a str,
    },
    /// Work that needs a model, such as writing or translating.
    Generate,
    Question,
}

/// The longest instruction beside a text, in bytes.
const MAX_INSTRUCTION_BYTES: usize = 240;

/// A text to summarise has at least so many characters, or at least so many sentences.
const MIN_TEXT_CHARS: usize = 200;
const MIN_TEXT_SENTENCES: usize = 3;

/// Polite words before the instruction.
const COURTESY_PREFIX: &str = r"(?xi) ^\W* (?: (?: hi|hello|hey|hallo|guten\stag|hola|buenos\sd[ií]as|bonjour|salut|please|kindly|bitte
    |por\sfavor|s['’]il\s(?:te|vous)\spla[iî]t|ok(?:ay)?|(?:can|could|would|will)\syou|i(?:\swould|['’]d)?\s(?:want|need|like)\syou\sto
    |help\sme(?:\sto)?|just|quickly|briefly|i\s(?:want|need)|kannst\sdu|k[oö]nn(?:t?en\ssie|test\sdu)|w[uü]rden\ssie|mir|kurz
    |puedes?|podr[ií]as?|me|brevemente|necesito|peux-tu|tu\speux|pouvez-vous|pourr(?:iez-vous|ais-tu)|bri[eè]vement ) [\s,!.:]+ )* ";

/// A verb that suffices alone; or a noun after a verb that asks for it, or at the end of the
/// instruction or before "of" and the like.
const SUMMARY_PATTERN: &str = r"(?: summari[sz]e\b | sum\b.{0,60}\bup\b | condense\b | tl;?\s?dr\b
    | fass(?:e|t|en\ssie)?\b.{0,100}\bzusammen\b | (?:\S+\s){0,8}zusammen(?:zu)?fassen\b
    | resum(?:ir|en|irme|eme|ame|elo|irlo)\b | resum[ea]\s(?:est|el\b|la\b|l[oa]s\b|lo\b|en\b|brevemente|por\sfavor)
    | r[eé]sum(?:er|ez|e)(?:[\s-]moi)?\b
    | (?:give|write|make|create|provide|produce|show|what(?:['’]s|\sis|\sare)
      |gib|gebt|geben\ssie|schreibe?|schreiben\ssie|erstelle|erstellen\ssie|mache?|machen\ssie|was\s(?:ist|sind)
      |haz|hazme|haga|hacer|hacerme|dame|deme|darme|escribe|escriba|cu[aá]les\sson
      |fais|faites|faire|donne|donnez|donner|[eé]cris|[eé]crivez|r[eé]dige|r[eé]digez|quels\ssont)(?:[\s-](?:me|moi|us|mir|uns))?\s NOUN
    | NOUN (?: \W*$ | \W*(?:of|please|for|von|vom|des|dieses|bitte|de|del|por|du)\b ) )";

const SUMMARY_NOUN: &str = r"(?:an?\s|the\s|eine\s|die\s|un\s|el\s|los\s|une\s|le\s|les\s)? (?:\w+\s){0,2} (?: summary | gist
    | (?:key|main)\s(?:points?|ideas?|takeaways?|sentences) | zusammenfassung | kernaussagen | hauptpunkte
    | wichtigsten\s(?:punkte|aussagen|s[aä]tze) | resumen | puntos\s(?:clave|principales)
    | r[eé]sum[eé] | synth[eè]se | points\s(?:cl[eé]s|essentiels|principaux) )\b";

const GENERATE_PATTERN: &str = r"(?: (?:write|draft|compose|translate|generate|rewrite|rephrase|paraphrase|proofread|calculate|invent|imagine
    |brainstorm|implement|debug)\b | fix\s(?:the|this|my)\s(?:bug|code)\b | plan\s(?:an?|my)\b | tell\sme\san?\s(?:joke|story)\b
    | (?:schreib|[uü]bersetz|verfass|formulier|berechn|erfind)\w*\b
    | (?:escrib[ea]|redact[ae]|traduc[ei]\w*|calcul[ae]|invent[ae])\b
    | (?:[eé]cri(?:s|vez)|r[eé]dige[rz]?|tradui(?:s|sez|re)|calcule[rz]?|invente[rz]?|racontez?)\b )";

/// Words that refer to a text. Without one, an instruction in running text may be about anything.
const REFERENCE_WORDS: &str = r"(?i)\b(?: this|that|these|it|following|above|below|text|article|e-?mail|message|passage|paragraph|document|report
    |notes|transcript|story|letter|dies\w*|folgend\w*|obig\w*|textes?|artikels?|est[eao]s?|siguientes?|anterior|texto|art[ií]culo|correo
    |cet?|cette|ces|suivante?|ci-dessus|ci-dessous|texte|ceci|cela)\b";

struct IntentPatterns {
    summary: Regex,
    generate: Regex,
    reference: Regex,
    /// Matches references to something that is not in the message.
    elsewhere: Regex,
    boundary: Regex,
}

static INTENT_PATTERNS: LazyLock<Result<IntentPatterns, regex::Error>> = LazyLock::new(|| {
    Ok(IntentPatterns {
        summary: Regex::new(&format!(
            "{COURTESY_PREFIX}{}",
            SUMMARY_PATTERN.replace("NOUN", SUMMARY_NOUN)
        ))?,
        generate: Regex::new(&format!("{COURTESY_PREFIX}{GENERATE_PATTERN}"))?,
        reference: Regex::new(&REFERENCE_WORDS.replace("(?i)", "(?xi)"))?,
        elsewhere: Regex::new(r"(?i)\byour\b(?: own)?|\b(?:eure|ihre)[nrs]?\b|\bvos\b|\bvotre\b")?,
        boundary: Regex::new(r"[:\n]|[.!?]+[\s]")?,
    })
});

/// Detects the intent of a message.
pub fn detect_intent(message: &str) -> Intent<'_> {
    // A test ensures that the patterns compile. Without them, everything is a question.
    let Ok(patterns) = &*INTENT_PATTERNS else {
        return Intent::Question;
    };
    let message = message.trim();
    if let Some((instruction, text)) = patterns
        .instruction_first(message)
        .or_else(|| patterns.instruction_last(message))
    {
        return Intent::Summarize { instruction, text };
    }
    let head = message
        .get(..message.floor_char_boundary(MAX_INSTRUCTION_BYTES))
        .unwrap_or_default();
    if patterns.generate.is_match(head) {
        Intent::Generate
    } else {
        Intent::Question
    }
}

impl IntentPatterns {
    /// Splits a message into instruction and following text.
    fn instruction_first<'a>(&self, message: &'a str) -> Option<(&'a str, &'a str)> {
        let head = message.get(..message.floor_char_boundary(MAX_INSTRUCTION_BYTES))?;
        self.boundary.find_iter(head).find_map(|cut| {
            let (instruction, text) = message.split_at(cut.end());
            let is_separate = cut.as_str().contains([':', '\n']);
            self.is_summary_request(instruction, text, is_separate)
                .then_some((instruction.trim(), text.trim()))
        })
    }

    /// Splits a message into instruction and preceding text, and returns the instruction first.
    fn instruction_last<'a>(&self, message: &'a str) -> Option<(&'a str, &'a str)> {
        let start = message.ceil_char_boundary(message.len().saturating_sub(MAX_INSTRUCTION_BYTES));
        let tail = message.get(start..)?;
        self.boundary.find_iter(tail).find_map(|cut| {
            let (text, instruction) = message.split_at(start + cut.end());
            let is_separate = cut.as_str().contains('\n');
            self.is_summary_request(instruction, text, is_separate)
                .then_some((instruction.trim(), text.trim()))
        })
    }

    /// `is_separate`: a colon or a line break stands between instruction and text.
    fn is_summary_request(&self, instruction: &str, text: &str, is_separate: bool) -> bool {
        let refers_elsewhere = self
            .elsewhere
            .find_iter(instruction)
            // "in your own words" does not refer to something of ours.
            .any(|found| !found.as_str().ends_with("own"));
        self.summary.is_match(instruction)
            && !refers_elsewhere
            && (is_separate || self.reference.is_match(instruction))
            && (text.trim().chars().nth(MIN_TEXT_CHARS - 1).is_some()
                || sentences(text).nth(MIN_TEXT_SENTENCES - 1).is_some())
    }
}

#[cfg(test)]
mod labelled;

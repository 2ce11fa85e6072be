//! Extracts content words: folded, without stop words, reduced to their stems.
//!
//! Pure. A folder may mix languages and a short question does not reveal its own, so all languages
//! are treated alike: accents are dropped, the commonest endings of English, German, Spanish and
//! French are removed, and stop words of any of them are skipped. Scripts without spaces are split
//! into pairs of characters. Compounds are not split, and `oe` does not match `ö`.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::LazyLock;

/// Stop words: articles, pronouns, the verbs around a question, courtesies. English, German,
/// Spanish, French; lower case, without accents. Apart from the shortest, a stop
/// word of one language that carries meaning in another is left out.
const STOP_WORDS: [&str; 4] = [
    "a about after again all also am an and any anyone anything are as at be because been before being but by can \
     could did do does doing don done each either else even ever every few for find found from get gets getting give go going got had has \
     have having hello help her here hey hi him his hm how however i if im in into is isn it its just kindly know \
     let like long ll may me might mine more most much must my need needs no nor not now of off ok okay on once one only \
     or other our out over please question re really s say same see shall she should so some someone something soon still such \
     sure t tell than thank thanks that the their them then there these they thing things this those through to too under \
     until up us use used using ve very want was we were what when where whether which while who whom whose why will \
     with without wondering would yes yet you your yours able explain happen happens work works way long often anybody \
     difference mean means information info many currently possible actually",
    "aber alle allem allen aller alles als also am an ander andere auch auf aus bei beim bin bis bist bitte brauche \
     da dabei damit danach danke dann darf das dass dem den denn der des dich die dies diese diesem diesen dieser dieses dir \
     doch dort du durch ein eine einem einen einer eines er erklaren es etwas euch euer finde finden fur gab geht gibt guten habe haben \
     hallo hat hatte hier hin ich ihm ihn ihnen ihr ihre ihrem ihren ihrer im in ins ist ja jede jeder jedes jetzt kann \
     kannst kein keine keinen konnen konnte konnten lange machen mal man mehr mein meine meinem meinen meiner mich mir mit mochte muss \
     musst mussen nach nicht nichts noch nun nur ob oder oft ohne sagen schon sehr sein seine sich sie sind so soll \
     sollte tag tun uber um und uns unser unsere unter viel viele vom von vor wann war waren warum was weil welche welchem \
     welchen welcher welches wenn wer werde werden wie wieder wieviel will wir wird wo wofur woher wohin wurde wurden zu zum zur",
    "a al algo alguien algun alguna ante antes aqui asi aun aunque buenas buenos cada como con cual cuales cuando cuanto cuanta \
     cuantos cuantas de debo decir decirme del desde donde dos e encontrar encuentro encuentra el ella ellas ellos en entre era eres es esa ese eso esta estan \
     estar estas este esto estos estoy favor fue gracias ha hacer hago han has hasta hay he hola la las le les lo los mas me \
     mi mis mucho muy nada ni no nos nosotros nuestra nuestro o os otra otro para pero poder podria por porque puede pueden \
     puedo que quien quiero quisiera saber se ser si sin sobre son soy su sus tambien tan tanto te tengo tiene tienen todo todos \
     tu tus un una unas uno unos usted ustedes y ya yo necesito hace",
    "a ai alors au aucun aussi autre aux avant avec avez avoir avons beaucoup bien bonjour c ca ce cela celle celui ces cet \
     cette chez combien comme comment d dans de des dire dois doit donc dont du elle elles en encore entre est et etait etes etre \
     eu faire fait faut fois font il ils j je jusque l la le les leur leurs lui m ma mais me meme merci mes moi moins mon n \
     ne ni non nos notre nous on ont ou oui par pas pendant peu peut peux plait plus pour pouvez pourquoi pourrais \
     pouvoir puis qu quand que quel quelle quelles quels qui quoi sa salut sans se sera ses si sont sous suis sur \
     ta tes toi ton tous tout toute toutes tres trouve trouver tu un une va vais vers veux voudrais votre vos vous y",
];

static STOP_WORD_SETS: LazyLock<[HashSet<&str>; 4]> =
    LazyLock::new(|| STOP_WORDS.map(|words| words.split_whitespace().collect()));

/// The content words of a text, in order, with repetitions.
pub fn content_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for word in split_words(text) {
        if word.starts_with(is_unspaced_script) {
            push_bigrams(word, &mut words);
            continue;
        }
        let folded = fold_accents(word);
        let is_short =
            folded.chars().count() < 2 && folded.bytes().all(|byte| byte.is_ascii_alphabetic());
        if !is_short && !STOP_WORD_SETS.iter().any(|set| set.contains(&*folded)) {
            words.push(stem(folded));
        }
    }
    words
}

/// A language that is recognised by its stop words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    English,
    German,
    Spanish,
    French,
}

/// The language with the most stop words in a text. `None` on a tie and if there are none.
pub fn detect_language(text: &str) -> Option<Language> {
    use Language::{English, French, German, Spanish};
    let mut counts = [English, German, Spanish, French].map(|language| (0, language));
    for word in split_words(text).map(fold_accents) {
        for ((count, _), set) in counts.iter_mut().zip(&*STOP_WORD_SETS) {
            *count += usize::from(set.contains(&*word));
        }
    }
    counts.sort_by_key(|(count, _)| Reverse(*count));
    let [(most, language), (second, _), ..] = counts;
    (most > second).then_some(language)
}

/// Splits a text into runs of letters, digits and marks, and where a run changes between scripts
/// with and without spaces.
fn split_words(text: &str) -> impl Iterator<Item = &str> {
    let runs = text
        .split(|c: char| !c.is_alphanumeric() && !is_combining_mark(c))
        .filter(|run| !run.is_empty());
    runs.flat_map(|run| {
        let mut rest = run;
        std::iter::from_fn(move || {
            let kind = is_unspaced_script(rest.chars().next()?);
            let end = rest
                .find(|c| is_unspaced_script(c) != kind)
                .unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = after;
            Some(word)
        })
    })
}

/// Combining marks, which follow the letter that they belong to.
fn is_combining_mark(c: char) -> bool {
    ('\u{300}'..='\u{36f}').contains(&c)
}

/// Thai, Kana, Han and Hangul: no spaces between words, or words of many parts.
fn is_unspaced_script(c: char) -> bool {
    matches!(c, '\u{e00}'..='\u{eff}' | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// Adds the overlapping pairs of characters, or a single character as it is.
fn push_bigrams(word: &str, words: &mut Vec<String>) {
    let chars: Vec<char> = word.chars().collect();
    if chars.len() == 1 {
        words.push(word.to_owned());
    }
    words.extend(chars.windows(2).map(|pair| pair.iter().collect::<String>()));
}

/// Lower case, without the accents of Latin letters, whether precomposed or combining.
pub(super) fn fold_accents(word: &str) -> String {
    let mut folded = String::with_capacity(word.len());
    for c in word
        .chars()
        .flat_map(char::to_lowercase)
        .filter(|c| !is_combining_mark(*c))
    {
        match unaccented(c) {
            Some(plain) => folded.push_str(plain),
            None => folded.push(c),
        }
    }
    folded
}

fn unaccented(c: char) -> Option<&'static str> {
    Some(match c {
        'à'..='å' | 'ā' | 'ă' | 'ą' => "a",
        'æ' => "ae",
        'ç' | 'ć' | 'ĉ' | 'ċ' | 'č' => "c",
        'ď' | 'đ' | 'ð' => "d",
        'è'..='ë' | 'ē' | 'ĕ' | 'ė' | 'ę' | 'ě' => "e",
        'ĝ' | 'ğ' | 'ġ' | 'ģ' => "g",
        'ì'..='ï' | 'ĩ' | 'ī' | 'ĭ' | 'į' | 'ı' => "i",
        'ĺ' | 'ļ' | 'ľ' | 'ŀ' | 'ł' => "l",
        'ñ' | 'ń' | 'ņ' | 'ň' => "n",
        'ò'..='ö' | 'ø' | 'ō' | 'ŏ' | 'ő' => "o",
        'œ' => "oe",
        'ŕ' | 'ŗ' | 'ř' => "r",
        'ś' | 'ŝ' | 'ş' | 'š' | 'ș' => "s",
        'ß' => "ss",
        'ţ' | 'ť' | 'ŧ' | 'ț' => "t",
        'ù'..='ü' | 'ũ' | 'ū' | 'ŭ' | 'ů' | 'ű' | 'ų' => "u",
        'ý' | 'ÿ' => "y",
        'ź' | 'ż' | 'ž' => "z",
        _ => return None,
    })
}

/// Endings that express number, case, gender or tense. Longer ones precede their own suffixes.
const ENDINGS: [&str; 33] = [
    "aciones", "ations", "ungen", "ement", "acion", "ation", "mente", "iendo", "ando", "ings",
    "ment", "ung", "ing", "ers", "ern", "ies", "ado", "ada", "ed", "en", "em", "er", "es", "os",
    "as", "ar", "ir", "ez", "e", "o", "a", "y", "s",
];

/// The minimum length of a stem, one less after `SAFE_ENDINGS`, which are rarely part of a stem.
const MIN_STEM_LEN: usize = 4;
const SAFE_ENDINGS: [&str; 3] = ["s", "ing", "ment"];

/// The most endings that are removed from a word.
const MAX_ENDINGS: usize = 3;

/// A light stemmer, which only removes endings, in the manner of Savoy, "Light stemming approaches
/// for the French, Portuguese, German and Hungarian languages" (2006), but for four languages.
fn stem(mut word: String) -> String {
    if !word.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return word;
    }
    for _ in 0..MAX_ENDINGS {
        let mut endings = ENDINGS.iter().filter(|ending| word.ends_with(**ending));
        let leaves_a_stem = |ending: &&&str| {
            let is_safe = SAFE_ENDINGS.contains(*ending);
            word.len() + usize::from(is_safe) >= ending.len() + MIN_STEM_LEN
        };
        let Some(ending) = endings.find(leaves_a_stem) else {
            break;
        };
        word.truncate(word.len() - ending.len());
    }
    let mut last = word.bytes().rev();
    // A doubled consonant before the ending: shipp(ing), cancell(ed).
    if word.len() > MIN_STEM_LEN && last.next() == last.next() {
        word.pop();
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inflected_forms_have_the_same_stem() {
        for forms in [
            "refund refunds refunded refunding",
            "ship ships shipped shipping shipment shipments",
            "delivery deliveries delivered delivers",
            "cancel cancels cancelled canceled cancellation cancelling",
            "day days",
            "Lieferung Lieferungen liefern",
            "Rechnung Rechnungen",
            "Öffnung öffnen",
            "devolución devoluciones DEVOLUCION",
            "envío enviado enviada enviar",
            "remboursement remboursements rembourser remboursé",
            "livraison livraisons",
            "pay payment payments paying",
            "Straße STRASSE",
            "cafe\u{301} café cafés",
        ] {
            let words = content_words(forms);
            assert!(
                words.iter().all(|word| Some(word) == words.first()),
                "{words:?}"
            );
        }
    }

    #[test]
    fn different_words_have_different_stems() {
        for (left, right) in [
            ("order", "ordinary"),
            ("shop", "ship"),
            ("card", "care"),
            ("day", "dairy"),
        ] {
            assert_ne!(content_words(left), content_words(right));
        }
    }

    #[test]
    fn stop_words_are_skipped() {
        for text in [
            "What is it, please?",
            "Können Sie mir das bitte sagen?",
            "¿Cuándo y dónde está?",
            "Qu'est-ce que c'est ?",
            " \n!",
        ] {
            assert_eq!(content_words(text), [""; 0], "{text}");
        }
        assert_eq!(
            content_words("Is the X200 in stock in 2024?"),
            ["x200", "stock", "2024"]
        );
    }

    #[test]
    fn language_is_detected_by_stop_words() {
        for (text, expected) in [
            ("How long is the warranty?", Some(Language::English)),
            ("Wie lange habe ich Garantie?", Some(Language::German)),
            ("¿Cuánto dura la garantía?", Some(Language::Spanish)),
            (
                "Quelle est la durée de la garantie ?",
                Some(Language::French),
            ),
            ("Garantie", None),
            ("", None),
        ] {
            assert_eq!(detect_language(text), expected, "{text}");
        }
    }

    #[test]
    fn scripts_without_spaces_are_split_into_pairs() {
        assert_eq!(content_words("返品はX1"), ["返品", "品は", "x1"]);
        assert_eq!(content_words("茶"), ["茶"]);
        assert_eq!(content_words("Оплата заказа"), ["оплата", "заказа"]);
    }
}

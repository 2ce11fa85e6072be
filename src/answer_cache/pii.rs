//! Detection of personal data by its form, without understanding the text. Pure.
//!
//! It prefers false alarms to misses: what it detects is not shared with other visitors, which
//! costs a call to a provider; what it misses could be shared. Both rates are measured on the
//! labelled sentences of its tests.

use std::sync::LazyLock;

use regex::Regex;

use super::key::nfkc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PiiKind {
    Email,
    /// A link with a query, which often carries an identity or a key.
    Link,
    /// A card number: 13 to 19 digits whose check digit is right (ISO/IEC 7812-1, the Luhn
    /// formula).
    Card,
    /// A bank account: an IBAN whose check digits are right (ISO 13616).
    Iban,
    /// A phone number, or an IP address with as many digits.
    Phone,
    /// A run of at least seven digits, such as the number of a customer, an order or a document.
    LongNumber,
    /// A long run of letters and digits, such as a key, a token or an identifier.
    Token,
    /// A statement of the speaker's name.
    Name,
}

const EMAIL: &str =
    r"(?i)[\w.+-]+\s?(?:@|[(\[]at[)\]])\s?[\w-]+\s?(?:\.|[(\[](?:dot|punkt)[)\]])\s?\w";
const LINK: &str = r"(?i)\b(?:[a-z][a-z0-9+.-]*://|www\.)[^\s?]+\?[^\s?]";
const CARD: &str = r"\d(?:[ -]?\d){12,}";
const IBAN: &str = r"(?i)\b[a-z]{2}\d{2}(?: ?[a-z0-9]){11,30}";
const PHONE: &str = r"[+(]{0,2}\d[\d\s()./-]{4,}\d";
const LOCAL_PHONE: &str = r"\b\d{3}[-.]\d{4}\b";
const LONG_NUMBER: &str = r"\d{7}";
const TOKEN: &str = r"[A-Za-z0-9_-]{20,}";

/// "My name is" in many languages, as far as the form alone shows it.
const NAME: &str = concat!(
    r"(?i)\b(?:my (?:full |last |first )?name(?:'s| is)|i am called|i'm called|call me|mein name ist|ich hei(?:ß|ss)e|ich bin (?:der|die) ",
    r"|je m['’]appelle|mon nom est|me llamo|mi nombre es|mi chiamo|il mio nome è|(?:o )?meu nome é|(?:eu )?me chamo|chamo-me",
    r"|mijn naam is|ik heet|jag heter|mitt namn är|jeg heter|mit navn er|mitt navn er|jeg hedder|nimeni on|minun nimeni",
    r"|nazywam się|mam na imię|jmenuji se|volám sa|a nevem|hívnak|mă numesc|numele meu|benim adım|adım|με λένε|ονομάζομαι",
    r"|меня зовут|моё имя|мое имя|мене звати|казвам се|tên tôi là|tôi tên là|nama saya|jina langu)\b",
    r"|我叫|我的名字|我姓|私の名前は|名前は|と申します|제 이름은|저는 .{1,20}입니다|ชื่อของฉัน|ผมชื่อ|ฉันชื่อ|मेरा नाम|আমার নাম|اسمي|نام من|שמי",
);

/// A kind, its pattern, and a check of what the pattern matches.
type PiiForm = (PiiKind, &'static str, fn(&str) -> bool);

/// The forms of personal data. The first match counts.
const FORMS: [PiiForm; 9] = [
    (PiiKind::Email, EMAIL, any),
    (PiiKind::Link, LINK, any),
    (PiiKind::Iban, IBAN, has_iban),
    (PiiKind::Card, CARD, has_card),
    (PiiKind::Token, TOKEN, looks_like_secret),
    (PiiKind::Phone, PHONE, is_phone),
    (PiiKind::Phone, LOCAL_PHONE, any),
    (PiiKind::LongNumber, LONG_NUMBER, any),
    (PiiKind::Name, NAME, any),
];

/// Compiled on first use. A test checks that each compiles.
static PATTERNS: LazyLock<[Result<Regex, regex::Error>; 9]> =
    LazyLock::new(|| FORMS.map(|(_, pattern, _)| Regex::new(pattern)));

/// Returns the first kind of personal data found in a text. Takes time linear in its length.
pub fn detect(text: &str) -> Option<PiiKind> {
    // NFKC turns wide digits and the wide at-sign into the plain ones.
    let text = &nfkc(text);
    let mut forms = FORMS.into_iter().zip(&*PATTERNS);
    let found = forms.find(|((_, _, is_valid), pattern)| {
        let mut matches = pattern.iter().flat_map(|regex| regex.find_iter(text));
        matches.any(|found| is_valid(found.as_str()))
    });
    found.map(|((kind, ..), _)| kind)
}

fn any(_: &str) -> bool {
    true
}

fn digits(text: &str) -> Vec<u32> {
    text.chars().filter_map(|c| c.to_digit(10)).collect()
}

/// Returns `true` if a part of this run of digits is a valid card number.
fn has_card(found: &str) -> bool {
    let digits = digits(found);
    (13..=19).any(|length| digits.windows(length).any(passes_luhn_check))
}

/// Checks the last digit by the Luhn formula.
fn passes_luhn_check(digits: &[u32]) -> bool {
    let doubled = |(n, digit): (usize, &u32)| match (n % 2, digit * 2) {
        (0, _) => *digit,
        (_, twice) if twice > 9 => twice - 9,
        (_, twice) => twice,
    };
    digits.iter().rev().enumerate().map(doubled).sum::<u32>() % 10 == 0
}

/// Returns `true` if the text starts with a valid IBAN. The match may extend beyond its end.
fn has_iban(found: &str) -> bool {
    let plain: Vec<char> = found.chars().filter(|c| *c != ' ').collect();
    (15..=34)
        .filter_map(|length| plain.get(..length))
        .any(has_valid_iban_checksum)
}

/// Checks the digits of an IBAN: with its first four characters moved to the end and letters read
/// as 10 to 35, the number modulo 97 is 1.
fn has_valid_iban_checksum(plain: &[char]) -> bool {
    let (head, tail) = plain.split_at(plain.len().min(4));
    let rest = tail.iter().chain(head).try_fold(0, |rest: u32, c| {
        let value = c.to_digit(36)?;
        Some((rest * if value > 9 { 100 } else { 10 } + value) % 97)
    });
    rest == Some(1)
}

/// Returns `true` if a run of digits and separators is as long as a phone number and not a date.
fn is_phone(found: &str) -> bool {
    let digits = digits(found).len();
    let is_international =
        found.trim_start_matches('(').starts_with('+') || found.starts_with("00");
    let min_digits = if is_international { 7 } else { 9 };
    (min_digits..=17).contains(&digits) && !is_date(found)
}

/// Returns `true` for a date such as `2026-01-31` or `31.01.2026`, optionally followed by an hour.
fn is_date(found: &str) -> bool {
    static DATE: LazyLock<Result<Regex, regex::Error>> = LazyLock::new(|| {
        Regex::new(
            r"^(?:\d{4}([-./])\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{4})(?:\s+\d{1,2})?$",
        )
    });
    DATE.as_ref().is_ok_and(|date| date.is_match(found))
}

/// Returns `true` if a long run has both letters and digits, which long words and rules have not.
fn looks_like_secret(found: &str) -> bool {
    let digits = found.bytes().filter(u8::is_ascii_digit).count();
    digits >= 3 && found.bytes().any(|byte| byte.is_ascii_alphabetic())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

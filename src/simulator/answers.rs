//! The text of simulated answers: chosen by words of the question, in the style of the provider.
//! Pure, and the same for the same question.
//!
//! Every answer says first that it is simulated. The styles have no words in common there, so that
//! a reader sees where another provider starts anew.

use super::chat_request::{PartialAnswer, SimulatedRequest};
use super::themes::{STYLE_COUNT, all_themes, find_theme};

/// The number of characters of a partial answer that are repeated when it is continued, as the
/// router's request asks for.
const REPEATED_CHARS: usize = 40;

const MAX_TOPIC_WORDS: usize = 4;

const MAX_TOPIC_WORD_CHARS: usize = 24;

/// Words that say nothing about the subject of a question.
const STOP_WORDS: &str = " a about am an and are as at be but by can could did do does explain for from give have how i in is \
    it its list long me my of on or please say should show so some story tell than that the their them then there these \
    they this to us was we were what when where which who whom why will with would write you your ";

/// Returns the answer to a request, in the style of provider `voice`.
pub(super) fn answer_request(chat: &SimulatedRequest, voice: &str) -> String {
    match &chat.partial_answer {
        Some(begun) => continue_answer(begun, &chat.question, voice),
        None => complete_answer(&chat.question, chat.previous_question.as_deref(), voice),
    }
}

/// Returns a complete answer to `question`, in Markdown: about 600 words if it asks for a long
/// text, else about 100. It mentions `earlier`, the question before.
pub(super) fn complete_answer(question: &str, earlier: Option<&str>, voice: &str) -> String {
    let style = style(voice);
    let mut text = opener(style).replace("{voice}", voice);
    if let Some(earlier) = earlier {
        text.push(' ');
        text.push_str(&previous_question_note(style).replace("{topic}", &topic(earlier)));
    }
    text.push_str("\n\n");
    text.push_str(&body(question, style));
    text
}

/// Continues an answer that broke off at another provider. A simulator cannot finish its sentence,
/// so the text says which provider takes over and then answers.
fn continue_answer(begun: &PartialAnswer, question: &str, voice: &str) -> String {
    let mut text = String::new();
    if begun.repeat_end {
        let skipped = begun.text.chars().count().saturating_sub(REPEATED_CHARS);
        text.extend(begun.text.chars().skip(skipped));
    }
    if begun.text.matches("```").count() % 2 == 1 {
        text.push_str("\n```\n");
    }
    text.push_str(" …\n\n");
    text.push_str(&format!(
        "*(It broke off there; this is a simulated answer from {voice}, which goes on.)*\n\n"
    ));
    text.push_str(&body(question, style(voice)));
    text
}

fn body(question: &str, style: usize) -> String {
    let words: Vec<String> = plain_words(question).map(str::to_lowercase).collect();
    let topic = topic(question);
    let own_theme = find_theme(&words);
    let own_text = own_theme.text(style).replace("{topic}", &topic);
    let wants_long_text = words.iter().any(|word| {
        matches!(
            word.as_str(),
            "long" | "longer" | "essay" | "detailed" | "600"
        )
    });
    if !wants_long_text {
        return own_text;
    }
    // A long answer is all texts in this style, the matching theme first.
    let rest = all_themes()
        .filter(|theme| !std::ptr::eq(*theme, own_theme))
        .map(|theme| theme.text(style).replace("{topic}", &topic));
    std::iter::once(own_text)
        .chain(rest)
        .enumerate()
        .map(|(index, text)| format!("## Part {}\n\n{text}", index + 1))
        .collect::<Vec<_>>()
        .join("\n\n")
}

/// Returns the style of a provider, by its first letter: names with consecutive letters differ.
fn style(voice: &str) -> usize {
    voice
        .bytes()
        .next()
        .map_or(0, |first| usize::from(first.wrapping_sub(b'a')))
        % STYLE_COUNT
}

fn opener(style: usize) -> &'static str {
    match style {
        0 => {
            "Hello from {voice}! This is a simulated answer from {voice}, put together by a few rules and not by a model."
        }
        1 => {
            "**{voice} replies.** Please note: this is a simulated answer from {voice}, and no AI was asked for it."
        }
        _ => {
            "Right, {voice} speaking. Fair warning: this is a simulated answer from {voice}, made up on this very machine."
        }
    }
}

fn previous_question_note(style: usize) -> &'static str {
    match style {
        0 => "Before this you asked about {topic}, which I have kept in mind.",
        1 => "Your previous question concerned {topic}; this one is taken to follow from it.",
        _ => "A moment ago we were on {topic}, I have not forgotten.",
    }
}

/// Returns the first meaningful words of a question, without punctuation so that they contain no
/// Markdown.
fn topic(question: &str) -> String {
    let words: Vec<String> = plain_words(question)
        .filter(|word| !STOP_WORDS.contains(&format!(" {} ", word.to_lowercase())))
        .take(MAX_TOPIC_WORDS)
        .map(|word| word.chars().take(MAX_TOPIC_WORD_CHARS).collect())
        .collect();
    match words.split_last() {
        None => "your question".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

fn plain_words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
}

/// Splits a text into words, each with the white space before it. Joined they are the text again.
pub(super) fn split_words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let start = rest
            .find(|c: char| !c.is_whitespace())
            .unwrap_or(rest.len());
        let (space, tail) = rest.split_at(start);
        let end = space.len() + tail.find(char::is_whitespace).unwrap_or(tail.len());
        let (word, after) = rest.split_at(end);
        words.push(word);
        rest = after;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOICES: [&str; 3] = ["aurora", "borealis", "cascade"];

    #[test]
    fn joined_words_are_the_text() {
        for text in [
            "",
            " ",
            "one",
            " one  two\n\n```rust\n    let é = 1;\n```\n",
            "ends \n",
        ] {
            assert_eq!(split_words(text).concat(), text);
        }
        assert_eq!(split_words("one  two\n"), ["one", "  two", "\n"]);
    }

    #[test]
    fn each_voice_says_it_is_simulated_in_its_own_words() {
        for question in [
            "Hello!",
            "Tell me a story about 1000 ships",
            "???",
            "wie geht's dir heute",
        ] {
            let answers =
                VOICES.map(|voice| complete_answer(question, Some("What does it cost?"), voice));
            for (voice, text) in VOICES.iter().zip(&answers) {
                let first = text.split("\n\n").next().unwrap_or_default();
                assert!(
                    first.contains(&format!("simulated answer from {voice}")),
                    "{first}"
                );
                assert!(first.contains("cost"), "{first}");
                assert!((75..170).contains(&split_words(text).len()), "{text}");
                assert!(!text.contains('{') || text.contains("```"), "{text}");
            }
            let firsts = answers.each_ref().map(|text| text.split(' ').next());
            assert!(firsts[0] != firsts[1] && firsts[1] != firsts[2] && firsts[0] != firsts[2]);
        }
    }

    #[test]
    fn question_words_select_the_theme() {
        let table = [
            ("Hi there", "loopback"),
            ("hello, what does it cost?", "Starter"),
            ("What are your opening hours?", "Saturdays"),
            ("Show me some Rust code", "```rust"),
            ("Give me a list of things to pack", "1. **"),
            ("Tell me a story", "lighthouses"),
            ("How does a circuit breaker work?", "*half-open*"),
            (
                "Where do penguins sleep in winter?",
                "penguins, sleep and winter",
            ),
            ("*_[x](http://evil)_*", "x, http and evil"),
        ];
        for (question, mark) in table {
            assert!(
                complete_answer(question, None, "aurora").contains(mark),
                "{question}"
            );
        }
    }

    #[test]
    fn long_answer_is_long() {
        for voice in VOICES {
            let length = split_words(&complete_answer(
                "Write a long text about the sea",
                None,
                voice,
            ))
            .len();
            assert!((550..1000).contains(&length), "{length}");
        }
    }

    #[test]
    fn continuation_repeats_the_end_and_names_the_provider() {
        let text = "Ä first sentence that is longer than what gets repeated ```rust fn";
        let begun = PartialAnswer {
            text: text.to_owned(),
            repeat_end: true,
        };
        let rest = continue_answer(&begun, "What does it cost?", "borealis");
        let end: String = text
            .chars()
            .skip(text.chars().count() - REPEATED_CHARS)
            .collect();
        assert!(rest.starts_with(&format!("{end}\n```\n")), "{rest}");
        let prefilled = continue_answer(
            &PartialAnswer {
                text: "Half an".to_owned(),
                repeat_end: false,
            },
            "cost",
            "cascade",
        );
        assert!(
            prefilled.starts_with(" …\n\n*(It broke off there"),
            "{prefilled}"
        );
    }
}

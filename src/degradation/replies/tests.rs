//! Matching, and the problems of invalid files.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn parse(file: &str) -> Replies {
    Replies::parse("replies.toml", file).unwrap()
}

/// A single reply with these conditions and the text "yes".
fn single_reply(conditions: &str) -> Replies {
    parse(&format!("[[reply]]\n{conditions}\ntext = 'yes'"))
}

fn problems(file: &str) -> Vec<String> {
    let problems = Replies::parse("r.toml", file).unwrap_err();
    problems.0.iter().map(ToString::to_string).collect()
}

#[test]
fn words_match_as_a_whole_and_ignoring_case() {
    for (words, question, found) in [
        ("'price'", "What is the price?", true),
        ("'price'", "PRICE", true),
        ("'Price'", "the *price*, please", true),
        ("'price'", "my _price_", true),
        ("'price'", "it is priceless", false),
        ("'price'", "a caprice", false),
        ("'price'", "price2", false),
        ("'price', 'cost'", "What does it cost", true),
        ("'opening hours'", "Opening-hours?", true),
        ("'opening hours'", "opening   \n hours", true),
        ("'opening hours'", "hours of opening", false),
        ("'opening hours'", "the opening", false),
        ("'e-mail'", "your E mail", true),
        ("'24/7'", "open 24 / 7?", true),
        ("'24/7'", "24", false),
        ("'straße'", "in der STRASSE", true),
        ("'ΟΔΟΣ'", "η οδος μου", true),
        ("'цена'", "Какая ЦЕНА?", true),
        ("'हिन्दी'", "क्या हिन्दी में", true),
        ("'cafe'", "cafe\u{301}", false),
        ("'don'", "don\u{2019}t", true),
        ("'price'", "", false),
        ("'a b c d e f g h'", "x a b c d e f g h", true),
    ] {
        let answer = single_reply(&format!("match = [{words}]"))
            .find(question)
            .is_some();
        assert_eq!(answer, found, "{words} in {question:?}");
    }
}

#[test]
fn pattern_matches_anywhere() {
    let replies = single_reply("pattern = '(?i)opening\\s+hours'");
    assert!(replies.find("your OPENING  hours?").is_some());
    assert!(replies.find("hours").is_none());
}

#[test]
fn reply_with_words_and_pattern_matches_by_either() {
    let replies = single_reply("match = ['cost']\npattern = '\\d+ dollars'");
    assert!(replies.find("the cost").is_some() && replies.find("5 dollars").is_some());
    assert!(replies.find("dollars").is_none());
}

#[test]
fn first_matching_reply_wins_whatever_its_kind() {
    let replies = parse(
        "[[reply]]\nmatch = ['a']\ntext = '1'\n[[reply]]\npattern = 'b'\ntext = '2'\n\
         [[reply]]\nmatch = ['a', 'b', 'c']\ntext = '3'\n[[reply]]\npattern = 'c'\ntext = '4'\n",
    );
    for (question, text) in [("c b a", "1"), ("c b", "2"), ("c", "3"), ("xcx", "4")] {
        assert_eq!(
            replies.find(question).map(|text| &**text),
            Some(text),
            "{question}"
        );
    }
    assert_eq!((replies.texts.len(), replies.find("d")), (4, None));
}

#[test]
fn only_the_beginning_of_a_question_is_examined() {
    let replies = single_reply("match = ['price']");
    let price_at = |bytes: usize| format!("{} price", "é ".repeat(bytes / 3));
    assert!(replies.find(&price_at(MAX_QUESTION_BYTES - 100)).is_some());
    assert!(replies.find(&price_at(MAX_QUESTION_BYTES + 100)).is_none());
}

#[test]
fn texts_are_trimmed() {
    let replies =
        parse("fallback = ' later '\n[[reply]]\nmatch = ['a']\ntext = \"\"\"\n two\nlines\n\"\"\"");
    assert_eq!(replies.find("a").map(|text| &**text), Some("two\nlines"));
    assert_eq!(replies.fallback.as_deref(), Some("later"));
    assert!(parse("").texts.is_empty() && parse("").fallback.is_none());
}

#[test]
fn all_problems_are_reported_with_their_lines() {
    let file = "fallbak = 'x'\n\
        [[reply]]\nmatch = []\n\
        [[reply]]\npattern = '(a'\ntext = 5\nlang = 'de'\n\
        [[reply]]\ntext = ' '\n\
        [[reply]]\nmatch = ['c', '?!', 7, 'a b c d e f g h i']\npattern = 'x*'\ntext = 'fine'\n\
        [[reply]]\nmatch = 5\npattern = '\\w{1,5000}'\ntext = 'fine'\n";
    let expected = [
        (1, "fallbak: no such key; did you mean fallback?"),
        (2, "reply[0].text: missing"),
        (3, "reply[0].match: an empty list"),
        (5, "reply[1].pattern: no regular expression: unclosed group"),
        (
            6,
            "reply[1].text: an integer where text in quotes is needed",
        ),
        (
            7,
            "reply[1].lang: no such key; here may stand match, pattern or text",
        ),
        (8, "reply[2].match: missing; list the words"),
        (9, "reply[2].text: empty"),
        (11, "reply[3].match[1]: no letter and no digit"),
        (11, "reply[3].match[2]: an integer where text"),
        (11, "reply[3].match[3]: 9 words; it may have at most 8"),
        (12, "reply[3].pattern: matches every question"),
        (
            15,
            "reply[4].match: an integer where text in quotes is needed",
        ),
        (16, "reply[4].pattern: more than 524288 bytes when compiled"),
    ];
    let found = problems(file);
    for ((line, what), problem) in expected.iter().zip(&found) {
        assert!(
            problem.starts_with(&format!("r.toml:{line}: {what}")),
            "{line} {what}: {problem}"
        );
        assert!(!problem.contains('\n'), "{problem}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn wrong_structure_is_reported() {
    for (file, what) in [
        (
            "[reply]\nmatch = ['a']",
            "r.toml:1: reply: a single table; write [[reply]]",
        ),
        (
            "reply = [1]",
            "r.toml:1: reply[0]: an integer where a table is needed",
        ),
        (
            "\nfallback = 1",
            "r.toml:2: fallback: an integer where text in quotes is needed",
        ),
        ("\nfallback = ''", "r.toml:2: fallback: empty"),
        ("fallback = ", "r.toml:1: not TOML at column 12"),
        (
            "[[reply]]\nmatch = ['a']\ntext = 'b'\nfallback = 'c'",
            "r.toml:4: reply[0].fallback: no such key",
        ),
    ] {
        let found = problems(file);
        assert!(
            matches!(&*found, [problem] if problem.starts_with(what)),
            "{file}: {found:?}"
        );
    }
}

#[test]
fn sizes_are_bounded() {
    let file_with = |n| "[[reply]]\nmatch = ['a']\ntext = 'b'\n".repeat(n);
    assert_eq!(parse(&file_with(1_000)).texts.len(), 1_000);
    assert_eq!(
        problems(&file_with(1_001)),
        ["r.toml:1: reply: 1001 of them; at most 1000 may stand here"]
    );
    let file_with_text = |n| format!("[[reply]]\nmatch = ['a']\ntext = '{}'", "x".repeat(n));
    assert_eq!(parse(&file_with_text(16 * 1024)).texts.len(), 1);
    assert_eq!(
        problems(&file_with_text(16 * 1024 + 1)),
        ["r.toml:3: reply[0].text: 16385 bytes; a text may have at most 16384"]
    );
    let entries = format!("[[reply]]\nmatch = [{}]\ntext = 'b'", "'a',".repeat(101));
    assert_eq!(
        problems(&entries),
        ["r.toml:2: reply[0].match: 101 entries; at most 100 may stand here"]
    );
}

#[test]
fn built_in_replies_parse_and_answer_common_questions() {
    let replies = Replies::parse("templates/replies.toml", BUILT_IN_FILE).unwrap();
    assert_eq!(replies.texts.len(), Replies::built_in().texts.len());
    assert_eq!(replies.fallback, None);
    for (question, expected) in [
        ("Hi!", Some("Hello!")),
        ("Good morning, everyone", Some("Hello!")),
        ("Hello, what does it cost?", Some("prices")),
        ("What are your opening hours?", Some("opening hours")),
        ("When do you open on Sundays?", Some("opening hours")),
        ("How can I contact you?", Some("get in touch")),
        ("I want to talk to a human", Some("hand this chat over")),
        ("agent please", Some("hand this chat over")),
        ("Where is my order?", Some("orders or deliveries")),
        ("I want a refund", Some("careful answer")),
        ("I forgot my password", Some("never send a password")),
        ("Are you a robot?", Some("automatic answer")),
        ("Are you still down?", Some("prepared answer")),
        ("Thanks a lot!", Some("welcome!")),
        ("bye", Some("Goodbye")),
        ("Tell me of human history", None),
        ("Hello world in Rust?", None),
        ("Write a poem", None),
        ("?", None),
    ] {
        let answer = replies.find(question);
        match expected {
            Some(expected) => assert!(
                answer.is_some_and(|text| text.contains(expected)),
                "{question}: {answer:?}"
            ),
            None => assert_eq!(answer, None, "{question}"),
        }
    }
}

#[test]
fn normalization_is_idempotent() {
    // Scripts with case end before this code point.
    for c in '\0'..='\u{2FFFF}' {
        for word in [format!("{c}"), format!("a{c}b")] {
            let (once, positions) = normalize(&word);
            assert_eq!(normalize(&once), (once.clone(), positions), "{word}");
        }
    }
    assert!(parse("[[reply]]\nmatch = ['STRAẞE']\ntext = 'yes'").self_test());
}

proptest! {
    #[test]
    fn no_file_and_no_question_causes_a_panic(file in "(\\[\\[reply\\]\\]|match|pattern|text| = |'|\"|\\[|\\]|\n|,|é|.){0,40}", question in any::<String>()) {
        match Replies::parse("r.toml", &file) {
            Ok(replies) => if let Some(text) = replies.find(&question) {
                prop_assert!(!text.trim().is_empty());
            },
            Err(problems) => {
                prop_assert!(!problems.0.is_empty());
                let lines = file.matches('\n').count() + 1;
                for problem in problems.0 {
                    prop_assert!(problem.line.is_some_and(|line| (1..=lines).contains(&line)), "{problem}");
                    prop_assert!(!problem.to_string().contains('\n'));
                }
            }
        }
    }

    #[test]
    fn word_is_found_anywhere_in_a_question(before in any::<String>(), word in "\\w{1,20}", after in any::<String>()) {
        let (_, positions) = normalize(&word);
        prop_assume!(positions.len() == 1);
        let replies = parse(&format!("[[reply]]\nmatch = ['{word}']\ntext = 'yes'"));
        let question = format!("{before} {word} {after}");
        prop_assume!(question.len() <= MAX_QUESTION_BYTES);
        prop_assert!(replies.find(&question).is_some());
    }
}

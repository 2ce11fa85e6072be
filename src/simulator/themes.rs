//! What a simulator can talk about: the words that call for a theme, and its text in three manners. Pure.

/// How many manners of speaking there are.
pub(super) const MANNERS: usize = 3;

/// A subject.
#[derive(Debug)]
pub(super) struct Theme {
    /// Any of these words in a question, in lower case, calls for it.
    words: &'static [&'static str],
    /// Markdown, one text a manner, parted by lines of `---`; `{topic}` stands for what the question is about.
    texts: &'static str,
}

impl Theme {
    /// Its text in the given manner.
    pub fn text(&self, manner: usize) -> &'static str {
        self.texts
            .split("\n---\n")
            .nth(manner % MANNERS)
            .unwrap_or_default()
            .trim()
    }
}

/// The special subjects, in the order in which they are looked for: a question about the code of a price list is
/// about code.
const SPECIAL: [Theme; 7] = [
    Theme {
        words: &["failsoft", "breaker", "breakers", "failover"],
        texts: include_str!("themes/breaker.md"),
    },
    Theme {
        words: &[
            "code",
            "function",
            "program",
            "rust",
            "python",
            "javascript",
            "script",
            "programming",
        ],
        texts: include_str!("themes/code.md"),
    },
    Theme {
        words: &[
            "list",
            "lists",
            "bullet",
            "bullets",
            "steps",
            "tips",
            "ideas",
            "checklist",
        ],
        texts: include_str!("themes/list.md"),
    },
    Theme {
        words: &["story", "stories", "tale", "poem"],
        texts: include_str!("themes/story.md"),
    },
    Theme {
        words: &[
            "price",
            "prices",
            "pricing",
            "cost",
            "costs",
            "plan",
            "plans",
            "fee",
            "fees",
            "expensive",
            "cheap",
        ],
        texts: include_str!("themes/pricing.md"),
    },
    Theme {
        words: &["hours", "open", "opening", "closed", "closing", "schedule"],
        texts: include_str!("themes/hours.md"),
    },
    Theme {
        words: &[
            "hello",
            "hi",
            "hey",
            "greetings",
            "morning",
            "evening",
            "welcome",
        ],
        texts: include_str!("themes/greeting.md"),
    },
];

/// For everything else.
const GENERAL: Theme = Theme {
    words: &[],
    texts: include_str!("themes/general.md"),
};

/// The theme for a question of these words, in lower case.
pub(super) fn theme(words: &[String]) -> &'static Theme {
    SPECIAL
        .iter()
        .find(|theme| {
            words
                .iter()
                .any(|word| theme.words.contains(&word.as_str()))
        })
        .unwrap_or(&GENERAL)
}

/// Every theme, the general one first.
pub(super) fn all() -> impl Iterator<Item = &'static Theme> {
    std::iter::once(&GENERAL).chain(&SPECIAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_theme_has_a_text_of_good_length_for_every_manner() {
        for theme in all() {
            let texts: Vec<_> = theme.texts.split("\n---\n").collect();
            assert_eq!(texts.len(), MANNERS, "{:?}", theme.words);
            for text in texts {
                let words = text.split_whitespace().count();
                assert!((60..=125).contains(&words), "{words} words: {text}");
                assert_eq!(text.matches("```").count() % 2, 0, "open fence: {text}");
            }
        }
    }
}

//! The subjects a simulator can talk about: keywords, and a text in each of three styles. Pure.

pub(super) const MANNERS: usize = 3;

#[derive(Debug)]
pub(super) struct Theme {
    words: &'static [&'static str],
    /// Markdown, one text for each style, separated by lines of `---`. `{topic}` is replaced by the
    /// subject of the question.
    texts: &'static str,
}

impl Theme {
    pub fn text(&self, style: usize) -> &'static str {
        self.texts
            .split("\n---\n")
            .nth(style % MANNERS)
            .unwrap_or_default()
            .trim()
    }
}

/// The special themes, in order of precedence: a question about the code of a price list is about
/// code.
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

const GENERAL: Theme = Theme {
    words: &[],
    texts: include_str!("themes/general.md"),
};

/// Returns the first theme with one of these words, which must be in lower case.
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

pub(super) fn all() -> impl Iterator<Item = &'static Theme> {
    std::iter::once(&GENERAL).chain(&SPECIAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_theme_has_a_text_of_suitable_length_for_every_style() {
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

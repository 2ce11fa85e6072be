//! The subjects a simulator can talk about: keywords, and a text in each of three styles. Pure.

pub(super) const STYLE_COUNT: usize = 3;

#[derive(Debug)]
pub(super) struct Theme {
    keywords: &'static [&'static str],
    /// Markdown, one text for each style, separated by lines of `---`. `{topic}` is replaced by the
    /// subject of the question.
    texts: &'static str,
}

impl Theme {
    pub fn text(&self, style: usize) -> &'static str {
        self.texts
            .split("\n---\n")
            .nth(style % STYLE_COUNT)
            .unwrap_or_default()
            .trim()
    }
}

/// The special themes, in order of precedence: a question about the code of a price list is about
/// code.
const SPECIAL_THEMES: [Theme; 7] = [
    Theme {
        keywords: &["failsoft", "breaker", "breakers", "failover"],
        texts: include_str!("themes/breaker.md"),
    },
    Theme {
        keywords: &[
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
        keywords: &[
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
        keywords: &["story", "stories", "tale", "poem"],
        texts: include_str!("themes/story.md"),
    },
    Theme {
        keywords: &[
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
        keywords: &["hours", "open", "opening", "closed", "closing", "schedule"],
        texts: include_str!("themes/hours.md"),
    },
    Theme {
        keywords: &[
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

const GENERAL_THEME: Theme = Theme {
    keywords: &[],
    texts: include_str!("themes/general.md"),
};

/// Returns the first theme with one of these words, which must be in lower case.
pub(super) fn find_theme(words: &[String]) -> &'static Theme {
    SPECIAL_THEMES
        .iter()
        .find(|theme| {
            words
                .iter()
                .any(|word| theme.keywords.contains(&word.as_str()))
        })
        .unwrap_or(&GENERAL_THEME)
}

pub(super) fn all_themes() -> impl Iterator<Item = &'static Theme> {
    std::iter::once(&GENERAL_THEME).chain(&SPECIAL_THEMES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_theme_has_a_text_of_suitable_length_for_every_style() {
        for theme in all_themes() {
            let texts: Vec<_> = theme.texts.split("\n---\n").collect();
            assert_eq!(texts.len(), STYLE_COUNT, "{:?}", theme.keywords);
            for text in texts {
                let words = text.split_whitespace().count();
                assert!((60..=125).contains(&words), "{words} words: {text}");
                assert_eq!(text.matches("```").count() % 2, 0, "open fence: {text}");
            }
        }
    }
}

//! Splits a document into passages: pieces that make sense on their own, with their headings.
//!
//! Pure. A passage is one paragraph, or several short ones of a section. Code fences are not split
//! unless they are too long. Front matter is dropped, except for the title.

use std::sync::Arc;

/// A paragraph joins the previous passage if both together are no longer than this, in bytes.
const MAX_JOINED_BYTES: usize = 600;

/// The longest passage, in bytes. A longer paragraph is split after a sentence, else after a word,
/// else anywhere.
pub const MAX_PASSAGE_BYTES: usize = 1200;

const MAX_TITLE_BYTES: usize = 200;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// The headings above it, outermost first; else the document's title, else the file's stem.
    pub title: Arc<str>,
    /// The document's file, relative to the knowledge folder.
    pub file: Arc<str>,
    /// Not blank, and at most `MAX_PASSAGE_BYTES` bytes.
    pub text: Box<str>,
}

/// Returns the passages of a document in order. A `file` that ends in `.md` is parsed as Markdown.
pub fn split_passages(file: &str, text: &str) -> Vec<Passage> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (front, body) = front_matter(text);
    let name = file.rsplit('/').next().unwrap_or(file);
    let (stem, ending) = name.rsplit_once('.').unwrap_or((name, ""));
    let mut cutter = PassageSplitter {
        file: file.into(),
        default_title: front.unwrap_or_else(|| stem.to_owned()),
        is_markdown: ending.eq_ignore_ascii_case("md"),
        headings: Vec::new(),
        paragraph: String::new(),
        passage: String::new(),
        passages: Vec::new(),
    };
    cutter.read_lines(body);
    cutter.passages
}

/// Splits off a block between `---` or `+++` lines at the start. Returns its title and the rest.
fn front_matter(text: &str) -> (Option<String>, &str) {
    let Some((first, rest)) = text.split_once('\n') else {
        return (None, text);
    };
    let mark = first.trim_end();
    if mark != "---" && mark != "+++" {
        return (None, text);
    }
    let mut title = None;
    let mut read = 0;
    for line in rest.split_inclusive('\n') {
        read += line.len();
        if line.trim_end() == mark {
            return (title, rest.get(read..).unwrap_or_default());
        }
        if let Some((key, value)) = line.split_once([':', '=']) {
            let value = value.trim().trim_matches(['"', '\'']);
            if key.trim() == "title" && !value.is_empty() {
                title = Some(value.to_owned());
            }
        }
    }
    // Never closed: a separator, not front matter.
    (None, text)
}

struct PassageSplitter {
    file: Arc<str>,
    default_title: String,
    is_markdown: bool,
    /// Level and text, outermost first.
    headings: Vec<(usize, String)>,
    paragraph: String,
    /// The paragraphs of the next passage.
    passage: String,
    passages: Vec<Passage>,
}

impl PassageSplitter {
    fn read_lines(&mut self, body: &str) {
        let mut fence: Option<&str> = None;
        for line in body.lines() {
            let trimmed = line.trim();
            if let Some(mark) = fence {
                self.push_line(line);
                if trimmed.starts_with(mark) && trimmed.trim_start_matches(mark).is_empty() {
                    fence = None;
                    self.end_paragraph();
                }
            } else if self.is_markdown && (trimmed.starts_with("```") || trimmed.starts_with("~~~"))
            {
                fence = trimmed.get(..3);
                self.push_line(line);
            } else if trimmed.is_empty() || (self.paragraph.is_empty() && is_separator(trimmed)) {
                self.end_paragraph();
            } else if let Some((level, heading)) = self.parse_heading(trimmed) {
                self.end_passage();
                self.headings.retain(|(above, _)| *above < level);
                self.headings.push((level, heading));
            } else {
                self.push_line(line);
            }
        }
        self.end_passage();
    }

    fn push_line(&mut self, line: &str) {
        self.paragraph.push_str(line.trim_end());
        self.paragraph.push('\n');
    }

    /// Parses a `# …` heading, or makes the single line before a `===` or `---` line a heading.
    fn parse_heading(&mut self, line: &str) -> Option<(usize, String)> {
        if !self.is_markdown {
            return None;
        }
        let rest = line.trim_start_matches('#');
        let level = line.len() - rest.len();
        if (1..=6).contains(&level) && (rest.is_empty() || rest.starts_with([' ', '\t'])) {
            let heading = rest.trim().trim_end_matches('#').trim();
            return Some((level, heading.to_owned()));
        }
        let before = self.paragraph.trim();
        if line.len() < 3 || before.is_empty() || before.contains('\n') {
            return None;
        }
        let level = match line.trim_start_matches(['=', '-']) {
            "" if line.bytes().all(|byte| byte == b'=') => 1,
            "" if line.bytes().all(|byte| byte == b'-') => 2,
            _ => return None,
        };
        let heading = before.to_owned();
        self.paragraph.clear();
        Some((level, heading))
    }

    /// Adds the paragraph to the passage, or starts a new passage with it.
    fn end_paragraph(&mut self) {
        let block = std::mem::take(&mut self.paragraph);
        let mut rest = block.trim_matches(['\n', '\r']).trim_end();
        if rest.trim().is_empty() {
            return;
        }
        if !self.passage.is_empty() && self.passage.len() + rest.len() > MAX_JOINED_BYTES {
            self.emit_passage();
        }
        while rest.len() > MAX_PASSAGE_BYTES {
            let (head, tail) = rest.split_at(split_point(rest));
            self.passage = head.trim().to_owned();
            self.emit_passage();
            rest = tail.trim();
        }
        if !self.passage.is_empty() {
            self.passage.push_str("\n\n");
        }
        self.passage.push_str(rest);
    }

    fn end_passage(&mut self) {
        self.end_paragraph();
        self.emit_passage();
    }

    fn emit_passage(&mut self) {
        let text = std::mem::take(&mut self.passage);
        if text.trim().is_empty() {
            return;
        }
        let title = self.title();
        self.passages.push(Passage {
            title,
            file: Arc::clone(&self.file),
            text: text.into(),
        });
    }

    fn title(&self) -> Arc<str> {
        let headings = self
            .headings
            .iter()
            .map(|(_, heading)| heading.as_str())
            .filter(|heading| !heading.is_empty());
        let path = headings.collect::<Vec<_>>().join(" › ");
        let mut title = if path.is_empty() {
            self.default_title.clone()
        } else {
            path
        };
        title.truncate(title.floor_char_boundary(MAX_TITLE_BYTES));
        match self.passages.last() {
            Some(last) if *last.title == *title => Arc::clone(&last.title),
            _ => title.into(),
        }
    }
}

/// Returns `true` for a line between paragraphs: `---`, `***`, `___`, `===`.
fn is_separator(line: &str) -> bool {
    line.len() >= 3
        && ["-", "*", "_", "="]
            .iter()
            .any(|mark| line.trim_start_matches(mark).is_empty())
}

/// The offset at which to split a text that is too long: after the last sentence that fits, else
/// the last word, else the last character. A split in the first quarter is not worth it.
fn split_point(text: &str) -> usize {
    let fits = text.floor_char_boundary(MAX_PASSAGE_BYTES);
    let head = text.get(..fits).unwrap_or_default();
    let last_end = |marks: &[&str]| {
        marks
            .iter()
            .filter_map(|mark| head.rfind(mark).map(|at| at + mark.len()))
            .max()
    };
    let sentence = last_end(&[". ", "! ", "? ", ".\n", "!\n", "?\n", "。", "！", "？"]);
    let is_far_enough = |at: &usize| *at > MAX_PASSAGE_BYTES / 4;
    sentence
        .filter(is_far_enough)
        .or_else(|| last_end(&["\n", " "]).filter(is_far_enough))
        .unwrap_or(fits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split_texts(file: &str, text: &str) -> Vec<(String, String)> {
        split_passages(file, text)
            .into_iter()
            .map(|passage| (passage.title.to_string(), passage.text.into_string()))
            .collect()
    }

    fn pair(title: &str, text: &str) -> (String, String) {
        (title.to_owned(), text.to_owned())
    }

    #[test]
    fn passage_title_lists_its_headings() {
        let text = "Before.\n\n# Shop\n\n## Returns ##\nSend it back.\n\n### Refunds\n\nIn 14 days.\n\n## Repair\nBring it.\n#hashtag";
        let expected = [
            pair("shop", "Before."),
            pair("Shop › Returns", "Send it back."),
            pair("Shop › Returns › Refunds", "In 14 days."),
            pair("Shop › Repair", "Bring it.\n#hashtag"),
        ];
        assert_eq!(split_texts("faq/shop.md", text), expected);
        assert_eq!(
            split_passages("faq/shop.md", text)
                .first()
                .map(|passage| &*passage.file),
            Some("faq/shop.md")
        );
        assert_eq!(
            split_texts("a.md", "Title\n=====\nOne.\n\nTwo\n---\nThree."),
            [pair("Title", "One."), pair("Title › Two", "Three.")]
        );
    }

    #[test]
    fn plain_text_is_not_parsed_as_markdown() {
        assert_eq!(
            split_texts("notes.txt", "# One\n\n```\nTwo"),
            [pair("notes", "# One\n\n```\nTwo")]
        );
        assert_eq!(split_texts("notes.txt", "\u{feff} \r\n\r\n"), []);
    }

    #[test]
    fn front_matter_is_dropped_except_for_its_title() {
        let text = "---\ntitle: \"All of it\"\nsecret: x\n---\nText.";
        assert_eq!(split_texts("a.md", text), [pair("All of it", "Text.")]);
        assert_eq!(
            split_texts("a.md", "+++\ntitle = 'T'\n+++\nText."),
            [pair("T", "Text.")]
        );
        assert_eq!(
            split_texts("a.md", "---\nnever closed"),
            [pair("a", "never closed")]
        );
    }

    #[test]
    fn code_fence_is_neither_split_nor_parsed() {
        let text = "Run:\n\n```sh\n# no heading\n\nx=1\n```\nAfter.\n\n# Real\n~~~\n```\n~~~\n";
        assert_eq!(
            split_texts("a.md", text),
            [
                pair("a", "Run:\n\n```sh\n# no heading\n\nx=1\n```\n\nAfter."),
                pair("Real", "~~~\n```\n~~~")
            ]
        );
    }

    #[test]
    fn short_paragraphs_share_a_passage_and_long_ones_are_split_after_sentences() {
        let long = "One sentence of it. ".repeat(100);
        let passages = split_texts("a.txt", &format!("A.\n\nB.\n\n{long}"));
        assert_eq!(passages.first(), Some(&pair("a", "A.\n\nB.")));
        assert!(passages.len() > 2);
        for (_, text) in &passages {
            assert!(
                text.len() <= MAX_PASSAGE_BYTES && text.ends_with('.'),
                "{text}"
            );
        }
        let joined: String = passages
            .iter()
            .skip(1)
            .map(|(_, text)| format!("{text} "))
            .collect();
        assert_eq!(joined, long);
    }

    proptest! {
        #[test]
        fn every_text_is_split_into_bounded_passages(text in "(#{0,3} ?|-{0,3}|`{0,3}|\n|[a-zäß.。 ]{0,80}|\\PC{0,400}){0,40}") {
            for file in ["a.md", "b.txt"] {
                for passage in split_passages(file, &text) {
                    prop_assert!(!passage.text.trim().is_empty());
                    prop_assert!(passage.text.len() <= MAX_PASSAGE_BYTES, "{}", passage.text.len());
                }
            }
        }
    }
}

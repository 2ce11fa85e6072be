//! Cuts a document into passages: pieces that can be read alone, each with the headings that it stands under.
//!
//! Pure. A passage is one paragraph, or several short ones of the same section. Code fences stay whole where they fit; front matter is
//! left out, but for its title.

use std::sync::Arc;

/// A paragraph joins the passage before it while both are no longer than this, in bytes.
const JOINED: usize = 600;

/// The longest passage, in bytes; a longer paragraph is cut at the end of a sentence, a word, or anywhere.
pub const LONGEST: usize = 1200;

/// The longest title, in bytes.
const TITLE: usize = 200;

/// A piece of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// The headings that it stands under, the widest first; else the document's title, else its file's stem.
    pub title: Arc<str>,
    /// The document's file, relative to the knowledge folder.
    pub file: Arc<str>,
    /// At most [`LONGEST`] bytes, not blank.
    pub text: Box<str>,
}

/// The passages of a document, in its order. `file` is its name within the folder; one that ends in `.md` is taken for Markdown.
pub fn cut(file: &str, text: &str) -> Vec<Passage> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (front, body) = front_matter(text);
    let name = file.rsplit('/').next().unwrap_or(file);
    let (stem, ending) = name.rsplit_once('.').unwrap_or((name, ""));
    let mut cutter = Cutter {
        file: file.into(),
        root: front.unwrap_or_else(|| stem.to_owned()),
        markdown: ending.eq_ignore_ascii_case("md"),
        headings: Vec::new(),
        block: String::new(),
        passage: String::new(),
        done: Vec::new(),
    };
    cutter.read(body);
    cutter.done
}

/// What stands between `---` lines at the very beginning, of which the title is kept; and the rest.
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
    // Never closed: a rule, not front matter.
    (None, text)
}

struct Cutter {
    file: Arc<str>,
    root: String,
    markdown: bool,
    /// Level and text, from the widest to the nearest.
    headings: Vec<(usize, String)>,
    /// The paragraph that is being read.
    block: String,
    /// The paragraphs that make the next passage.
    passage: String,
    done: Vec<Passage>,
}

impl Cutter {
    fn read(&mut self, body: &str) {
        let mut fence: Option<&str> = None;
        for line in body.lines() {
            let bare = line.trim();
            if let Some(mark) = fence {
                self.line(line);
                if bare.starts_with(mark) && bare.trim_start_matches(mark).is_empty() {
                    fence = None;
                    self.end_block();
                }
            } else if self.markdown && (bare.starts_with("```") || bare.starts_with("~~~")) {
                fence = bare.get(..3);
                self.line(line);
            } else if bare.is_empty() || (self.block.is_empty() && is_rule(bare)) {
                self.end_block();
            } else if let Some((level, heading)) = self.heading(bare) {
                self.end_passage();
                self.headings.retain(|(above, _)| *above < level);
                self.headings.push((level, heading));
            } else {
                self.line(line);
            }
        }
        self.end_passage();
    }

    fn line(&mut self, line: &str) {
        self.block.push_str(line.trim_end());
        self.block.push('\n');
    }

    /// A heading that this line is (`# …`), or that it makes of the one line before it (`===`, `---`).
    fn heading(&mut self, line: &str) -> Option<(usize, String)> {
        if !self.markdown {
            return None;
        }
        let rest = line.trim_start_matches('#');
        let level = line.len() - rest.len();
        if (1..=6).contains(&level) && (rest.is_empty() || rest.starts_with([' ', '\t'])) {
            let heading = rest.trim().trim_end_matches('#').trim();
            return Some((level, heading.to_owned()));
        }
        let before = self.block.trim();
        if line.len() < 3 || before.is_empty() || before.contains('\n') {
            return None;
        }
        let level = match line.trim_start_matches(['=', '-']) {
            "" if line.bytes().all(|byte| byte == b'=') => 1,
            "" if line.bytes().all(|byte| byte == b'-') => 2,
            _ => return None,
        };
        let heading = before.to_owned();
        self.block.clear();
        Some((level, heading))
    }

    /// The paragraph is whole: it joins the passage, or begins one.
    fn end_block(&mut self) {
        let block = std::mem::take(&mut self.block);
        let mut rest = block.trim_matches(['\n', '\r']).trim_end();
        if rest.trim().is_empty() {
            return;
        }
        if !self.passage.is_empty() && self.passage.len() + rest.len() > JOINED {
            self.finish();
        }
        while rest.len() > LONGEST {
            let (head, tail) = rest.split_at(place_to_cut(rest));
            self.passage = head.trim().to_owned();
            self.finish();
            rest = tail.trim();
        }
        if !self.passage.is_empty() {
            self.passage.push_str("\n\n");
        }
        self.passage.push_str(rest);
    }

    fn end_passage(&mut self) {
        self.end_block();
        self.finish();
    }

    fn finish(&mut self) {
        let text = std::mem::take(&mut self.passage);
        if text.trim().is_empty() {
            return;
        }
        let title = self.title();
        self.done.push(Passage {
            title,
            file: Arc::clone(&self.file),
            text: text.into(),
        });
    }

    fn title(&self) -> Arc<str> {
        let named = self
            .headings
            .iter()
            .map(|(_, heading)| heading.as_str())
            .filter(|one| !one.is_empty());
        let path = named.collect::<Vec<_>>().join(" › ");
        let mut title = if path.is_empty() {
            self.root.clone()
        } else {
            path
        };
        title.truncate(title.floor_char_boundary(TITLE));
        match self.done.last() {
            Some(last) if *last.title == *title => Arc::clone(&last.title),
            _ => title.into(),
        }
    }
}

/// A line between paragraphs: `---`, `***`, `___`, `===`.
fn is_rule(line: &str) -> bool {
    line.len() >= 3
        && ["-", "*", "_", "="]
            .iter()
            .any(|mark| line.trim_start_matches(mark).is_empty())
}

/// Where to cut a text that is longer than [`LONGEST`]: after the last sentence that fits, else the last word, else the last character.
fn place_to_cut(text: &str) -> usize {
    let fits = text.floor_char_boundary(LONGEST);
    let head = text.get(..fits).unwrap_or_default();
    let ends = |marks: &[&str]| {
        marks
            .iter()
            .filter_map(|mark| head.rfind(mark).map(|at| at + mark.len()))
            .max()
    };
    let sentence = ends(&[". ", "! ", "? ", ".\n", "!\n", "?\n", "。", "！", "？"]);
    let enough = |at: &usize| *at > LONGEST / 4;
    sentence
        .filter(enough)
        .or_else(|| ends(&["\n", " "]).filter(enough))
        .unwrap_or(fits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(file: &str, text: &str) -> Vec<(String, String)> {
        cut(file, text)
            .into_iter()
            .map(|one| (one.title.to_string(), one.text.into_string()))
            .collect()
    }

    fn pair(title: &str, text: &str) -> (String, String) {
        (title.to_owned(), text.to_owned())
    }

    #[test]
    fn a_passage_stands_under_its_headings() {
        let text = "Before.\n\n# Shop\n\n## Returns ##\nSend it back.\n\n### Refunds\n\nIn 14 days.\n\n## Repair\nBring it.\n#hashtag";
        let expected = [
            pair("shop", "Before."),
            pair("Shop › Returns", "Send it back."),
            pair("Shop › Returns › Refunds", "In 14 days."),
            pair("Shop › Repair", "Bring it.\n#hashtag"),
        ];
        assert_eq!(told("faq/shop.md", text), expected);
        assert_eq!(
            cut("faq/shop.md", text).first().map(|one| &*one.file),
            Some("faq/shop.md")
        );
        assert_eq!(
            told("a.md", "Title\n=====\nOne.\n\nTwo\n---\nThree."),
            [pair("Title", "One."), pair("Title › Two", "Three.")]
        );
    }

    #[test]
    fn in_plain_text_a_mark_is_a_mark() {
        assert_eq!(
            told("notes.txt", "# One\n\n```\nTwo"),
            [pair("notes", "# One\n\n```\nTwo")]
        );
        assert_eq!(told("notes.txt", "\u{feff} \r\n\r\n"), []);
    }

    #[test]
    fn front_matter_is_left_out_but_for_its_title() {
        let text = "---\ntitle: \"All of it\"\nsecret: x\n---\nText.";
        assert_eq!(told("a.md", text), [pair("All of it", "Text.")]);
        assert_eq!(
            told("a.md", "+++\ntitle = 'T'\n+++\nText."),
            [pair("T", "Text.")]
        );
        assert_eq!(
            told("a.md", "---\nnever closed"),
            [pair("a", "never closed")]
        );
    }

    #[test]
    fn a_code_fence_is_neither_cut_nor_read() {
        let text = "Run:\n\n```sh\n# no heading\n\nx=1\n```\nAfter.\n\n# Real\n~~~\n```\n~~~\n";
        assert_eq!(
            told("a.md", text),
            [
                pair("a", "Run:\n\n```sh\n# no heading\n\nx=1\n```\n\nAfter."),
                pair("Real", "~~~\n```\n~~~")
            ]
        );
    }

    #[test]
    fn short_paragraphs_share_a_passage_and_long_ones_are_cut_at_sentences() {
        let long = "One sentence of it. ".repeat(100);
        let passages = told("a.txt", &format!("A.\n\nB.\n\n{long}"));
        assert_eq!(passages.first(), Some(&pair("a", "A.\n\nB.")));
        assert!(passages.len() > 2);
        for (_, text) in &passages {
            assert!(text.len() <= LONGEST && text.ends_with('.'), "{text}");
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
        fn every_text_is_cut_into_bounded_passages(text in "(#{0,3} ?|-{0,3}|`{0,3}|\n|[a-zäß.。 ]{0,80}|\\PC{0,400}){0,40}") {
            for file in ["a.md", "b.txt"] {
                for passage in cut(file, &text) {
                    prop_assert!(!passage.text.trim().is_empty());
                    prop_assert!(passage.text.len() <= LONGEST, "{}", passage.text.len());
                }
            }
        }
    }
}

//! The source tree for the rules: lines, with code, comments and tests told apart.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;

/// The folders that are read, besides the visible files at the top.
const FOLDERS: [&str; 9] = [
    ".cargo",
    ".ci",
    "benches",
    "docs",
    "examples",
    "src",
    "static",
    "templates",
    "tests",
];

/// Comments, string literals and character literals: everything that interrupts code.
static LEXEME: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r#"(?s)//[^\n]*"#,
        r#"|/\*|\*/"#,
        r##"|\bb?r(?<hashes>#*)""##,
        r#"|b?"(?:[^"\\]|\\.)*""#,
        r#"|b?'(?:\\[^\n]+?|[^'\\\n])'"#,
    ))
    .unwrap()
});
static BRACE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\bmod\s+\w+\s*\{|[{}]").unwrap());
static MODULE_ELSEWHERE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^\s*(?:pub(?:\([^)]*\))?\s+)?mod (\w+);").unwrap());

pub struct Line {
    /// Counted from 1.
    pub number: usize,
    pub raw: String,
    /// In a Rust file, the line without comments and literals; in others the same as `raw`.
    pub code: String,
    /// The line belongs to a test.
    pub test: bool,
    /// The number of inline modules around the line.
    pub depth: usize,
}

pub struct File {
    /// Relative to the project root, with `/`.
    pub path: String,
    pub lines: Vec<Line>,
}

/// The text files of the project.
pub struct Tree {
    /// Sorted by path.
    pub files: Vec<File>,
}

impl Tree {
    /// Reads the project that this test was built from.
    pub fn here() -> Self {
        let top = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = Vec::new();
        for entry in fs::read_dir(top).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let shown = !name.starts_with('.') && top.join(&name).is_file();
            if shown || FOLDERS.contains(&name.as_str()) {
                collect(top, name, &mut found);
            }
        }
        Self::of(found)
    }

    /// Builds a tree from paths and texts.
    pub fn of(files: impl IntoIterator<Item = (impl Into<String>, impl AsRef<str>)>) -> Self {
        let files = files.into_iter();
        let mut files: Vec<_> = files
            .map(|(path, text)| File::of(path.into(), text.as_ref()))
            .collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let declared: Vec<_> = files.iter().flat_map(File::test_modules).collect();
        for file in &mut files {
            let stem = file.path.trim_end_matches(".rs").trim_end_matches("/mod");
            let test = |module: &String| stem == module || stem.starts_with(&format!("{module}/"));
            if file.path.starts_with("tests/") || declared.iter().any(test) {
                file.lines.iter_mut().for_each(|line| line.test = true);
            }
        }
        Self { files }
    }

    /// The Rust files under `src` and `tests`.
    pub fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_rust())
    }
}

fn collect(top: &Path, path: String, found: &mut Vec<(String, String)>) {
    let full = top.join(&path);
    if full.is_dir() {
        for entry in fs::read_dir(full).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            collect(top, format!("{path}/{name}"), found);
        }
    } else if let Ok(text) = fs::read_to_string(full) {
        found.push((path, text));
    }
}

impl File {
    fn of(path: String, text: &str) -> Self {
        let rust = path.ends_with(".rs");
        let code = if rust { code_of(text) } else { text.to_owned() };
        let mut lines: Vec<_> = (text.lines().zip(code.split('\n')).zip(1..))
            .map(|((raw, code), number)| Line {
                number,
                raw: raw.to_owned(),
                code: code.to_owned(),
                test: false,
                depth: 0,
            })
            .collect();
        if rust {
            mark_tests(&mut lines);
            mark_depth(&mut lines);
        }
        Self { path, lines }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
            && (self.path.starts_with("src/") || self.path.starts_with("tests/"))
    }

    /// The code of all lines.
    pub fn code(&self) -> String {
        let lines: Vec<_> = self.lines.iter().map(|line| line.code.as_str()).collect();
        lines.join("\n")
    }

    /// Formats a violation at a line of this file.
    pub fn violation(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }

    /// Returns a violation for each line that `wrong` selects.
    pub fn lines_where<'a>(
        &'a self,
        wrong: impl Fn(&Line) -> bool + 'a,
        what: &'a str,
    ) -> impl Iterator<Item = String> + 'a {
        let lines = self.lines.iter().filter(move |line| wrong(line));
        lines.map(move |line| self.violation(line.number, what))
    }

    /// Test modules in files of their own (`#[cfg(test)] mod tests;`), as paths without extension.
    fn test_modules(&self) -> Vec<String> {
        let stem = self.path.trim_end_matches(".rs");
        let folder = match stem.rsplit_once('/') {
            Some((folder, "mod" | "lib" | "main")) => folder,
            _ => stem,
        };
        let names = self
            .lines
            .iter()
            .filter(|line| line.test)
            .filter_map(|line| MODULE_ELSEWHERE.captures(&line.code));
        names.map(|name| format!("{folder}/{}", &name[1])).collect()
    }
}

/// Marks the items under `#[cfg(test)]`, up to the brace or semicolon that ends each item.
fn mark_tests(lines: &mut [Line]) {
    let mut within = false;
    let mut open = 0_i32;
    for line in lines {
        let start = line.code.trim_start();
        if !within && (start.starts_with("#[cfg(test)]") || start.starts_with("#[cfg(all(test")) {
            (within, open) = (true, 0);
        }
        line.test = within;
        for c in line.code.chars() {
            match c {
                '{' | '(' | '[' => open += 1,
                '}' | ')' | ']' => open -= 1,
                _ => {}
            }
            if open == 0 && matches!(c, '}' | ';') {
                within = false;
            }
        }
    }
}

/// Counts the inline modules that are open at the beginning of each line.
fn mark_depth(lines: &mut [Line]) {
    let mut open = Vec::new();
    for line in lines {
        line.depth = open.iter().filter(|module| **module).count();
        for brace in BRACE.find_iter(&line.code) {
            match brace.as_str() {
                "}" => drop(open.pop()),
                "{" => open.push(false),
                _ => open.push(true),
            }
        }
    }
}

/// Rust source without comments and literals. Line numbers are preserved.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let keep_newlines = |from: usize, to: usize, code: &mut String| {
        code.extend(text[from..to].chars().filter(|c| *c == '\n'));
    };
    let mut at = 0;
    let mut comments = 0_usize;
    while let Some(found) = LEXEME.captures_at(text, at) {
        let lexeme = found.get(0).unwrap();
        if comments == 0 {
            code.push_str(&text[at..lexeme.start()]);
        } else {
            keep_newlines(at, lexeme.start(), &mut code);
        }
        at = lexeme.end();
        match lexeme.as_str() {
            "/*" => comments += 1,
            "*/" => comments = comments.saturating_sub(1),
            // Within a comment the rest means nothing, and may not even be whole: step over its first character.
            other if comments > 0 => {
                let first = other.chars().next().unwrap();
                at = lexeme.start() + first.len_utf8();
                keep_newlines(lexeme.start(), at, &mut code);
            }
            other => {
                if let Some(hashes) = found.name("hashes") {
                    let close = format!("\"{}", hashes.as_str());
                    let length = text[at..]
                        .find(&close)
                        .map_or(text.len() - at, |end| end + close.len());
                    at += length;
                }
                if !other.starts_with("//") {
                    code.push_str("\"\"");
                }
                keep_newlines(lexeme.start(), at, &mut code);
            }
        }
    }
    if comments == 0 {
        code.push_str(&text[at..]);
    }
    code
}

#[test]
fn comments_and_literals_are_removed_from_code() {
    let text = r##"
let a = "x // y"; // z
let b = r#"say "dbg!" "#; b'"'; '\''; '\u{1F}'; 'c'
fn f<'a>(x: &'a str) -> &'static str { "\"q\\" }
/* one /* two
"three */ four
*/ let c = br"\"; let d = "over
two lines"; /// doc "
let e = 1;
"##;
    let expected = r##"
let a = ""; 
let b = ""; ""; ""; ""; ""
fn f<'a>(x: &'a str) -> &'static str { "" }


 let c = ""; let d = ""
; 
let e = 1;
"##;
    assert_eq!(code_of(text), expected);
}

#[test]
fn test_lines_are_marked() {
    let marked = |path: &str, files: &[(&str, &str)]| {
        let tree = Tree::of(files.iter().copied());
        let file = tree.files.iter().find(|file| file.path == path).unwrap();
        let lines = file.lines.iter().filter(|line| line.test);
        lines.map(|line| line.number).collect::<Vec<_>>()
    };
    let text = "a();\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n    let b = \"\n{\";\n}\nc();\n#[cfg(test)]\nuse d;\ne();\n";
    assert_eq!(
        marked("src/x.rs", &[("src/x.rs", text)]),
        [2, 3, 4, 5, 6, 7, 9, 10]
    );
    for (declares, file) in [
        ("src/x.rs", "src/x/tests.rs"),
        ("src/x.rs", "src/x/tests/mod.rs"),
        ("src/x/mod.rs", "src/x/tests/deep.rs"),
        ("src/lib.rs", "src/tests.rs"),
    ] {
        assert_eq!(
            marked(
                file,
                &[(declares, "#[cfg(test)]\nmod tests;\n"), (file, "a\nb\n")]
            ),
            [1, 2],
            "{file}"
        );
    }
    assert_eq!(
        marked(
            "src/x/y.rs",
            &[("src/x.rs", "mod y;\n"), ("src/x/y.rs", "a\n")]
        ),
        [0; 0]
    );
}

#[test]
fn inline_modules_are_counted() {
    let file = File::of(
        "src/x.rs".to_owned(),
        "a {\nmod b\n{\n} } c();\nmod d { mod e {\nf(\"}\");\n}\n}\ng();",
    );
    // `mod b` has its brace on the next line: rustfmt leaves no such thing, so it goes uncounted.
    let depths: Vec<_> = file.lines.iter().map(|line| line.depth).collect();
    assert_eq!(depths, [0, 0, 0, 0, 0, 2, 2, 1, 0]);
}

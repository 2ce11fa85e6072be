//! A small bundler for our own scripts.
//!
//! It works line by line and relies on conventions that tests check: an import stands on one line,
//! no string spans several lines, and no two modules of the chat declare the same top-level name.

use std::collections::{BTreeMap, BTreeSet};

/// Strips comments, indentation and empty lines from a script or style sheet.
pub fn strip_comments(text: &str) -> String {
    let mut stripped = String::with_capacity(text.len());
    let mut in_comment = false;
    for line in text.lines().map(str::trim) {
        in_comment |= line.starts_with("/*");
        if !in_comment && !line.starts_with("//") {
            let code = line
                .split_once(" // ")
                .map_or(line, |(code, _)| code)
                .trim_end();
            stripped.push_str(code);
            stripped.extend((!code.is_empty()).then_some('\n'));
        }
        in_comment &= !line.ends_with("*/");
    }
    stripped
}

/// The characters next to which a script needs no space. `+`, `-` and `/` are not among them.
const PUNCTUATION: [char; 16] = [
    '{', '}', '(', ')', '[', ']', ',', ';', ':', '=', '<', '>', '?', '&', '|', '!',
];

/// Strips the spaces around punctuation from a script that [`strip_comments`] has stripped.
///
/// A line with a slash outside its strings is left as it is, because the slash may begin a regular
/// expression, and so is one with a template inside a template.
pub fn strip_spaces(script: &str) -> String {
    let lines = script.lines();
    lines
        .map(|line| strip_line(line).unwrap_or_else(|| line.to_owned()) + "\n")
        .collect()
}

fn strip_line(line: &str) -> Option<String> {
    let has_nested_template = line.contains("${") && line.matches('`').count() > 2;
    if line.starts_with("import ") || has_nested_template {
        return None;
    }
    let mut stripped = String::with_capacity(line.len());
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(_), '\\') => {
                stripped.push(c);
                stripped.extend(chars.next());
                continue;
            }
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '/') => return None,
            (None, '\'' | '"' | '`') => quote = Some(c),
            (None, ' ') if stripped.ends_with(PUNCTUATION) => continue,
            (None, _) if PUNCTUATION.contains(&c) && stripped.ends_with(' ') => {
                stripped.pop();
            }
            (None, _) => {}
        }
        stripped.push(c);
    }
    Some(stripped)
}

/// Joins lines where no statement can end without a semicolon. Imports keep their lines.
pub fn join_lines(script: &str) -> String {
    let mut joined = String::with_capacity(script.len());
    for line in script.lines() {
        joined.push_str(line);
        if line.starts_with("import ") || !line.ends_with([';', '{', ',']) {
            joined.push('\n');
        }
    }
    joined
}

/// Bundles a module with those of its imports that only it uses.
///
/// A dozen small files compress a third worse than one, and each is a request. A module that others
/// import as well stays separate, because it must exist only once. `scripts` has all own scripts by
/// name, stripped by [`strip_comments`].
pub fn bundle(entry: &str, scripts: &BTreeMap<String, String>) -> String {
    let parts = module_order(entry, scripts);
    let mut imports: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut code = String::new();
    for name in &parts {
        for line in scripts.get(*name).map_or("", String::as_str).lines() {
            match parse_import(line) {
                Some((_, from)) if parts.contains(&from) => {}
                Some((names, from)) => imports.entry(from).or_default().extend(names.split(", ")),
                None if *name == entry => code.extend([line, "\n"]),
                None => code.extend([line.strip_prefix("export ").unwrap_or(line), "\n"]),
            }
        }
    }
    let imports = imports.into_iter().map(|(from, names)| {
        let names: Vec<_> = names.into_iter().collect();
        format!("import {{ {} }} from './{from}';\n", names.join(", "))
    });
    imports.chain([code]).collect()
}

/// Returns the modules of the bundle, each after its imports.
pub fn module_order<'a>(entry: &'a str, scripts: &'a BTreeMap<String, String>) -> Vec<&'a str> {
    let mut modules = Vec::new();
    visit(entry, scripts, &mut modules);
    let outside = scripts
        .iter()
        .filter(|(name, _)| !modules.contains(&name.as_str()));
    let shared: BTreeSet<_> = outside
        .flat_map(|(_, text)| text.lines().filter_map(parse_import))
        .collect();
    modules.retain(|name| *name == entry || !shared.iter().any(|(_, from)| from == name));
    modules
}

fn visit<'a>(name: &'a str, scripts: &'a BTreeMap<String, String>, found: &mut Vec<&'a str>) {
    let Some(text) = scripts.get(name) else {
        return;
    };
    for (_, needed) in text.lines().filter_map(parse_import) {
        if !found.contains(&needed) {
            visit(needed, scripts, found);
        }
    }
    if !found.contains(&name) {
        found.push(name);
    }
}

/// Parses a line that imports from a sibling module, into the names and the module.
fn parse_import(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("import { ")?
        .strip_suffix("';")?
        .split_once(" } from './")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_indentation_are_stripped() {
        let script = "// About this.\n/** One. */\nlet a = 1; // of these\n\n/**\n * Two.\n */\n  f('http://x');\n/* three\n */\n";
        assert_eq!(strip_comments(script), "let a = 1;\nf('http://x');\n");
        assert_eq!(
            strip_comments("/* Of\n   styles. */\n\na { b: c; }\n  @media x { }\n"),
            "a { b: c; }\n@media x { }\n"
        );
    }

    #[test]
    fn spaces_around_punctuation_are_stripped_outside_strings() {
        for (line, expected) in [
            (
                "if (a && b) { c = [d, 'e , f']; }",
                "if(a&&b){c=[d,'e , f'];}",
            ),
            (
                "return a + +b ? `x ${y , z}` : \"\\\" : \" ;",
                "return a + +b?`x ${y , z}`:\"\\\" : \";",
            ),
            (
                "const a = / , /g, b = c / d;",
                "const a = / , /g, b = c / d;",
            ),
            (
                "f(`a ${b ? `c , d` : ''}` , e);",
                "f(`a ${b ? `c , d` : ''}` , e);",
            ),
            (
                "import { a, b } from './c.js';",
                "import { a, b } from './c.js';",
            ),
        ] {
            assert_eq!(strip_spaces(line), format!("{expected}\n"));
        }
    }

    #[test]
    fn lines_are_joined_where_no_statement_ends() {
        let script = "import { a } from './a.js';\nf({\na,\n}\n.b);\nclass C{\nd(){}\ne(){}\n}\n";
        let expected = "import { a } from './a.js';\nf({a,}\n.b);class C{d(){}\ne(){}\n}\n";
        assert_eq!(join_lines(script), expected);
    }

    #[test]
    fn bundle_has_the_modules_that_only_the_entry_uses() {
        let scripts = [
            (
                "top.js",
                "import { one } from './one.js';\nimport { all, two } from './all.js';\nexport const top = one + two;\n",
            ),
            (
                "one.js",
                "import { two } from './two.js';\nimport { all } from './all.js';\nexport function one() {}\n",
            ),
            (
                "two.js",
                "import { more } from './all.js';\nexport class Two {}\n",
            ),
            ("all.js", "export const all = 1;\n"),
            (
                "later.js",
                "import { all } from './all.js';\nexport const later = 2;\n",
            ),
        ];
        let scripts = scripts
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
            .into();
        assert_eq!(
            module_order("top.js", &scripts),
            ["two.js", "one.js", "top.js"]
        );
        let expected = "import { all, more, two } from './all.js';\nclass Two {}\nfunction one() {}\nexport const top = one + two;\n";
        assert_eq!(bundle("top.js", &scripts), expected);
    }
}

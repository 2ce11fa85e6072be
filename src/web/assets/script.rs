//! What a browser needs of a script, and of modules that are always loaded together: pure text work on scripts that keep to a few habits, which
//! tests hold. An import stands on one line, no text goes over several lines, and no two modules of the chat give one name to two things.

use std::collections::{BTreeMap, BTreeSet};

/// A script or style sheet without what only its readers need: comments, indentation, empty lines.
pub fn lean(text: &str) -> String {
    let mut lean = String::with_capacity(text.len());
    let mut comment = false;
    for line in text.lines().map(str::trim) {
        comment |= line.starts_with("/*");
        if !comment && !line.starts_with("//") {
            let code = line
                .split_once(" // ")
                .map_or(line, |(code, _)| code)
                .trim_end();
            lean.push_str(code);
            lean.extend((!code.is_empty()).then_some('\n'));
        }
        comment &= !line.ends_with("*/");
    }
    lean
}

/// A module and all modules of ours that it alone is made of, as one: a dozen small files packed one by one are a third larger, and
/// each is a request. What a module outside of these imports too stays a module of its own, because there must be one of it.
///
/// `scripts`: every script of ours by its name, each as [`lean`] gives it.
pub fn joined(entry: &str, scripts: &BTreeMap<String, String>) -> String {
    let parts = parts(entry, scripts);
    let mut imports: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut code = String::new();
    for name in &parts {
        for line in scripts.get(*name).map_or("", String::as_str).lines() {
            match import(line) {
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

/// What `entry` is made of, each after what it needs itself.
pub fn parts<'a>(entry: &'a str, scripts: &'a BTreeMap<String, String>) -> Vec<&'a str> {
    let mut within = Vec::new();
    visit(entry, scripts, &mut within);
    let outside = scripts
        .iter()
        .filter(|(name, _)| !within.contains(&name.as_str()));
    let shared: BTreeSet<_> = outside
        .flat_map(|(_, text)| text.lines().filter_map(import))
        .collect();
    within.retain(|name| *name == entry || !shared.iter().any(|(_, from)| from == name));
    within
}

fn visit<'a>(name: &'a str, scripts: &'a BTreeMap<String, String>, found: &mut Vec<&'a str>) {
    let Some(text) = scripts.get(name) else {
        return;
    };
    for (_, needed) in text.lines().filter_map(import) {
        if !found.contains(&needed) {
            visit(needed, scripts, found);
        }
    }
    if !found.contains(&name) {
        found.push(name);
    }
}

/// Of a line that imports names from a module beside it: the names, and the module.
fn import(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("import { ")?
        .strip_suffix("';")?
        .split_once(" } from './")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_only_readers_need_goes() {
        let script = "// About this.\n/** One. */\nlet a = 1; // of these\n\n/**\n * Two.\n */\n  f('http://x');\n/* three\n */\n";
        assert_eq!(lean(script), "let a = 1;\nf('http://x');\n");
        assert_eq!(
            lean("/* Of\n   styles. */\n\na { b: c; }\n  @media x { }\n"),
            "a { b: c; }\n@media x { }\n"
        );
    }

    #[test]
    fn a_module_comes_with_what_it_alone_is_made_of() {
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
        assert_eq!(parts("top.js", &scripts), ["two.js", "one.js", "top.js"]);
        let expected = "import { all, more, two } from './all.js';\nclass Two {}\nfunction one() {}\nexport const top = one + two;\n";
        assert_eq!(joined("top.js", &scripts), expected);
    }
}

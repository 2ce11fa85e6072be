//! Scans of a folder on a real disk.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use tempfile::TempDir;

use super::*;

struct TestFolder {
    top: TempDir,
    folder: KnowledgeFolder,
}

impl TestFolder {
    fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir(top.path().join("docs")).unwrap();
        let folder = KnowledgeFolder::new(top.path().join("docs"));
        Self { top, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.path().join("docs").join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), bytes).unwrap();
    }

    /// Scans and returns the problems and the files that passages come from.
    fn scan(&mut self) -> (Vec<String>, Vec<String>) {
        let change = self.folder.scan().unwrap();
        let problems: Vec<_> = change.problems.iter().map(ToString::to_string).collect();
        let joined = problems.join("\n");
        assert!(
            !joined.contains(&self.top.path().display().to_string()),
            "{joined}"
        );
        let index = change.index.unwrap();
        (
            problems,
            index
                .passages()
                .iter()
                .map(|passage| passage.file.to_string())
                .collect(),
        )
    }
}

#[test]
fn only_documents_are_read() {
    let mut documents = TestFolder::new();
    documents.write("b.MD", "# B\nb");
    documents.write("a.txt", "a");
    documents.write("sub/c.md", "c");
    documents.write("page.html", "no");
    documents.write(".hidden.md", "no");
    documents.write(".git/x.md", "no");
    documents.write("empty.md", "");
    symlink(documents.path("a.txt"), documents.path("z.txt")).unwrap();
    assert_eq!(
        documents.scan(),
        (
            vec![],
            ["a.txt", "b.MD", "sub/c.md", "z.txt"]
                .map(str::to_owned)
                .to_vec()
        )
    );
}

#[test]
fn invalid_file_is_reported_and_skipped() {
    let mut documents = TestFolder::new();
    fs::write(documents.top.path().join("secret.txt"), "secret").unwrap();
    fs::create_dir(documents.top.path().join("elsewhere")).unwrap();
    fs::write(documents.top.path().join("elsewhere/secret.md"), "secret").unwrap();
    symlink(
        documents.top.path().join("secret.txt"),
        documents.path("out.txt"),
    )
    .unwrap();
    symlink(
        documents.top.path().join("elsewhere"),
        documents.path("linked"),
    )
    .unwrap();
    symlink(documents.path("nothing"), documents.path("dead.md")).unwrap();
    documents.write("good.md", "good");
    documents.write("latin.txt", b"caf\xe9");
    documents.write("wide.txt", "a\0b\0");
    documents.write("large.md", "x".repeat(1024 * 1024 + 1));
    documents.write("ring\u{7}.md", b"\xff");
    let (problems, files) = documents.scan();
    assert_eq!(files, ["good.md"]);
    assert_eq!(
        problems,
        [
            "dead.md: cannot be read: No such file or directory (os error 2)",
            "large.md: larger than 1048576 bytes",
            "latin.txt: not UTF-8 text",
            "out.txt: a link that leads out of the folder",
            "ring\u{fffd}.md: not UTF-8 text",
            "wide.txt: not UTF-8 text",
        ]
    );
}

#[test]
fn unreadable_file_is_read_once_it_is_permitted() {
    let mut documents = TestFolder::new();
    documents.write("a.md", "a");
    let set_mode = |mode| {
        fs::set_permissions(documents.path("a.md"), fs::Permissions::from_mode(mode)).unwrap()
    };
    set_mode(0o000);
    if File::open(documents.path("a.md")).is_ok() {
        // The tests run as root, who may read everything.
        return;
    }
    let change = documents.folder.scan().unwrap();
    assert_eq!(
        change.problems[0].to_string(),
        "a.md: cannot be read: Permission denied (os error 13)"
    );
    fs::set_permissions(documents.path("a.md"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(documents.scan(), (vec![], vec!["a.md".to_owned()]));
}

#[test]
fn exceeded_limits_are_reported() {
    let mut documents = TestFolder::new();
    for name in ["a.md", "b.md", "c/d.md", "c/e/f.md"] {
        documents.write(name, "# One\n1\n# Two\n2");
    }
    type Set = fn(&mut FolderLimits);
    let cases: [(Set, &str, usize); 5] = [
        (
            |limits| limits.max_files = 2,
            "docs: holds more than 2 documents; the last by name are left out",
            4,
        ),
        (
            |limits| limits.max_total_bytes = 40,
            "c/e/f.md: the folder holds more than 40 bytes",
            4,
        ),
        (
            |limits| limits.max_passages = 5,
            "docs: the folder holds more than 5 passages; those from c/d.md on are left out",
            5,
        ),
        (
            |limits| limits.max_depth = 1,
            "docs: holds folders that lie deeper than 1; they are left out",
            6,
        ),
        (
            |limits| limits.max_names = 3,
            "docs: holds more than 3 names; some were not looked at",
            4,
        ),
    ];
    for (set, problem, passages) in cases {
        documents.folder.limits = FolderLimits::default();
        set(&mut documents.folder.limits);
        documents.folder.force_rescan();
        let (problems, files) = documents.scan();
        assert_eq!(
            (problems.last().map(String::as_str), files.len()),
            (Some(problem), passages)
        );
    }
}

#[test]
fn changes_are_noticed_and_unreadable_folder_removes_nothing() {
    let mut documents = TestFolder::new();
    assert_eq!(
        documents.scan().0,
        ["docs: holds no text that could answer"]
    );
    assert!(documents.folder.scan().is_none());
    documents.write("a.md", "one");
    assert_eq!(documents.scan().1, ["a.md"]);
    assert!(documents.folder.scan().is_none());
    documents.write("a.md", "another");
    assert_eq!(
        &*documents.folder.scan().unwrap().index.unwrap().passages()[0].text,
        "another"
    );
    documents.write("b.md", "two");
    assert_eq!(documents.scan().1, ["a.md", "b.md"]);
    fs::remove_file(documents.path("a.md")).unwrap();
    assert_eq!(documents.scan().1, ["b.md"]);
    fs::rename(documents.path("b.md"), documents.path("c.md")).unwrap();
    assert_eq!(documents.scan().1, ["c.md"]);

    fs::rename(
        documents.top.path().join("docs"),
        documents.top.path().join("away"),
    )
    .unwrap();
    let change = documents.folder.scan().unwrap();
    assert!(change.index.is_none());
    assert_eq!(
        change.problems[0].to_string(),
        "docs: cannot be read: No such file or directory (os error 2)"
    );
    assert!(documents.folder.scan().is_none(), "reported once");
    fs::rename(
        documents.top.path().join("away"),
        documents.top.path().join("docs"),
    )
    .unwrap();
    assert_eq!(documents.scan(), (vec![], vec!["c.md".to_owned()]));
    documents.folder.force_rescan();
    assert!(documents.folder.scan().is_some());
}

//! The actor with a real folder.

use std::fs;
use std::path::Path;

use actix::{Actor as _, Addr};
use tempfile::TempDir;
use tokio::sync::watch;

use super::super::*;
use crate::config::DegradationSettings;
use crate::domain::AnswerSource;

struct Stand {
    folder: TempDir,
    published: FallbackWatch,
    view: watch::Receiver<Arc<FallbackChain>>,
    actor: Addr<DegradationActor>,
}

fn settings(knowledge: Option<&Path>) -> DegradationSettings {
    DegradationSettings {
        knowledge: knowledge.map(Path::to_owned),
        ..DegradationSettings::default()
    }
}

impl Stand {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let published = FallbackWatch::new("Later.");
        let view = published.chain();
        let actor =
            DegradationActor::new(settings(Some(folder.path())), published.clone(), ()).start();
        Self {
            folder,
            published,
            view,
            actor,
        }
    }

    async fn wait_for_passages(&mut self, passages: usize) {
        let limit = Duration::from_secs(20);
        let reached = self
            .view
            .wait_for(|chain| chain.knowledge().passages().len() == passages);
        assert!(
            tokio::time::timeout(limit, reached).await.is_ok(),
            "never {passages} passages"
        );
    }

    async fn wait_for_problems(&self, problems: usize) {
        let limit = Duration::from_secs(20);
        let mut view = self.published.knowledge_problems.subscribe();
        let there = view.wait_for(|found| found.len() == problems);
        assert!(
            tokio::time::timeout(limit, there).await.is_ok(),
            "never {problems} problems"
        );
    }

    fn source(&self, question: &str) -> AnswerSource {
        self.view.borrow().answer(question).source
    }

    fn problems(&self) -> Vec<String> {
        self.published.problem_messages()
    }
}

const TEA: (&str, &str) = ("tea.md", "# Tea\nPour the tea after four minutes.");
const MILK: (&str, &str) = ("milk.txt", "The milk stands in the fridge.");

#[actix::test]
async fn added_file_answers_and_removed_file_does_not() {
    let mut bench = Stand::new(&[TEA]);
    bench.wait_for_passages(1).await;
    assert_eq!(
        bench.source("When do I pour the tea?"),
        AnswerSource::Extractive
    );
    assert_eq!(bench.source("Where is the milk?"), AnswerSource::Fallback);
    fs::write(bench.folder.path().join(MILK.0), MILK.1).unwrap();
    bench.wait_for_passages(2).await;
    assert_eq!(bench.source("Where is the milk?"), AnswerSource::Extractive);
    fs::remove_file(bench.folder.path().join(TEA.0)).unwrap();
    bench.wait_for_passages(1).await;
    assert_eq!(
        bench.source("When do I pour the tea?"),
        AnswerSource::Fallback
    );
    assert_eq!(bench.problems(), [""; 0]);
}

#[actix::test]
async fn reload_keeps_changes_or_removes_the_knowledge() {
    let mut bench = Stand::new(&[TEA]);
    bench.wait_for_passages(1).await;
    let other = tempfile::tempdir().unwrap();
    fs::write(
        other.path().join("a.md"),
        format!("{}\n# Milk\n{}", TEA.1, MILK.1),
    )
    .unwrap();
    assert_eq!(
        bench
            .actor
            .send(ReloadFallback(settings(Some(other.path()))))
            .await
            .unwrap(),
        Ok(())
    );
    assert_ne!(
        bench.view.borrow().knowledge().passages().len(),
        0,
        "no gap"
    );
    bench.wait_for_passages(2).await;
    assert_eq!(
        bench
            .actor
            .send(ReloadFallback(settings(None)))
            .await
            .unwrap(),
        Ok(())
    );
    assert_eq!(bench.view.borrow().knowledge().passages().len(), 0);
    assert_eq!(
        bench.source("When do I pour the tea?"),
        AnswerSource::Fallback
    );
}

#[actix::test]
async fn problems_are_reported_while_they_last() {
    let mut bench = Stand::new(&[TEA]);
    fs::write(bench.folder.path().join("bad.md"), b"\xff").unwrap();
    bench.wait_for_passages(1).await;
    bench.wait_for_problems(1).await;
    assert_eq!(bench.problems(), ["Knowledge: bad.md: not UTF-8 text."]);
    for n in 0..12 {
        fs::write(bench.folder.path().join(format!("bad{n:02}.md")), b"\xff").unwrap();
    }
    bench.wait_for_problems(13).await;
    assert_eq!(bench.problems().len(), 11);
    assert_eq!(
        bench.problems().last().unwrap(),
        "Knowledge: 3 more problems; the log names them."
    );

    bench
        .published
        .publish_failed_checks(vec!["Self-check: broken.".to_owned()]);
    assert_eq!(bench.problems().last().unwrap(), "Self-check: broken.");
    bench.published.publish_failed_checks(Vec::new());
    assert_eq!(bench.problems().len(), 11);
}

#[actix::test]
async fn rebuilt_actor_keeps_the_knowledge() {
    let mut bench = Stand::new(&[TEA]);
    bench.wait_for_passages(1).await;
    let rebuilt = DegradationActor::new(
        settings(Some(bench.folder.path())),
        bench.published.clone(),
        (),
    )
    .start();
    bench.actor = rebuilt;
    assert_eq!(
        bench.source("When do I pour the tea?"),
        AnswerSource::Extractive
    );
    fs::write(bench.folder.path().join(MILK.0), MILK.1).unwrap();
    bench.wait_for_passages(2).await;
}

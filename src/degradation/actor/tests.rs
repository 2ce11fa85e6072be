//! The actor with a replies file on a real disk.

mod knowledge;

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use tokio::sync::{oneshot, watch};

use super::*;
use crate::actor_exit::CrashForTest;
use crate::domain::AnswerSource;

const GOOD: &str = "[[reply]]\nmatch = ['price']\ntext = 'See /pricing.'";

fn rules(folder: &TempDir, file: &str) -> DegradationSettings {
    let path = folder.path().join("replies.toml");
    fs::write(&path, file).unwrap();
    settings_with(&path)
}

fn settings_with(path: &Path) -> DegradationSettings {
    DegradationSettings {
        replies: Some(path.to_owned()),
        fallback: "Later.".to_owned(),
        ..DegradationSettings::default()
    }
}

async fn wait_for_change<T>(view: &mut watch::Receiver<T>) {
    let limit = Duration::from_secs(10);
    tokio::time::timeout(limit, view.changed())
        .await
        .unwrap()
        .unwrap();
}

fn fallback_for(published: &FallbackWatch, question: &str) -> String {
    let chain = Arc::clone(&published.chain().borrow());
    chain.answer(question).text.to_string()
}

#[actix::test]
async fn built_in_replies_answer_until_the_actor_has_read_the_rules() {
    let folder = tempfile::tempdir().unwrap();
    let published = FallbackWatch::new("Later.");
    let before = published.chain().borrow().answer("what is the price?");
    assert_eq!(before.source, AnswerSource::Template);
    assert_eq!(fallback_for(&published, "xyzzy"), "Later.");
    let mut view = published.chain();
    let _actor = DegradationActor::new(rules(&folder, GOOD), published.clone(), ()).start();
    wait_for_change(&mut view).await;
    assert_eq!(
        fallback_for(&published, "what is the price?"),
        "See /pricing."
    );
}

#[actix::test]
async fn invalid_rules_at_the_start_are_reported_and_the_built_in_replies_answer() {
    let folder = tempfile::tempdir().unwrap();
    let published = FallbackWatch::new("Later.");
    let mut problems = published.reply_problems.subscribe();
    let missing = settings_with(&folder.path().join("missing.toml"));
    let actor = DegradationActor::new(missing, published.clone(), ()).start();
    wait_for_change(&mut problems).await;
    let what = problems.borrow_and_update().first().unwrap().to_string();
    assert!(what.starts_with("missing.toml: cannot be read"), "{what}");
    assert_eq!(fallback_for(&published, "thanks"), "You are welcome!");
    assert_eq!(
        actor
            .send(ReloadFallback(rules(&folder, GOOD)))
            .await
            .unwrap(),
        Ok(())
    );
    assert!(problems.borrow().is_empty());
}

#[actix::test]
async fn reload_applies_valid_rules_and_rejects_invalid_ones() {
    let folder = tempfile::tempdir().unwrap();
    let published = FallbackWatch::new("Later.");
    let actor = DegradationActor::new(rules(&folder, GOOD), published.clone(), ()).start();
    let other = "fallback = 'Soon.'\n[[reply]]\nmatch = ['price']\ntext = 'New.'";
    assert_eq!(
        actor
            .send(ReloadFallback(rules(&folder, other)))
            .await
            .unwrap(),
        Ok(())
    );
    assert_eq!(fallback_for(&published, "price"), "New.");
    assert_eq!(fallback_for(&published, "xyzzy"), "Soon.");

    let bad = rules(&folder, "[[reply]]\nmatch = []\ntext = ''");
    let problems = actor.send(ReloadFallback(bad)).await.unwrap().unwrap_err();
    let lines: Vec<_> = problems.0.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [Some(2), Some(3)]);
    assert_eq!(**published.reply_problems.subscribe().borrow(), *problems.0);
    assert_eq!(fallback_for(&published, "price"), "New.");

    assert_eq!(
        actor
            .send(ReloadFallback(DegradationSettings::default()))
            .await
            .unwrap(),
        Ok(())
    );
    assert!(published.reply_problems.subscribe().borrow().is_empty());
    assert_eq!(fallback_for(&published, "thanks"), "You are welcome!");
}

#[actix::test]
async fn last_of_many_reloads_wins() {
    let folder = tempfile::tempdir().unwrap();
    let published = FallbackWatch::new("Later.");
    let actor =
        DegradationActor::new(DegradationSettings::default(), published.clone(), ()).start();
    let answers = (0..20).map(|n| {
        let path = folder.path().join(format!("{n}.toml"));
        fs::write(&path, format!("fallback = '{n}'")).unwrap();
        actor.send(ReloadFallback(settings_with(&path)))
    });
    for answer in answers.collect::<Vec<_>>() {
        assert_eq!(answer.await.unwrap(), Ok(()));
    }
    assert_eq!(fallback_for(&published, "xyzzy"), "19");
}

#[actix::test]
async fn crash_drops_the_guard_and_a_rebuilt_actor_publishes_to_the_same_channels() {
    let folder = tempfile::tempdir().unwrap();
    let published = FallbackWatch::new("Later.");
    let mut view = published.chain();
    let (guard, dropped) = oneshot::channel::<()>();
    let actor = DegradationActor::new(rules(&folder, GOOD), published.clone(), guard).start();
    wait_for_change(&mut view).await;
    actor.do_send(CrashForTest);
    let limit = Duration::from_secs(10);
    assert!(tokio::time::timeout(limit, dropped).await.unwrap().is_err());
    assert_eq!(fallback_for(&published, "price"), "See /pricing.");

    // The file is invalid now: the rules that the first actor read stay.
    let mut problems = published.reply_problems.subscribe();
    let bad = rules(&folder, "?");
    let rebuilt = DegradationActor::new(bad, published.clone(), ()).start();
    wait_for_change(&mut problems).await;
    assert_eq!(fallback_for(&published, "price"), "See /pricing.");
    let good = rules(&folder, "[[reply]]\nmatch = ['price']\ntext = 'New.'");
    assert_eq!(rebuilt.send(ReloadFallback(good)).await.unwrap(), Ok(()));
    wait_for_change(&mut view).await;
    assert_eq!(view.borrow().answer("price").text.as_ref(), "New.");
}

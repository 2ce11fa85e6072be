//! The `DegradationActor`: loads the operator's reply rules and publishes the fallback chain.
//!
//! The actor answers no visitor. Turns use the published chain, which exists before the actor
//! starts and outlives it. Unreadable rules leave the chain as it is; their problems are published
//! beside it.

use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt as _, AsyncContext as _, AtomicResponse, Context, Handler, Message,
    WrapFuture as _,
};
use tokio::sync::watch;

use crate::settings::{DegradationSettings, Problem, Problems};
use crate::supervised::Crash;

use super::health::Health;
use super::knowledge::folder::News;
use super::ladder::Ladder;
use super::replies::Replies;
use super::rules;
use super::shelf::Shelf;
use super::watching::Watching;

/// Timeout for reading the rules, so that a hanging disk does not block the actor.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The watch channels of the fallback chain and its problems.
///
/// Clones share the channels. A rebuilt actor gets a clone, so receivers stay connected.
#[derive(Clone, Debug)]
pub struct Published {
    ladder: watch::Sender<Arc<Ladder>>,
    problems: watch::Sender<Arc<[Problem]>>,
    knowledge: watch::Sender<Arc<[Problem]>>,
    broken: watch::Sender<Arc<[String]>>,
}

impl Published {
    /// Starts with the built-in replies and this fixed text, so that an answer exists at once.
    pub fn new(fallback: &str) -> Self {
        let chain = Ladder::new(Replies::built_in(), fallback);
        Self {
            ladder: watch::Sender::new(Arc::new(chain)),
            problems: watch::Sender::new(Arc::default()),
            knowledge: watch::Sender::new(Arc::default()),
            broken: watch::Sender::new(Arc::default()),
        }
    }

    /// The current chain. A turn clones the `Arc` and keeps that chain to its end.
    pub fn ladder(&self) -> watch::Receiver<Arc<Ladder>> {
        self.ladder.subscribe()
    }

    /// The problems of the last attempt to read the reply rules. Empty if it succeeded.
    pub fn problems(&self) -> watch::Receiver<Arc<[Problem]>> {
        self.problems.subscribe()
    }

    pub fn health(&self) -> Health {
        Health::new(
            self.problems(),
            self.knowledge.subscribe(),
            self.broken.subscribe(),
        )
    }

    pub(super) fn learn(&self, change: News) {
        let passages = change.index.as_ref().map(|index| index.len());
        tracing::info!(passages, problems = change.problems.len(), "knowledge read");
        for problem in &change.problems {
            tracing::warn!(%problem, "knowledge document skipped");
        }
        // Problems first: whoever sees the new index also sees what it lacks.
        self.knowledge.send_replace(change.problems.into());
        if let Some(index) = change.index {
            self.ladder
                .send_modify(|chain| *chain = Arc::new(Ladder::clone(chain).with_knowledge(index)));
        }
    }

    /// Publishes the failures of a self-check and logs them if they changed.
    pub(super) fn report(&self, broken: Vec<String>) {
        self.broken.send_if_modified(|before| {
            let is_changed = **before != *broken;
            for failure in broken.iter().filter(|_| is_changed) {
                tracing::error!(failure, "self-check failed");
            }
            *before = broken.into();
            is_changed
        });
    }

    /// Publishes a new chain, with the knowledge of the old one; or the problems, if there are any.
    fn take(&self, read: Result<Ladder, Problems>) -> Result<(), Problems> {
        match read {
            Ok(chain) => {
                let knowledge = Arc::clone(self.ladder.borrow().knowledge());
                self.ladder
                    .send_replace(Arc::new(chain.with_knowledge(knowledge)));
                self.problems.send_replace(Arc::default());
                tracing::info!("reply rules read");
                Ok(())
            }
            Err(problems) => {
                let first = problems.0.first().map(tracing::field::display);
                tracing::warn!(problems = problems.0.len(), first, "reply rules rejected");
                self.problems.send_replace(problems.0.as_slice().into());
                Err(problems)
            }
        }
    }
}

/// Settings of the periodic self-check.
#[derive(Clone)]
pub struct Checks {
    /// `None` skips the check of the answer cache.
    pub shelf: Option<Arc<Shelf>>,
    /// A new chain is checked at once, in addition to this interval.
    pub every: Duration,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            shelf: None,
            every: Self::EVERY,
        }
    }
}

impl Checks {
    pub const EVERY: Duration = Duration::from_secs(60);
}

/// Reads the rules at its start and on every `ReloadFallback`.
pub struct DegradationActor {
    first: Option<DegradationSettings>,
    pub(super) published: Published,
    pub(super) watching: Watching,
    pub(super) checks: Checks,
    /// Dropped with the actor, also after a panic, which notifies the supervisor.
    _guard: Box<dyn Send>,
}

impl DegradationActor {
    /// Creates an actor that reads what `settings` name when it starts.
    pub fn new(
        settings: DegradationSettings,
        published: Published,
        guard: impl Send + 'static,
    ) -> Self {
        Self {
            first: Some(settings),
            published,
            watching: Watching::default(),
            checks: Checks::default(),
            _guard: Box::new(guard),
        }
    }

    pub fn checking(self, checks: Checks) -> Self {
        Self { checks, ..self }
    }
}

impl Actor for DegradationActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let Some(settings) = self.first.take() else {
            return;
        };
        self.watch(settings.knowledge.clone(), ctx);
        self.watch_on(ctx);
        // Blocks the mailbox: a `ReloadFallback` in it is newer and must be handled afterwards.
        let first = read(settings).into_actor(self);
        ctx.wait(first.map(|read, actor, ctx| {
            // Not fatal: the problems are published.
            let _ = actor.published.take(read);
            actor.check(ctx);
        }));
    }
}

/// Reads the rules that these settings name and publishes them. Reloads run one after the other.
///
/// The reply comes within 5 s. The knowledge folder is read in the background, without a limit.
///
/// # Errors
///
/// Every problem of the rules. The chain and the watched folder are then unchanged.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), Problems>")]
pub struct Reload(pub DegradationSettings);

impl Handler<Reload> for DegradationActor {
    type Result = AtomicResponse<Self, Result<(), Problems>>;

    fn handle(&mut self, Reload(settings): Reload, _: &mut Self::Context) -> Self::Result {
        let knowledge = settings.knowledge.clone();
        let reading = read(settings).into_actor(self);
        AtomicResponse::new(Box::pin(reading.map(|read, actor, ctx| {
            actor.published.take(read)?;
            actor.check(ctx);
            // Only reached with good rules: otherwise the watched folder stays.
            actor.watch(knowledge, ctx);
            Ok(())
        })))
    }
}

impl Handler<Crash> for DegradationActor {
    type Result = ();

    #[allow(clippy::panic, reason = "simulates a crash in tests")]
    fn handle(&mut self, _: Crash, _: &mut Self::Context) {
        panic!("crashed on command");
    }
}

/// Reads on a blocking thread, with a timeout. A read that hangs keeps its thread until the disk
/// responds.
async fn read(settings: DegradationSettings) -> Result<Ladder, Problems> {
    let for_reader = settings.clone();
    let reading = tokio::task::spawn_blocking(move || rules::read(&for_reader));
    let what = match tokio::time::timeout(READ_TIMEOUT, reading).await {
        Ok(Ok(read)) => return read,
        Ok(Err(_)) => "cannot be read: the reader failed".to_owned(),
        Err(_) => format!("not read within {READ_TIMEOUT:?}"),
    };
    Err(rules::problem(&settings, what))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::path::Path;

    use tempfile::TempDir;
    use tokio::sync::oneshot;

    use super::*;
    use crate::chat::Source;

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

    fn fallback_for(published: &Published, question: &str) -> String {
        let chain = Arc::clone(&published.ladder().borrow());
        chain.answer(question).text.to_string()
    }

    #[actix::test]
    async fn built_in_replies_answer_until_the_actor_has_read_the_rules() {
        let folder = tempfile::tempdir().unwrap();
        let published = Published::new("Later.");
        let before = published.ladder().borrow().answer("what is the price?");
        assert_eq!(before.source, Source::Template);
        assert_eq!(fallback_for(&published, "xyzzy"), "Later.");
        let mut view = published.ladder();
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
        let published = Published::new("Later.");
        let mut problems = published.problems();
        let missing = settings_with(&folder.path().join("missing.toml"));
        let actor = DegradationActor::new(missing, published.clone(), ()).start();
        wait_for_change(&mut problems).await;
        let what = problems.borrow_and_update().first().unwrap().to_string();
        assert!(what.starts_with("missing.toml: cannot be read"), "{what}");
        assert_eq!(fallback_for(&published, "thanks"), "You are welcome!");
        assert_eq!(
            actor.send(Reload(rules(&folder, GOOD))).await.unwrap(),
            Ok(())
        );
        assert!(problems.borrow().is_empty());
    }

    #[actix::test]
    async fn reload_applies_valid_rules_and_rejects_invalid_ones() {
        let folder = tempfile::tempdir().unwrap();
        let published = Published::new("Later.");
        let actor = DegradationActor::new(rules(&folder, GOOD), published.clone(), ()).start();
        let other = "fallback = 'Soon.'\n[[reply]]\nmatch = ['price']\ntext = 'New.'";
        assert_eq!(
            actor.send(Reload(rules(&folder, other))).await.unwrap(),
            Ok(())
        );
        assert_eq!(fallback_for(&published, "price"), "New.");
        assert_eq!(fallback_for(&published, "xyzzy"), "Soon.");

        let bad = rules(&folder, "[[reply]]\nmatch = []\ntext = ''");
        let problems = actor.send(Reload(bad)).await.unwrap().unwrap_err();
        let lines: Vec<_> = problems.0.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [Some(2), Some(3)]);
        assert_eq!(**published.problems().borrow(), *problems.0);
        assert_eq!(fallback_for(&published, "price"), "New.");

        assert_eq!(
            actor
                .send(Reload(DegradationSettings::default()))
                .await
                .unwrap(),
            Ok(())
        );
        assert!(published.problems().borrow().is_empty());
        assert_eq!(fallback_for(&published, "thanks"), "You are welcome!");
    }

    #[actix::test]
    async fn last_of_many_reloads_wins() {
        let folder = tempfile::tempdir().unwrap();
        let published = Published::new("Later.");
        let actor =
            DegradationActor::new(DegradationSettings::default(), published.clone(), ()).start();
        let answers = (0..20).map(|n| {
            let path = folder.path().join(format!("{n}.toml"));
            fs::write(&path, format!("fallback = '{n}'")).unwrap();
            actor.send(Reload(settings_with(&path)))
        });
        for answer in answers.collect::<Vec<_>>() {
            assert_eq!(answer.await.unwrap(), Ok(()));
        }
        assert_eq!(fallback_for(&published, "xyzzy"), "19");
    }

    #[actix::test]
    async fn crash_drops_the_guard_and_a_rebuilt_actor_publishes_to_the_same_channels() {
        let folder = tempfile::tempdir().unwrap();
        let published = Published::new("Later.");
        let mut view = published.ladder();
        let (guard, dropped) = oneshot::channel::<()>();
        let actor = DegradationActor::new(rules(&folder, GOOD), published.clone(), guard).start();
        wait_for_change(&mut view).await;
        actor.do_send(Crash);
        let limit = Duration::from_secs(10);
        assert!(tokio::time::timeout(limit, dropped).await.unwrap().is_err());
        assert_eq!(fallback_for(&published, "price"), "See /pricing.");

        // The file is invalid now: the rules that the first actor read stay.
        let mut problems = published.problems();
        let bad = rules(&folder, "?");
        let rebuilt = DegradationActor::new(bad, published.clone(), ()).start();
        wait_for_change(&mut problems).await;
        assert_eq!(fallback_for(&published, "price"), "See /pricing.");
        let good = rules(&folder, "[[reply]]\nmatch = ['price']\ntext = 'New.'");
        assert_eq!(rebuilt.send(Reload(good)).await.unwrap(), Ok(()));
        wait_for_change(&mut view).await;
        assert_eq!(view.borrow().answer("price").text.as_ref(), "New.");
    }
}

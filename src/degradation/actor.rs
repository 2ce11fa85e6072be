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

use crate::config::{ConfigErrors, DegradationSettings, Problem};

use super::fallback_chain::FallbackChain;
use super::folder_watch::PeriodicJobs;
use super::health::FallbackHealth;
use super::knowledge::folder::FolderChange;
use super::load;
use super::replies::Replies;
use crate::answer_cache::AnswerCache;

/// Timeout for reading the rules, so that a hanging disk does not block the actor.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The watch channels of the fallback chain and its problems.
///
/// Clones share the channels. A rebuilt actor gets a clone, so receivers stay connected.
#[derive(Clone, Debug)]
pub struct FallbackWatch {
    chain: watch::Sender<Arc<FallbackChain>>,
    reply_problems: watch::Sender<Arc<[Problem]>>,
    knowledge_problems: watch::Sender<Arc<[Problem]>>,
    failed_checks: watch::Sender<Arc<[String]>>,
}

impl FallbackWatch {
    /// Starts with the built-in replies and this fixed text, so that an answer exists at once.
    pub fn new(fallback: &str) -> Self {
        let chain = FallbackChain::new(Replies::built_in(), fallback);
        Self {
            chain: watch::Sender::new(Arc::new(chain)),
            reply_problems: watch::Sender::new(Arc::default()),
            knowledge_problems: watch::Sender::new(Arc::default()),
            failed_checks: watch::Sender::new(Arc::default()),
        }
    }

    /// The current chain. A turn clones the `Arc` and keeps that chain to its end.
    pub fn chain(&self) -> watch::Receiver<Arc<FallbackChain>> {
        self.chain.subscribe()
    }

    /// The problems of the last attempt to read the reply rules. Empty if it succeeded.
    pub fn reply_problems(&self) -> watch::Receiver<Arc<[Problem]>> {
        self.reply_problems.subscribe()
    }

    pub fn health(&self) -> FallbackHealth {
        FallbackHealth::new(
            self.reply_problems(),
            self.knowledge_problems.subscribe(),
            self.failed_checks.subscribe(),
        )
    }

    pub(super) fn publish_knowledge(&self, change: FolderChange) {
        let passages = change.index.as_ref().map(|index| index.len());
        tracing::info!(passages, problems = change.problems.len(), "knowledge read");
        for problem in &change.problems {
            tracing::warn!(%problem, "knowledge document skipped");
        }
        // Problems first: whoever sees the new index also sees what it lacks.
        self.knowledge_problems.send_replace(change.problems.into());
        if let Some(index) = change.index {
            self.chain.send_modify(|chain| {
                *chain = Arc::new(FallbackChain::clone(chain).with_knowledge(index))
            });
        }
    }

    /// Publishes the failures of a self-check and logs them if they changed.
    pub(super) fn publish_failed_checks(&self, broken: Vec<String>) {
        self.failed_checks.send_if_modified(|before| {
            let is_changed = **before != *broken;
            for failure in broken.iter().filter(|_| is_changed) {
                tracing::error!(failure, "self-check failed");
            }
            *before = broken.into();
            is_changed
        });
    }

    /// Publishes a new chain, with the knowledge of the old one; or the problems, if there are any.
    fn publish_chain(&self, read: Result<FallbackChain, ConfigErrors>) -> Result<(), ConfigErrors> {
        match read {
            Ok(chain) => {
                let knowledge = Arc::clone(self.chain.borrow().knowledge());
                self.chain
                    .send_replace(Arc::new(chain.with_knowledge(knowledge)));
                self.reply_problems.send_replace(Arc::default());
                tracing::info!("reply rules read");
                Ok(())
            }
            Err(problems) => {
                let first = problems.0.first().map(tracing::field::display);
                tracing::warn!(problems = problems.0.len(), first, "reply rules rejected");
                self.reply_problems
                    .send_replace(problems.0.as_slice().into());
                Err(problems)
            }
        }
    }
}

/// Settings of the periodic self-check.
#[derive(Clone)]
pub struct SelfCheckConfig {
    /// `None` skips the check of the answer cache.
    pub answer_cache: Option<Arc<AnswerCache>>,
    /// A new chain is checked at once, in addition to this interval.
    pub interval: Duration,
}

impl Default for SelfCheckConfig {
    fn default() -> Self {
        Self {
            answer_cache: None,
            interval: Self::DEFAULT_INTERVAL,
        }
    }
}

impl SelfCheckConfig {
    pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
}

/// Reads the rules at its start and on every `ReloadFallback`.
pub struct DegradationActor {
    initial_settings: Option<DegradationSettings>,
    pub(super) published: FallbackWatch,
    pub(super) jobs: PeriodicJobs,
    pub(super) self_check: SelfCheckConfig,
    /// Dropped with the actor, also after a panic, which notifies the supervisor.
    _guard: Box<dyn Send>,
}

impl DegradationActor {
    /// Creates an actor that reads what `settings` name when it starts.
    pub fn new(
        settings: DegradationSettings,
        published: FallbackWatch,
        guard: impl Send + 'static,
    ) -> Self {
        Self {
            initial_settings: Some(settings),
            published,
            jobs: PeriodicJobs::default(),
            self_check: SelfCheckConfig::default(),
            _guard: Box::new(guard),
        }
    }

    pub fn with_self_check(self, checks: SelfCheckConfig) -> Self {
        Self {
            self_check: checks,
            ..self
        }
    }
}

impl Actor for DegradationActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let Some(settings) = self.initial_settings.take() else {
            return;
        };
        self.watch_knowledge(settings.knowledge.clone(), ctx);
        self.start_jobs(ctx);
        // Blocks the mailbox: a `ReloadFallback` in it is newer and must be handled afterwards.
        let first = read_rules(settings).into_actor(self);
        ctx.wait(first.map(|read, actor, ctx| {
            // Not fatal: the problems are published.
            let _ = actor.published.publish_chain(read);
            actor.run_self_check(ctx);
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
#[rtype(result = "Result<(), ConfigErrors>")]
pub struct ReloadFallback(pub DegradationSettings);

impl Handler<ReloadFallback> for DegradationActor {
    type Result = AtomicResponse<Self, Result<(), ConfigErrors>>;

    fn handle(
        &mut self,
        ReloadFallback(settings): ReloadFallback,
        _: &mut Self::Context,
    ) -> Self::Result {
        let knowledge = settings.knowledge.clone();
        let reading = read_rules(settings).into_actor(self);
        AtomicResponse::new(Box::pin(reading.map(|read, actor, ctx| {
            actor.published.publish_chain(read)?;
            actor.run_self_check(ctx);
            // Only reached with good rules: otherwise the watched folder stays.
            actor.watch_knowledge(knowledge, ctx);
            Ok(())
        })))
    }
}

/// Reads on a blocking thread, with a timeout. A read that hangs keeps its thread until the disk
/// responds.
async fn read_rules(settings: DegradationSettings) -> Result<FallbackChain, ConfigErrors> {
    let for_reader = settings.clone();
    let reading = tokio::task::spawn_blocking(move || load::load_chain(&for_reader));
    let what = match tokio::time::timeout(READ_TIMEOUT, reading).await {
        Ok(Ok(read)) => return read,
        Ok(Err(_)) => "cannot be read: the reader failed".to_owned(),
        Err(_) => format!("not read within {READ_TIMEOUT:?}"),
    };
    Err(load::rules_problem(&settings, what))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::path::Path;

    use tempfile::TempDir;
    use tokio::sync::oneshot;

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
        let mut problems = published.reply_problems();
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
        assert_eq!(**published.reply_problems().borrow(), *problems.0);
        assert_eq!(fallback_for(&published, "price"), "New.");

        assert_eq!(
            actor
                .send(ReloadFallback(DegradationSettings::default()))
                .await
                .unwrap(),
            Ok(())
        );
        assert!(published.reply_problems().borrow().is_empty());
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
        let mut problems = published.reply_problems();
        let bad = rules(&folder, "?");
        let rebuilt = DegradationActor::new(bad, published.clone(), ()).start();
        wait_for_change(&mut problems).await;
        assert_eq!(fallback_for(&published, "price"), "See /pricing.");
        let good = rules(&folder, "[[reply]]\nmatch = ['price']\ntext = 'New.'");
        assert_eq!(rebuilt.send(ReloadFallback(good)).await.unwrap(), Ok(()));
        wait_for_change(&mut view).await;
        assert_eq!(view.borrow().answer("price").text.as_ref(), "New.");
    }
}

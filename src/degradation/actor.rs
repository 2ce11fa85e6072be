//! The `DegradationActor`: loads the operator's reply rules, scans the knowledge folder for changes,
//! checks the fallback chain, and publishes all of it.
//!
//! The actor answers no visitor. Turns use the published chain, which exists before the actor
//! starts and outlives it. Unreadable rules leave the chain as it is; their problems are published
//! beside it. Scans and checks run off the actor's thread, and at most one of each runs at a time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorFutureExt as _, AsyncContext as _, AtomicResponse, Context, Handler, Message,
    WrapFuture as _,
};
use tokio::task::spawn_blocking;

use super::fallback_chain::FallbackChain;
use super::knowledge::folder::{FolderChange, KnowledgeFolder};
use super::published::FallbackWatch;
use super::{load, self_check};
use crate::answer_cache::AnswerCache;
use crate::config::{ConfigErrors, DegradationSettings};

/// Timeout for reading the rules, so that a hanging disk does not block the actor.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval between comparisons of the folder's names, sizes and times.
const SCAN_INTERVAL: Duration = Duration::from_secs(2);

/// A scan that takes longer is reported in the status.
const SLOW_SCAN: Duration = Duration::from_secs(60);

/// Settings of the periodic self-check.
#[derive(Clone)]
pub struct SelfCheckConfig {
    /// `None` skips the check of the answer cache.
    pub answer_cache: Option<Arc<AnswerCache>>,
    /// A new chain is checked at once, in addition to this interval.
    pub interval: Duration,
}

impl SelfCheckConfig {
    pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
}

/// Reads the rules at its start and on every `ReloadFallback`.
pub struct DegradationActor {
    initial_settings: Option<DegradationSettings>,
    published: FallbackWatch,
    self_check: SelfCheckConfig,
    jobs: PeriodicJobs,
    /// Dropped with the actor, also after a panic, which notifies the supervisor.
    _guard: Box<dyn Send>,
}

#[derive(Default)]
struct PeriodicJobs {
    root: Option<PathBuf>,
    /// `None` while a scan has it.
    folder: Option<KnowledgeFolder>,
    /// Start of the running scan. A hanging disk blocks one scan and prevents further ones.
    scan_started: Option<Instant>,
    /// The folder must be read again after the running scan.
    must_rescan: bool,
    is_checking: bool,
    /// The chain was replaced during the running check.
    must_check_again: bool,
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
            self_check: SelfCheckConfig {
                answer_cache: None,
                interval: SelfCheckConfig::DEFAULT_INTERVAL,
            },
            jobs: PeriodicJobs::default(),
            _guard: Box::new(guard),
        }
    }

    pub fn with_self_check(self, self_check: SelfCheckConfig) -> Self {
        Self { self_check, ..self }
    }

    /// Reads this folder now, changed or not, and watches it. `None` removes the knowledge.
    fn watch_knowledge(&mut self, root: Option<PathBuf>, ctx: &mut Context<Self>) {
        if root.is_none() && self.jobs.root.is_some() {
            self.published.publish_knowledge(FolderChange {
                index: Some(Arc::default()),
                problems: Vec::new(),
            });
        }
        self.jobs.root = root;
        self.jobs.must_rescan = true;
        self.scan_knowledge(ctx);
    }

    fn scan_knowledge(&mut self, ctx: &mut Context<Self>) {
        let jobs = &mut self.jobs;
        let Some(root) = jobs.root.clone().filter(|_| jobs.scan_started.is_none()) else {
            return;
        };
        // A folder of an earlier root is dropped.
        let current = jobs.folder.take().filter(|folder| folder.root() == root);
        let mut folder = current.unwrap_or_else(|| KnowledgeFolder::new(root));
        if std::mem::take(&mut jobs.must_rescan) {
            folder.force_rescan();
        }
        jobs.scan_started = Some(Instant::now());
        let scan = spawn_blocking(move || (folder.scan(), folder)).into_actor(self);
        ctx.spawn(scan.map(|result, actor, ctx| {
            let jobs = &mut actor.jobs;
            jobs.scan_started = None;
            match result {
                Ok((change, folder)) if jobs.root.as_deref() == Some(folder.root()) => {
                    jobs.folder = Some(folder);
                    if let Some(change) = change {
                        actor.published.publish_knowledge(change);
                        actor.run_self_check(ctx);
                    }
                }
                // The root has changed meanwhile; the folder of the old one is dropped.
                Ok(_) => {}
                // The next scan starts without a folder.
                Err(_) => tracing::error!("knowledge scan panicked"),
            }
            if actor.jobs.must_rescan {
                actor.scan_knowledge(ctx);
            }
        }));
    }

    /// Checks the current chain and the answer cache. If a check runs already, repeats it after.
    fn run_self_check(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.jobs.is_checking, true) {
            self.jobs.must_check_again = true;
            return;
        }
        let chain = Arc::clone(&self.published.chain().borrow());
        let cache = self.self_check.answer_cache.clone();
        let check = async move {
            let result = spawn_blocking(move || self_check::check_chain(&chain)).await;
            let mut failures = result.unwrap_or_else(|_| vec!["Self-check: it failed.".to_owned()]);
            if let Some(cache) = cache {
                failures.extend(self_check::check_cache(&cache).await);
            }
            failures
        };
        ctx.spawn(check.into_actor(self).map(|mut failures, actor, ctx| {
            let jobs = &mut actor.jobs;
            jobs.is_checking = false;
            let scan_started = jobs.scan_started;
            if scan_started.is_some_and(|since| since.elapsed() > SLOW_SCAN) {
                let message =
                    "Knowledge: the folder does not answer; what was read before still does.";
                failures.push(message.to_owned());
            }
            actor.published.publish_failed_checks(failures);
            if std::mem::take(&mut jobs.must_check_again) {
                actor.run_self_check(ctx);
            }
        }));
    }
}

impl Actor for DegradationActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let Some(settings) = self.initial_settings.take() else {
            return;
        };
        self.watch_knowledge(settings.knowledge.clone(), ctx);
        ctx.run_interval(SCAN_INTERVAL, Self::scan_knowledge);
        ctx.run_interval(self.self_check.interval, Self::run_self_check);
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
    let reading = spawn_blocking(move || load::load_chain(&for_reader));
    let what = match tokio::time::timeout(READ_TIMEOUT, reading).await {
        Ok(Ok(read)) => return read,
        Ok(Err(_)) => "cannot be read: the reader failed".to_owned(),
        Err(_) => format!("not read within {READ_TIMEOUT:?}"),
    };
    Err(load::rules_problem(&settings, what))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

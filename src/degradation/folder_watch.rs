//! The periodic jobs of the `DegradationActor`: it scans the knowledge folder for changes, and
//! checks the chain. Both run off its thread, and at most one of each runs at a time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{ActorFutureExt as _, AsyncContext as _, Context, WrapFuture as _};

use super::actor::DegradationActor;
use super::knowledge::folder::{FolderChange, KnowledgeFolder};
use super::self_check;

/// Interval between comparisons of the folder's names, sizes and times.
const SCAN_INTERVAL: Duration = Duration::from_secs(2);

/// A scan that takes longer is reported in the status.
const SLOW_SCAN: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct PeriodicJobs {
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
    /// Reads this folder now, changed or not, and watches it. `None` removes the knowledge.
    pub(super) fn watch_knowledge(&mut self, root: Option<PathBuf>, ctx: &mut Context<Self>) {
        let jobs = &mut self.jobs;
        let had_root = jobs.root.is_some();
        jobs.root = root;
        jobs.must_rescan = true;
        if jobs.root.is_none() && had_root {
            self.published.publish_knowledge(FolderChange {
                index: Some(Arc::default()),
                problems: Vec::new(),
            });
        }
        self.scan_knowledge(ctx);
    }

    pub(super) fn start_jobs(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(SCAN_INTERVAL, Self::scan_knowledge);
        ctx.run_interval(self.self_check.interval, Self::run_self_check);
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
        let look = tokio::task::spawn_blocking(move || (folder.scan(), folder)).into_actor(self);
        ctx.spawn(look.map(|result, actor, ctx| {
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
    pub(super) fn run_self_check(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.jobs.is_checking, true) {
            self.jobs.must_check_again = true;
            return;
        }
        let chain = Arc::clone(&self.published.chain().borrow());
        let cache = self.self_check.answer_cache.clone();
        let check = async move {
            let result = tokio::task::spawn_blocking(move || self_check::check_chain(&chain)).await;
            let mut failures = result.unwrap_or_else(|_| vec!["Self-check: it failed.".to_owned()]);
            if let Some(cache) = cache {
                failures.extend(self_check::check_cache(&cache).await);
            }
            failures
        };
        ctx.spawn(check.into_actor(self).map(|mut failures, actor, ctx| {
            actor.jobs.is_checking = false;
            if actor
                .jobs
                .scan_started
                .is_some_and(|since| since.elapsed() > SLOW_SCAN)
            {
                let message =
                    "Knowledge: the folder does not answer; what was read before still does.";
                failures.push(message.to_owned());
            }
            actor.published.publish_failed_checks(failures);
            if std::mem::take(&mut actor.jobs.must_check_again) {
                actor.run_self_check(ctx);
            }
        }));
    }
}

#[cfg(test)]
mod tests;

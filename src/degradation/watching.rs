//! The periodic jobs of the `DegradationActor`: it scans the knowledge folder for changes, and
//! checks the chain. Both run off its thread, and at most one of each runs at a time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{ActorFutureExt as _, AsyncContext as _, Context, WrapFuture as _};

use super::actor::DegradationActor;
use super::knowledge::folder::{Folder, News};
use super::selfcheck;

/// Interval between comparisons of the folder's names, sizes and times.
const SCAN_INTERVAL: Duration = Duration::from_secs(2);

/// A scan that takes longer is reported in the status.
const SLOW_SCAN: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Watching {
    root: Option<PathBuf>,
    /// `None` while a scan has it.
    folder: Option<Folder>,
    /// Start of the running scan. A hanging disk blocks one scan and prevents further ones.
    looking: Option<Instant>,
    /// The folder must be read again after the running scan.
    again: bool,
    checking: bool,
    /// The chain was replaced during the running check.
    check_again: bool,
}

impl DegradationActor {
    /// Reads this folder now, changed or not, and watches it. `None` removes the knowledge.
    pub(super) fn watch(&mut self, root: Option<PathBuf>, ctx: &mut Context<Self>) {
        let jobs = &mut self.watching;
        let had_root = jobs.root.is_some();
        jobs.root = root;
        jobs.again = true;
        if jobs.root.is_none() && had_root {
            self.published.learn(News {
                index: Some(Arc::default()),
                problems: Vec::new(),
            });
        }
        self.look(ctx);
    }

    pub(super) fn watch_on(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(SCAN_INTERVAL, Self::look);
        ctx.run_interval(self.checks.every, Self::check);
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        let jobs = &mut self.watching;
        let Some(root) = jobs.root.clone().filter(|_| jobs.looking.is_none()) else {
            return;
        };
        // A folder of an earlier root is dropped.
        let current = jobs.folder.take().filter(|folder| folder.root() == root);
        let mut folder = current.unwrap_or_else(|| Folder::new(root));
        if std::mem::take(&mut jobs.again) {
            folder.forget();
        }
        jobs.looking = Some(Instant::now());
        let look = tokio::task::spawn_blocking(move || (folder.look(), folder)).into_actor(self);
        ctx.spawn(look.map(|result, actor, ctx| {
            let jobs = &mut actor.watching;
            jobs.looking = None;
            match result {
                Ok((change, folder)) if jobs.root.as_deref() == Some(folder.root()) => {
                    jobs.folder = Some(folder);
                    if let Some(change) = change {
                        actor.published.learn(change);
                        actor.check(ctx);
                    }
                }
                // The root has changed meanwhile; the folder of the old one is dropped.
                Ok(_) => {}
                // The next scan starts without a folder.
                Err(_) => tracing::error!("knowledge scan panicked"),
            }
            if actor.watching.again {
                actor.look(ctx);
            }
        }));
    }

    /// Checks the current chain and the answer cache. If a check runs already, repeats it after.
    pub(super) fn check(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.watching.checking, true) {
            self.watching.check_again = true;
            return;
        }
        let chain = Arc::clone(&self.published.ladder().borrow());
        let cache = self.checks.shelf.clone();
        let check = async move {
            let result = tokio::task::spawn_blocking(move || selfcheck::walk(&chain)).await;
            let mut failures = result.unwrap_or_else(|_| vec!["Self-check: it failed.".to_owned()]);
            if let Some(cache) = cache {
                failures.extend(selfcheck::cache(&cache).await);
            }
            failures
        };
        ctx.spawn(check.into_actor(self).map(|mut failures, actor, ctx| {
            actor.watching.checking = false;
            if actor
                .watching
                .looking
                .is_some_and(|since| since.elapsed() > SLOW_SCAN)
            {
                let message =
                    "Knowledge: the folder does not answer; what was read before still does.";
                failures.push(message.to_owned());
            }
            actor.published.report(failures);
            if std::mem::take(&mut actor.watching.check_again) {
                actor.check(ctx);
            }
        }));
    }
}

#[cfg(test)]
mod tests;

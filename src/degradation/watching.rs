//! What the DegradationActor does by the clock: it looks whether the knowledge folder has changed, and walks
//! the ladder to see that it holds, also whenever there is a new one. Both off its thread; at most one of each is under way.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{ActorFutureExt as _, AsyncContext as _, Context, WrapFuture as _};

use super::actor::DegradationActor;
use super::knowledge::folder::{Folder, News};
use super::selfcheck;

/// How often the folder's names, sizes and times are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// A look at the folder that takes longer is said.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

/// What is watched, and what is under way.
#[derive(Debug, Default)]
pub(super) struct Watching {
    root: Option<PathBuf>,
    /// Here between two looks.
    folder: Option<Folder>,
    /// Since when a look is under way. A disk that hangs holds one, and no more.
    looking: Option<Instant>,
    /// Whether all is to be read again once that look is over.
    again: bool,
    checking: bool,
    /// Whether there is another ladder than the one that is being walked.
    check_again: bool,
}

impl DegradationActor {
    /// Reads this folder now, changed or not, and watches it from now on; without one, forgets what was read.
    pub(super) fn watch(&mut self, root: Option<PathBuf>, ctx: &mut Context<Self>) {
        let watching = &mut self.watching;
        let had = watching.root.is_some();
        watching.root = root;
        watching.again = true;
        if watching.root.is_none() && had {
            self.published.learn(News {
                index: Some(Arc::default()),
                problems: Vec::new(),
            });
        }
        self.look(ctx);
    }

    /// Looks and checks again and again.
    pub(super) fn watch_on(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(LOOK, Self::look);
        ctx.run_interval(self.checks.every, Self::check);
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        let watching = &mut self.watching;
        let Some(root) = watching.root.clone().filter(|_| watching.looking.is_none()) else {
            return;
        };
        let kept = watching
            .folder
            .take()
            .filter(|folder| folder.root() == root);
        let mut folder = kept.unwrap_or_else(|| Folder::new(root));
        if std::mem::take(&mut watching.again) {
            folder.forget();
        }
        watching.looking = Some(Instant::now());
        let look = tokio::task::spawn_blocking(move || (folder.look(), folder)).into_actor(self);
        ctx.spawn(look.map(|looked, actor, ctx| {
            let watching = &mut actor.watching;
            watching.looking = None;
            match looked {
                Ok((news, folder)) if watching.root.as_deref() == Some(folder.root()) => {
                    watching.folder = Some(folder);
                    if let Some(news) = news {
                        actor.published.learn(news);
                        actor.check(ctx);
                    }
                }
                Ok(_) => {}
                // The next look begins anew.
                Err(_) => tracing::error!("reading the knowledge failed"),
            }
            if actor.watching.again {
                actor.look(ctx);
            }
        }));
    }

    /// Walks the ladder as it now is, and looks at the saved answers; while that is under way, once more afterwards.
    pub(super) fn check(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.watching.checking, true) {
            self.watching.check_again = true;
            return;
        }
        let ladder = Arc::clone(&self.published.ladder().borrow());
        let shelf = self.checks.shelf.clone();
        let check = async move {
            let walked = tokio::task::spawn_blocking(move || selfcheck::walk(&ladder)).await;
            let mut broken = walked.unwrap_or_else(|_| vec!["Self-check: it failed.".to_owned()]);
            if let Some(shelf) = shelf {
                broken.extend(selfcheck::cache(&shelf).await);
            }
            broken
        };
        ctx.spawn(check.into_actor(self).map(|mut broken, actor, ctx| {
            actor.watching.checking = false;
            if actor
                .watching
                .looking
                .is_some_and(|since| since.elapsed() > LOOK_LIMIT)
            {
                let what =
                    "Knowledge: the folder does not answer; what was read before still does.";
                broken.push(what.to_owned());
            }
            actor.published.report(broken);
            if std::mem::take(&mut actor.watching.check_again) {
                actor.check(ctx);
            }
        }));
    }
}

#[cfg(test)]
mod tests;

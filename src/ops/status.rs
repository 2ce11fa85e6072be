//! The service's state as everyone is told it: computed here, published on a `watch`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::mode::{Held, can_be_asked, mode_of};
use crate::chat::{Mode, ProviderView, StatusView};
use crate::provider::backend::{Backend, Clock, Vitals};

/// How often the state is looked at: often enough for a page that shows a change at once, seldom enough to cost nothing.
const LOOK: Duration = Duration::from_millis(200);

/// What visitors are told: what still works first.
const fn message(mode: Mode) -> &'static str {
    match mode {
        Mode::Normal => "",
        Mode::Degraded => "Answers come from a backup model.",
        Mode::Outage => "You still get prepared replies. Our AI assistant is unavailable at the moment.",
    }
}

/// Computes the state.
pub struct StatusBoard {
    backends: Arc<[Arc<Backend>]>,
    clock: Clock,
    random: fn() -> u64,
    held: Held,
    view: watch::Sender<Arc<StatusView>>,
}

impl StatusBoard {
    /// A board for these backends, which begins as normal.
    pub fn new(backends: Arc<[Arc<Backend>]>, clock: Clock, random: fn() -> u64) -> Self {
        let view = StatusView {
            mode: Mode::Normal,
            since: clock.wall(),
            incident: None,
            message: String::new(),
            active: None,
            providers: Vec::new(),
        };
        let mut board =
            Self { backends, clock, random, held: Held::default(), view: watch::Sender::new(Arc::new(view)) };
        board.look();
        board
    }

    /// The state, now and later.
    pub fn watch(&self) -> watch::Receiver<Arc<StatusView>> {
        self.view.subscribe()
    }

    /// Looks at the providers now and then, for ever.
    pub async fn run(mut self) {
        let mut tick = tokio::time::interval(LOOK);
        loop {
            tick.tick().await;
            self.look();
        }
    }

    fn look(&mut self) {
        let now = self.clock.wall();
        let all: Vec<(Arc<str>, Vitals)> =
            self.backends.iter().map(|one| (Arc::clone(&one.name), one.vitals.borrow().clone())).collect();
        let seen = mode_of(all.iter().map(|(_, vitals)| vitals), now);
        let mode = self.held.see(seen, self.clock.now());
        let before = Arc::clone(&self.view.borrow());
        let mut view = StatusView {
            active: all
                .iter()
                .find(|(_, vitals)| can_be_asked(vitals, now))
                .map(|(name, _)| Arc::clone(name)),
            providers: all
                .into_iter()
                .map(|(name, vitals)| ProviderView { name, state: vitals.state })
                .collect(),
            ..StatusView::clone(&before)
        };
        if mode != before.mode {
            view.mode = mode;
            view.since = now;
            message(mode).clone_into(&mut view.message);
            view.incident = match mode {
                Mode::Normal => None,
                Mode::Degraded | Mode::Outage => {
                    before.incident.clone().or_else(|| Some(format!("inc-{:016x}", (self.random)())))
                }
            };
            tracing::info!(mode = ?mode, incident = view.incident, "mode changed");
        }
        if view != *before {
            self.view.send_replace(Arc::new(view));
        }
    }
}

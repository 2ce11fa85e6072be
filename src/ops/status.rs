//! The service's state as everyone is told it: computed here, published on a `watch`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::mode::{Held, mode_of};
use crate::chat::{Mode, ProviderView, StatusView};
use crate::provider::backend::{Backend, Clock, Vitals};
use crate::router::actor::candidate;
use crate::router::rank::{self, Candidate, Order, Wish};
use crate::settings::Strategy;

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
    strategy: Strategy,
    clock: Clock,
    random: fn() -> u64,
    held: Held,
    view: watch::Sender<Arc<StatusView>>,
}

impl StatusBoard {
    /// A board for these backends, which begins as normal.
    pub fn new(backends: Arc<[Arc<Backend>]>, strategy: Strategy, clock: Clock, random: fn() -> u64) -> Self {
        let view = StatusView {
            mode: Mode::Normal,
            since: clock.wall(),
            incident: None,
            message: String::new(),
            active: None,
            providers: Vec::new(),
        };
        let (held, view) = (Held::default(), watch::Sender::new(Arc::new(view)));
        let mut board = Self { backends, strategy, clock, random, held, view };
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
        let seen = mode_of(self.strategy, all.iter().map(|(_, vitals)| vitals), now);
        let mode = self.held.see(seen, self.clock.now());
        let before = Arc::clone(&self.view.borrow());
        let mut view = StatusView {
            active: self.active(),
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

    /// Who would be asked next. Where chance or turns decide, it is the heaviest, or the first of those that take turns: the page is told of
    /// changes, not of every draw.
    fn active(&self) -> Option<Arc<str>> {
        let now = self.clock.wall();
        let can = |one: &&Arc<Backend>| one.vitals.borrow().can_be_asked(now);
        // Nor does it change with every call to one that is not known yet.
        let candidate = |one: &Arc<Backend>| Candidate { asked: false, ..candidate(one) };
        let candidates: Vec<_> = self.backends.iter().filter(can).map(candidate).collect();
        let place = match self.strategy {
            Strategy::Weighted => {
                let heaviest = |(place, one): &(usize, &Candidate)| (one.weight, std::cmp::Reverse(*place));
                candidates.iter().enumerate().max_by_key(heaviest)?.0
            }
            strategy => {
                let by = Order { strategy, chance: 0.0, turn_of: 0 };
                *rank::order(&candidates, by, &Wish::default(), &[]).first()?
            }
        };
        candidates.get(place).map(|one| Arc::clone(&one.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::ProviderState;
    use crate::provider::paused::Paused;
    use crate::provider::spending::Terms;
    use crate::provider::stand::{Plan, Stand};
    use crate::settings::Choice as _;

    /// Who would be asked next under each strategy, in the order that they are listed to the operator.
    fn active(stands: &[Stand]) -> Vec<String> {
        let backends: Arc<[_]> = stands.iter().map(|stand| Arc::clone(&stand.backend)).collect();
        let next = |strategy: &Strategy| {
            let board = StatusBoard::new(Arc::clone(&backends), *strategy, Clock::start(), || 7);
            let active = board.watch().borrow().active.clone();
            active.map(|name| name.to_string()).unwrap_or_default()
        };
        Strategy::ALL.iter().map(next).collect()
    }

    #[actix_rt::test(system = "Paused")]
    async fn who_is_next_is_said_by_the_strategy() {
        let plans = [("a", 1, 3.0, 900), ("b", 5, 2.0, 300), ("c", 5, 1.0, 600)];
        let mut stands = Vec::new();
        for (name, weight, price, ms) in plans {
            let terms = Terms { prices: Some((price, price)), daily_budget_usd: None };
            let stand = Stand::alone(Plan { weight, terms, ..Plan::new(name) });
            stand.admit().await.unwrap().first_token(Duration::from_millis(ms));
            stand.vitals().await;
            stands.push(stand);
        }
        // priority, weighted, round_robin, fastest, cheapest
        assert_eq!(active(&stands), ["a", "b", "a", "b", "c"]);
        let later = Some(Clock::start().wall().plus(Duration::from_secs(3_600)));
        let open = Vitals { state: ProviderState::Open, retry_at: later, ..Vitals::default() };
        stands[0] = Stand::alone(Plan { vitals: open.clone(), ..Plan::new("a") });
        stands[0].vitals().await;
        assert_eq!(active(&stands), ["b", "b", "b", "b", "c"]);
        for place in [1, 2] {
            stands[place] = Stand::alone(Plan { vitals: open.clone(), ..Plan::new("b") });
            stands[place].vitals().await;
        }
        assert_eq!(active(&stands), [""; 5]);
    }
}

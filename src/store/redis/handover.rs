//! Hands the journal over while Redis is there: in its order, each record as it stands, so that doing it twice does no harm.
//!
//! What Redis acknowledged stays in the journal for a little while: a Redis that dies may have lost its last seconds, and then, over the next
//! connection, they are handed over again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::offer::Offered;
use super::remote::Remote;
use crate::store::sled::{Changed, Mark, SledStore};

/// How long a record that was handed over stays in the journal. Longer than a Redis that writes its log once a second may lose.
const SETTLES: Duration = Duration::from_secs(5);

/// How long a record is left alone whose place is taken by something else.
const REFUSED: Duration = Duration::from_secs(60);

/// The journal is looked through so often at most, and at least.
const AT_MOST: Duration = Duration::from_millis(20);
const AT_LEAST: Duration = Duration::from_secs(1);

/// Over a new connection, instances begin within this time, each by chance.
const SPREAD: Duration = Duration::from_millis(200);

/// Marks that are read at once, and records that are handed over at once.
const PAGE: usize = 256;
const AT_ONCE: usize = 32;

/// What is remembered of records that were handed over; with more, they are handed over once more.
const REMEMBERED: usize = 50_000;

/// One record that needs not be handed over for now.
struct Rest {
    mark: Mark,
    /// Over which connection it was.
    connection: u64,
    until: Instant,
    /// Whether it is done with then.
    taken: bool,
}

/// What hands the journal over.
pub(super) struct Handover {
    pub(super) local: Arc<SledStore>,
    pub(super) remote: Remote,
    /// Something was marked.
    pub(super) wake: Arc<Notify>,
    /// How many passes through the journal began, and which of them was the last to leave nothing to be handed over.
    pub(super) passes: watch::Sender<(u64, u64)>,
    pub(super) chance: fn() -> f64,
}

impl Handover {
    /// Hands over for ever.
    pub(super) async fn run(self) {
        let mut resting: HashMap<String, Rest> = HashMap::new();
        let mut connection = 0;
        loop {
            let _ = timeout(AT_LEAST, self.wake.notified()).await;
            if !self.remote.link.is_up() {
                continue;
            }
            let present = self.remote.link.connection();
            if present != connection {
                connection = present;
                sleep(SPREAD.mul_f64((self.chance)().clamp(0.0, 1.0))).await;
            }
            self.passes.send_modify(|(begun, _)| *begun += 1);
            let whole = self.pass(&mut resting, connection).await;
            self.passes.send_if_modified(|(begun, clean)| {
                if whole {
                    *clean = *begun;
                }
                whole
            });
            if resting.len() > REMEMBERED {
                resting.clear();
            }
            sleep(AT_MOST).await;
        }
    }

    /// Goes through the journal once. True where nothing is left to be handed over for now.
    async fn pass(&self, resting: &mut HashMap<String, Rest>, connection: u64) -> bool {
        let mut after = None;
        let mut whole = true;
        loop {
            let Ok(page) = self.local.marks(after.clone(), PAGE).await else {
                return false;
            };
            let Some(last) = page.last() else {
                return whole;
            };
            after = Some(last.clone());
            let mut done = Vec::new();
            let mut fresh = Vec::new();
            for mark in page {
                let rest = resting.get(&mark.name()).filter(|rest| {
                    rest.mark == mark && (rest.connection == connection || !rest.taken)
                });
                match rest {
                    Some(rest) if rest.until > Instant::now() => {}
                    Some(rest) if rest.taken => {
                        resting.remove(&mark.name());
                        done.push(mark);
                    }
                    Some(_) | None => fresh.push(mark),
                }
            }
            self.local.unmark(done);
            let Ok(fresh) = self.local.standing(fresh).await else {
                return false;
            };
            let mut fresh = fresh.into_iter().peekable();
            while fresh.peek().is_some() {
                let some: Vec<_> = fresh.by_ref().take(AT_ONCE).collect();
                // What was forgotten goes before what was begun anew.
                let (first, rest): (Vec<_>, Vec<_>) = some
                    .into_iter()
                    .partition(|(mark, _)| matches!(mark.changed, Changed::Forgotten(_)));
                for group in [first, rest] {
                    let (marks, standing): (Vec<_>, Vec<_>) = group.into_iter().unzip();
                    let came =
                        join_all(standing.into_iter().map(|one| self.remote.offer(one))).await;
                    for (mark, came) in marks.into_iter().zip(came) {
                        match came {
                            Offered::Away => return false,
                            Offered::Changed => {
                                whole = false;
                                self.wake.notify_one();
                            }
                            // Twice, it would take along what was begun anew.
                            Offered::Taken if matches!(mark.changed, Changed::Forgotten(_)) => {
                                self.local.unmark(vec![mark]);
                            }
                            Offered::Taken | Offered::Refused => {
                                let taken = came == Offered::Taken;
                                let until = Instant::now() + if taken { SETTLES } else { REFUSED };
                                resting.insert(
                                    mark.name(),
                                    Rest {
                                        mark,
                                        connection,
                                        until,
                                        taken,
                                    },
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

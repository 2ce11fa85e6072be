//! Rebuilds an actor that panicked. actix's own `Supervisor` restarts on a stop, not on a panic, which kills an actor for good.
//!
//! A plain loop, not an actor, so that nothing supervises the supervisor but its own `catch_unwind`.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::supervised::{ChildDown, Guard};

/// Ends that wait to be looked at.
const WAITING: usize = 256;

/// More ends of one actor than this within [`SPELL`] are no accident: the service says that it is not ready.
const TOO_MANY: usize = 10;

/// The time within which ends are counted.
const SPELL: Duration = Duration::from_secs(30);

/// The pause before the next try to rebuild an actor that ends too often, or does not start.
const PAUSE: Duration = Duration::from_secs(1);

/// How often it is looked whether calm has returned.
const LOOK: Duration = Duration::from_secs(1);

/// How to make an actor and tell everyone where it is.
type Rebuild = Box<dyn Fn(Guard) + Send>;

struct Child {
    rebuild: Rebuild,
    /// Within the last [`SPELL`].
    ends: VecDeque<Instant>,
    /// Whether its next try waits for the end of a pause.
    paused: bool,
}

/// Knows how to rebuild each actor, and when each ended.
pub struct Supervisor {
    children: HashMap<Arc<str>, Child>,
    tell: mpsc::Sender<ChildDown>,
    hear: mpsc::Receiver<ChildDown>,
    steady: watch::Sender<bool>,
}

impl Default for Supervisor {
    fn default() -> Self {
        let (tell, hear) = mpsc::channel(WAITING);
        Self { children: HashMap::new(), tell, hear, steady: watch::Sender::new(true) }
    }
}

impl Supervisor {
    /// Starts an actor and sees to it from now on.
    pub fn adopt(&mut self, name: Arc<str>, rebuild: impl Fn(Guard) + Send + 'static) {
        rebuild(Guard::new(Arc::clone(&name), self.tell.clone()));
        self.children
            .insert(name, Child { rebuild: Box::new(rebuild), ends: VecDeque::new(), paused: false });
    }

    /// False while an actor ends again and again.
    pub fn steady(&self) -> watch::Receiver<bool> {
        self.steady.subscribe()
    }

    /// Rebuilds what ends, for ever. Must run where the actors are to live.
    pub async fn run(mut self) {
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                down = self.hear.recv() => match down {
                    Some(down) => self.rebuild(down.name),
                    None => return,
                },
                _ = look.tick() => {}
            }
            let now = Instant::now();
            for child in self.children.values_mut() {
                child.ends.retain(|end| now.duration_since(*end) < SPELL);
            }
            let steady = self.children.values().all(|child| child.ends.len() <= TOO_MANY);
            self.steady.send_if_modified(|known| std::mem::replace(known, steady) != steady);
        }
    }

    /// Rebuilds one that ended; one that ends too often, or does not start, after a pause that holds nobody else up.
    fn rebuild(&mut self, name: Arc<str>) {
        let Some(child) = self.children.get_mut(&name) else { return };
        let often = child.ends.len() >= TOO_MANY && !child.paused;
        if !child.paused {
            child.ends.push_back(Instant::now());
            tracing::error!(actor = %name, ends = child.ends.len(), "an actor panicked; it is rebuilt");
        }
        child.paused = false;
        if often {
            child.paused = true;
            return self.later(name);
        }
        let guard = Guard::new(Arc::clone(&name), self.tell.clone());
        // A panic here drops the guard, which asks for the next try.
        if catch_unwind(AssertUnwindSafe(|| (child.rebuild)(guard))).is_err() {
            tracing::error!(actor = %name, "an actor could not be rebuilt; it is tried again");
        }
    }

    /// Asks for the next try after a pause.
    fn later(&self, name: Arc<str>) {
        let tell = self.tell.clone();
        actix::spawn(async move {
            tokio::time::sleep(PAUSE).await;
            // The channel is closed when the service stops.
            drop(tell.send(ChildDown { name }).await);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use actix::{Actor, Addr, Context, Handler};

    use super::*;
    use crate::supervised::Crash;

    struct TestActor {
        _guard: Guard,
    }

    impl Actor for TestActor {
        type Context = Context<Self>;
    }

    impl Handler<Crash> for TestActor {
        type Result = ();

        fn handle(&mut self, _: Crash, _: &mut Self::Context) {
            panic!("on command");
        }
    }

    #[actix::test]
    async fn an_actor_that_panics_is_rebuilt() {
        let mut supervisor = Supervisor::default();
        let place = Arc::new(watch::Sender::new(None::<Addr<TestActor>>));
        let (starts, publish) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&place));
        let counted = Arc::clone(&starts);
        supervisor.adopt("test".into(), move |guard| {
            // The first rebuild fails too.
            assert!(counted.fetch_add(1, Ordering::Relaxed) != 1, "not now");
            publish.send_replace(Some(TestActor { _guard: guard }.start()));
        });
        let mut here = place.subscribe();
        actix::spawn(supervisor.run());
        let first = here.borrow_and_update().clone().unwrap();
        assert!(first.send(Crash).await.is_err());
        here.changed().await.unwrap();
        assert!(here.borrow().as_ref().unwrap().connected());
        assert_eq!(starts.load(Ordering::Relaxed), 3);
    }
}

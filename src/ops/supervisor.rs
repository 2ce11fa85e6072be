//! Rebuilds an actor that panicked. actix's own `Supervisor` restarts on a stop, not on a panic, which kills an actor for good.
//!
//! A plain loop, not an actor, so that nothing supervises the supervisor but its own `catch_unwind`.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
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
    /// Its own: another that is adopted under the same name has another one.
    name: Arc<str>,
    rebuild: Rebuild,
    /// Within the last [`SPELL`].
    ends: VecDeque<Instant>,
    /// Whether its next try waits for the end of a pause.
    paused: bool,
}

/// What a running supervisor is told.
enum Word {
    Adopt(Arc<str>, Rebuild, oneshot::Sender<()>),
    Release(Arc<str>, oneshot::Sender<()>),
}

/// Gives a running supervisor actors to see to, and takes them from it.
#[derive(Clone)]
pub struct Care(mpsc::Sender<Word>);

impl Care {
    /// Has an actor started and seen to from now on; returns when it is started. To be called where [`Supervisor::run`] runs, for that is where it
    /// lives.
    pub async fn adopt(&self, name: Arc<str>, rebuild: impl Fn(Guard) + Send + 'static) {
        let (done, started) = oneshot::channel();
        // The supervisor is there as long as the service.
        drop(
            self.0
                .send(Word::Adopt(name, Box::new(rebuild), done))
                .await,
        );
        drop(started.await);
    }

    /// Has an actor rebuilt no more: the one that was adopted with this very name, not another of the same. Returns when that holds. The actor itself goes on
    /// until it ends.
    pub async fn release(&self, name: Arc<str>) {
        let (done, released) = oneshot::channel();
        drop(self.0.send(Word::Release(name, done)).await);
        drop(released.await);
    }
}

/// Knows how to rebuild each actor, and when each ended.
pub struct Supervisor {
    children: HashMap<Arc<str>, Child>,
    told: mpsc::Receiver<Word>,
    care: Care,
    tell: mpsc::Sender<ChildDown>,
    hear: mpsc::Receiver<ChildDown>,
    steady: watch::Sender<bool>,
}

impl Default for Supervisor {
    fn default() -> Self {
        let (tell, hear) = mpsc::channel(WAITING);
        let (care, told) = mpsc::channel(WAITING);
        let steady = watch::Sender::new(true);
        Self {
            children: HashMap::new(),
            told,
            care: Care(care),
            tell,
            hear,
            steady,
        }
    }
}

impl Supervisor {
    /// Starts an actor and sees to it from now on.
    pub fn adopt(&mut self, name: Arc<str>, rebuild: impl Fn(Guard) + Send + 'static) {
        self.start(name, Box::new(rebuild));
    }

    /// What gives it actors while it runs.
    pub fn care(&self) -> Care {
        self.care.clone()
    }

    fn start(&mut self, name: Arc<str>, rebuild: Rebuild) {
        let guard = Guard::new(Arc::clone(&name), self.tell.clone());
        let child = Child {
            name: Arc::clone(&name),
            rebuild,
            ends: VecDeque::new(),
            paused: false,
        };
        // A panic drops the guard, which asks for the next try.
        if catch_unwind(AssertUnwindSafe(|| (child.rebuild)(guard))).is_err() {
            tracing::error!(actor = %name, "an actor could not be started; it is tried again");
        }
        self.children.insert(name, child);
    }

    fn obey(&mut self, word: Word) {
        let done = match word {
            Word::Adopt(name, rebuild, done) => {
                self.start(name, rebuild);
                done
            }
            Word::Release(name, done) => {
                if self
                    .children
                    .get(&name)
                    .is_some_and(|child| Arc::ptr_eq(&child.name, &name))
                {
                    self.children.remove(&name);
                }
                done
            }
        };
        // Who gave the order may have gone.
        let _ = done.send(());
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
                Some(word) = self.told.recv() => self.obey(word),
                _ = look.tick() => {}
            }
            let now = Instant::now();
            for child in self.children.values_mut() {
                child.ends.retain(|end| now.duration_since(*end) < SPELL);
            }
            let steady = self
                .children
                .values()
                .all(|child| child.ends.len() <= TOO_MANY);
            self.steady
                .send_if_modified(|known| std::mem::replace(known, steady) != steady);
        }
    }

    /// Rebuilds one that ended; one that ends too often, or does not start, after a pause that holds nobody else up.
    fn rebuild(&mut self, name: Arc<str>) {
        // One that was released ends for good, also where another has its name by now.
        let known = self
            .children
            .get_mut(&name)
            .filter(|child| Arc::ptr_eq(&child.name, &name));
        let Some(child) = known else { return };
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

    /// Has an actor of this name seen to. Gives where it is.
    async fn adopted(care: &Care, name: &Arc<str>) -> watch::Receiver<Option<Addr<TestActor>>> {
        let place = watch::Sender::new(None);
        let here = place.subscribe();
        let build =
            move |guard| drop(place.send_replace(Some(TestActor { _guard: guard }.start())));
        care.adopt(Arc::clone(name), build).await;
        here
    }

    #[actix::test]
    async fn one_that_was_released_is_not_rebuilt_and_its_end_is_not_taken_for_its_namesakes() {
        let supervisor = Supervisor::default();
        let care = supervisor.care();
        actix::spawn(supervisor.run());
        let [old_name, new_name]: [Arc<str>; 2] = ["test".into(), "test".into()];
        let old = adopted(&care, &old_name).await;
        let first = old.borrow().clone().unwrap();
        care.release(Arc::clone(&old_name)).await;
        let mut new = adopted(&care, &new_name).await;
        let second = new.borrow_and_update().clone().unwrap();
        assert!(first.send(Crash).await.is_err() && second.connected());
        // Releasing it once more takes nothing from its namesake, which is rebuilt when it ends.
        care.release(old_name).await;
        assert!(
            !new.has_changed().unwrap(),
            "the other one's end was not its own"
        );
        assert!(second.send(Crash).await.is_err());
        new.changed().await.unwrap();
        assert!(new.borrow().as_ref().unwrap().connected());
    }
}

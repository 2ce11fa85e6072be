//! Restarts actors that panicked. actix's own `Supervisor` restarts an actor on `ctx.stop()` but
//! not on a panic, which kills it for good.
//!
//! The supervisor is a plain loop and not an actor, so a panicking factory cannot kill it.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::actor_exit::{ActorExited, ExitGuard};

const CHANNEL_CAPACITY: usize = 256;

/// More exits of one actor than this within `RESTART_WINDOW` make the service report not ready.
const MAX_RESTARTS: usize = 10;

const RESTART_WINDOW: Duration = Duration::from_secs(30);

/// The delay before an actor that exits too often, or fails to start, is restarted.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// The interval at which old exits are dropped from the restart window.
const TICK: Duration = Duration::from_secs(1);

/// Starts an actor and publishes its address.
type ActorFactory = Box<dyn Fn(ExitGuard) + Send>;

struct SupervisedChild {
    /// The identity of the registration is this `Arc`, not the text: a later actor with the same
    /// name has another one.
    name: Arc<str>,
    factory: ActorFactory,
    /// Exits within the last `RESTART_WINDOW`.
    exits: VecDeque<Instant>,
    /// A delayed restart is scheduled.
    is_paused: bool,
}

enum SupervisorCommand {
    Supervise(Arc<str>, ActorFactory, oneshot::Sender<()>),
    Release(Arc<str>, oneshot::Sender<()>),
}

/// Adds actors to a running supervisor and removes them.
#[derive(Clone)]
pub struct SupervisorHandle(mpsc::Sender<SupervisorCommand>);

impl SupervisorHandle {
    /// Starts an actor and supervises it. Returns once it has started, on the thread of
    /// [`Supervisor::run`].
    pub async fn supervise(&self, name: Arc<str>, rebuild: impl Fn(ExitGuard) + Send + 'static) {
        let (done, started) = oneshot::channel();
        // The supervisor lives as long as the service, so neither channel closes before.
        drop(
            self.0
                .send(SupervisorCommand::Supervise(name, Box::new(rebuild), done))
                .await,
        );
        drop(started.await);
    }

    /// Stops supervising the actor registered with this very `Arc`; a namesake is not affected.
    ///
    /// Returns once this has taken effect. The actor itself keeps running until it exits.
    pub async fn release(&self, name: Arc<str>) {
        let (done, released) = oneshot::channel();
        drop(self.0.send(SupervisorCommand::Release(name, done)).await);
        drop(released.await);
    }
}

/// Holds the factory and the recent exits of every supervised actor.
pub struct Supervisor {
    children: HashMap<Arc<str>, SupervisedChild>,
    commands: mpsc::Receiver<SupervisorCommand>,
    handle: SupervisorHandle,
    exit_sender: mpsc::Sender<ActorExited>,
    exits: mpsc::Receiver<ActorExited>,
    is_stable: watch::Sender<bool>,
}

impl Default for Supervisor {
    fn default() -> Self {
        let (exit_sender, exits) = mpsc::channel(CHANNEL_CAPACITY);
        let (handle, commands) = mpsc::channel(CHANNEL_CAPACITY);
        let steady = watch::Sender::new(true);
        Self {
            children: HashMap::new(),
            commands,
            handle: SupervisorHandle(handle),
            exit_sender,
            exits,
            is_stable: steady,
        }
    }
}

impl Supervisor {
    pub fn supervise(&mut self, name: Arc<str>, rebuild: impl Fn(ExitGuard) + Send + 'static) {
        self.start_actor(name, Box::new(rebuild));
    }

    pub fn handle(&self) -> SupervisorHandle {
        self.handle.clone()
    }

    fn start_actor(&mut self, name: Arc<str>, rebuild: ActorFactory) {
        let guard = ExitGuard::new(Arc::clone(&name), self.exit_sender.clone());
        let child = SupervisedChild {
            name: Arc::clone(&name),
            factory: rebuild,
            exits: VecDeque::new(),
            is_paused: false,
        };
        // A panic drops the guard, which reports an exit and so triggers the next attempt.
        if catch_unwind(AssertUnwindSafe(|| (child.factory)(guard))).is_err() {
            tracing::error!(actor = %name, "actor failed to start, retrying");
        }
        self.children.insert(name, child);
    }

    fn handle_command(&mut self, command: SupervisorCommand) {
        let done = match command {
            SupervisorCommand::Supervise(name, rebuild, done) => {
                self.start_actor(name, rebuild);
                done
            }
            SupervisorCommand::Release(name, done) => {
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
        // The caller may have been cancelled.
        let _ = done.send(());
    }

    /// `false` while some actor exits more than `MAX_RESTARTS` times per `RESTART_WINDOW`.
    pub fn is_stable(&self) -> watch::Receiver<bool> {
        self.is_stable.subscribe()
    }

    /// Restarts exited actors until all exit senders are gone. The actors live on this thread.
    pub async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                down = self.exits.recv() => match down {
                    Some(down) => self.on_exit(down.name),
                    None => return,
                },
                Some(command) = self.commands.recv() => self.handle_command(command),
                _ = tick.tick() => {}
            }
            let now = Instant::now();
            for child in self.children.values_mut() {
                child
                    .exits
                    .retain(|end| now.duration_since(*end) < RESTART_WINDOW);
            }
            let steady = self
                .children
                .values()
                .all(|child| child.exits.len() <= MAX_RESTARTS);
            self.is_stable
                .send_if_modified(|known| std::mem::replace(known, steady) != steady);
        }
    }

    /// Restarts an actor that exited. One that exits too often restarts after a delay, without
    /// holding up the others.
    fn on_exit(&mut self, name: Arc<str>) {
        // A released actor is not restarted, even if another one has its name by now.
        let registered = self
            .children
            .get_mut(&name)
            .filter(|child| Arc::ptr_eq(&child.name, &name));
        let Some(child) = registered else { return };
        let exits_too_often = child.exits.len() >= MAX_RESTARTS && !child.is_paused;
        if !child.is_paused {
            child.exits.push_back(Instant::now());
            tracing::error!(actor = %name, ends = child.exits.len(), "actor panicked, restarting");
        }
        child.is_paused = false;
        if exits_too_often {
            child.is_paused = true;
            return self.schedule_restart(name);
        }
        let guard = ExitGuard::new(Arc::clone(&name), self.exit_sender.clone());
        // A panic drops the guard, which reports an exit and so triggers the next attempt.
        if catch_unwind(AssertUnwindSafe(|| (child.factory)(guard))).is_err() {
            tracing::error!(actor = %name, "actor failed to restart, retrying");
        }
    }

    /// Reports another exit after `RESTART_DELAY`, which triggers the next attempt.
    fn schedule_restart(&self, name: Arc<str>) {
        let tell = self.exit_sender.clone();
        actix::spawn(async move {
            tokio::time::sleep(RESTART_DELAY).await;
            // The channel is closed when the service stops.
            drop(tell.send(ActorExited { name }).await);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use actix::{Actor, Addr, Context, Handler};

    use super::*;
    use crate::actor_exit::CrashForTest;

    struct TestActor {
        _guard: ExitGuard,
    }

    impl Actor for TestActor {
        type Context = Context<Self>;
    }

    impl Handler<CrashForTest> for TestActor {
        type Result = ();

        fn handle(&mut self, _: CrashForTest, _: &mut Self::Context) {
            panic!("on command");
        }
    }

    #[actix::test]
    async fn panicked_actor_is_restarted_even_if_the_first_restart_fails() {
        let mut supervisor = Supervisor::default();
        let address = Arc::new(watch::Sender::new(None::<Addr<TestActor>>));
        let starts = Arc::new(AtomicUsize::new(0));
        let publish = Arc::clone(&address);
        let counted = Arc::clone(&starts);
        supervisor.supervise("test".into(), move |guard| {
            // The first restart fails too.
            assert!(counted.fetch_add(1, Ordering::Relaxed) != 1, "not now");
            publish.send_replace(Some(TestActor { _guard: guard }.start()));
        });
        let mut current = address.subscribe();
        actix::spawn(supervisor.run());
        let first = current.borrow_and_update().clone().unwrap();
        assert!(first.send(CrashForTest).await.is_err());
        current.changed().await.unwrap();
        assert!(current.borrow().as_ref().unwrap().connected());
        assert_eq!(starts.load(Ordering::Relaxed), 3);
    }

    async fn supervised(
        care: &SupervisorHandle,
        name: &Arc<str>,
    ) -> watch::Receiver<Option<Addr<TestActor>>> {
        let address = watch::Sender::new(None);
        let current = address.subscribe();
        let build =
            move |guard| drop(address.send_replace(Some(TestActor { _guard: guard }.start())));
        care.supervise(Arc::clone(name), build).await;
        current
    }

    #[actix::test]
    async fn released_actor_is_not_restarted_and_its_namesake_is() {
        let supervisor = Supervisor::default();
        let care = supervisor.handle();
        actix::spawn(supervisor.run());
        let [old_name, new_name]: [Arc<str>; 2] = ["test".into(), "test".into()];
        let old = supervised(&care, &old_name).await;
        let first = old.borrow().clone().unwrap();
        care.release(Arc::clone(&old_name)).await;
        let mut new = supervised(&care, &new_name).await;
        let second = new.borrow_and_update().clone().unwrap();
        assert!(first.send(CrashForTest).await.is_err() && second.connected());
        // Releasing the old name again must not release the namesake.
        care.release(old_name).await;
        assert!(
            !new.has_changed().unwrap(),
            "the exit of the released actor does not restart its namesake"
        );
        assert!(second.send(CrashForTest).await.is_err());
        new.changed().await.unwrap();
        assert!(new.borrow().as_ref().unwrap().connected());
    }
}

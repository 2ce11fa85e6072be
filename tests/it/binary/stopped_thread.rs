//! One thread of a process held still while the others go on, as a debugger holds it: what a call that blocks for too long does to a worker.
#![cfg(target_os = "linux")]

use std::sync::mpsc;
use std::thread;

use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio::sync::oneshot;

use super::within;

/// A thread that is held until this is dropped.
pub struct Held(Option<(mpsc::Sender<()>, thread::JoinHandle<()>)>);

impl Held {
    /// Holds a thread, by its id. None where the system does not permit it.
    pub async fn hold(id: i32) -> Option<Self> {
        let (tell, held) = oneshot::channel();
        let (let_go, told) = mpsc::channel();
        // Only the thread that began to hold it may let it go.
        let holder = thread::spawn(move || {
            let id = Pid::from_raw(id);
            let holding = ptrace::seize(id, Options::empty())
                .and_then(|()| ptrace::interrupt(id))
                .and_then(|()| waitpid(id, Some(WaitPidFlag::__WALL)));
            if tell.send(holding.is_ok()).is_ok() && holding.is_ok() {
                // An error is that nobody is there to tell any more.
                let _ = told.recv();
                ptrace::detach(id, None).unwrap();
            }
        });
        let holds = within("the thread to stand still", held).await.unwrap();
        holds.then_some(Self(Some((let_go, holder))))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some((let_go, holder)) = self.0.take() {
            drop(let_go);
            drop(holder.join());
        }
    }
}

/// The threads of a process that are called so, by their ids, in the order in which they were begun.
pub fn threads(pid: u32, name: &str) -> Vec<i32> {
    let all = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let all = all.filter_map(|one| one.ok()?.file_name().to_str()?.parse().ok());
    let called = |id: &i32| {
        let called = std::fs::read_to_string(format!("/proc/{pid}/task/{id}/comm"));
        called.is_ok_and(|called| called.trim_end() == name)
    };
    let mut all: Vec<i32> = all.filter(called).collect();
    all.sort_unstable();
    all
}

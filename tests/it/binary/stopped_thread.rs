//! Stops one thread of a process while the others run, as a debugger does. It simulates a blocking
//! call on a worker.
#![cfg(target_os = "linux")]

use std::sync::mpsc;
use std::thread;

use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio::sync::oneshot;

use super::wait_for;

/// A thread that is stopped until this is dropped.
pub struct StoppedThread(Option<(mpsc::Sender<()>, thread::JoinHandle<()>)>);

impl StoppedThread {
    /// Stops a thread, by its id. Returns `None` if the system does not permit it.
    pub async fn stop(id: i32) -> Option<Self> {
        let (stopped, wait_stopped) = oneshot::channel();
        let (resume, wait_resume) = mpsc::channel();
        // ptrace requires that the thread which attached also detaches.
        let holder = thread::spawn(move || {
            let id = Pid::from_raw(id);
            let attached = ptrace::seize(id, Options::empty())
                .and_then(|()| ptrace::interrupt(id))
                .and_then(|()| waitpid(id, Some(WaitPidFlag::__WALL)));
            if stopped.send(attached.is_ok()).is_ok() && attached.is_ok() {
                // `recv` fails when the sender is dropped, which also means to resume.
                let _ = wait_resume.recv();
                ptrace::detach(id, None).unwrap();
            }
        });
        let is_stopped = wait_for("the thread to stop", wait_stopped).await.unwrap();
        is_stopped.then_some(Self(Some((resume, holder))))
    }
}

impl Drop for StoppedThread {
    fn drop(&mut self) {
        if let Some((resume, holder)) = self.0.take() {
            drop(resume);
            drop(holder.join());
        }
    }
}

/// The ids of a process's threads with this name, in ascending order.
pub fn threads_named(pid: u32, name: &str) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let ids = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
    let has_name = |id: &i32| {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/task/{id}/comm"));
        comm.is_ok_and(|comm| comm.trim_end() == name)
    };
    let mut ids: Vec<i32> = ids.filter(has_name).collect();
    ids.sort_unstable();
    ids
}

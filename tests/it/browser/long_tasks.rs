//! How long a page's tasks held up its thread, and how much of that was work of their own.
//!
//! The browser tells of each task over 50 ms by the clock. On a machine that is busy otherwise a short task takes long by the clock too, because its
//! thread waits for a processor, or for another process that does; the kernel counts how long a thread ran. On a quiet machine the two are one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinHandle;

use super::page_driver::Tab;

/// A task that is longer than this holds up the page.
pub const LONG_MS: f64 = 50.0;

/// How often the kernel is asked.
const EVERY: Duration = Duration::from_millis(10);

/// When, in milliseconds since 1970, and how long each page's thread had run until then, in milliseconds.
type Sample = (f64, BTreeMap<u32, f64>);

/// How long the threads of all pages of a browser ran, for as long as this is kept.
pub struct Effort {
    samples: Arc<Mutex<Vec<Sample>>>,
    watching: JoinHandle<()>,
}

impl Effort {
    /// Watches the pages of the browser whose driver is this process.
    pub fn watch(driver: u32) -> Self {
        let samples: Arc<Mutex<Vec<Sample>>> = Arc::default();
        let kept = Arc::clone(&samples);
        let watching = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(EVERY);
            let mut pages = Vec::new();
            for tick in 0_u32.. {
                ticks.tick().await;
                // A page opened meanwhile has a process of its own.
                if tick % 20 == 0 {
                    pages = renderers(driver);
                }
                let at = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap()
                    .as_secs_f64()
                    * 1e3;
                let ran = pages
                    .iter()
                    .filter_map(|pid| Some((*pid, ran(*pid)?)))
                    .collect();
                kept.lock().unwrap().push((at, ran));
            }
        });
        Self { samples, watching }
    }

    /// The tasks of this page that ran for longer than [`LONG_MS`]: how long by the clock, and how long they ran.
    pub async fn own(&self, tab: &Tab) -> Vec<(f64, f64)> {
        let held: Vec<(f64, f64)> = serde_json::from_value(tab.eval("witness.held").await).unwrap();
        let own =
            |(from, length): &(f64, f64)| (*length, self.ran(*from, from + length).min(*length));
        let all: Vec<_> = held.iter().map(own).collect();
        println!("tasks of over {LONG_MS} ms, by the clock and as they ran: {all:?}");
        all.into_iter().filter(|(_, own)| *own > LONG_MS).collect()
    }

    /// How long a page's thread ran between two moments, at most: the one that ran most.
    fn ran(&self, from: f64, to: f64) -> f64 {
        let samples = self.samples.lock().unwrap();
        let before = samples
            .iter()
            .rfind(|(at, _)| *at <= from)
            .or(samples.first())
            .unwrap();
        let after = samples
            .iter()
            .find(|(at, _)| *at >= to)
            .or(samples.last())
            .unwrap();
        let each = after
            .1
            .iter()
            .map(|(page, ran)| ran - before.1.get(page).unwrap_or(&0.0));
        each.fold(0.0, f64::max)
    }
}

impl Drop for Effort {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// The processes of pages among the descendants of this one.
fn renderers(driver: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: BTreeMap<u32, u32> = numbers
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect();
    let descends = |mut pid: u32| {
        while let Some(parent) = parents.get(&pid) {
            if *parent == driver {
                return true;
            }
            pid = *parent;
        }
        false
    };
    let renders = |pid: &u32| {
        let line =
            fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("--type=renderer")
    };
    parents
        .keys()
        .copied()
        .filter(|pid| descends(*pid))
        .filter(renders)
        .collect()
}

fn parent(pid: u32) -> Option<u32> {
    let status =
        fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))?
        .trim()
        .parse()
        .ok()
}

/// How long the process's main thread has run, in milliseconds; none where it is gone.
fn ran(pid: u32) -> Option<f64> {
    let told =
        fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("schedstat")).ok()?;
    let nanoseconds: f64 = told.split_whitespace().next()?.parse().ok()?;
    Some(nanoseconds / 1e6)
}

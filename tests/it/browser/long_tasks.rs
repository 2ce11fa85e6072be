//! Measures long tasks of pages by the CPU time of their threads.
//!
//! The browser reports each task which takes over 50 ms of wall-clock time. On a busy machine a
//! short task takes that long too, because its thread waits for a processor or for another process.
//! The kernel counts how long a thread really ran. On a quiet machine both figures agree.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinHandle;

use super::page_driver::BrowserTab;

/// A task longer than this blocks the page noticeably.
pub const LONG_TASK_MS: f64 = 50.0;

/// The interval at which the kernel's counters are read.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(10);

/// The time in milliseconds since 1970, and the CPU time of each page's thread so far, in
/// milliseconds, by process id.
type CpuSample = (f64, BTreeMap<u32, f64>);

/// Samples the CPU time of all page threads of a browser until it is dropped.
pub struct CpuTimeWatch {
    samples: Arc<Mutex<Vec<CpuSample>>>,
    sampler: JoinHandle<()>,
}

impl CpuTimeWatch {
    /// Starts to sample the pages of the browser with this driver process.
    pub fn start(driver: u32) -> Self {
        let samples: Arc<Mutex<Vec<CpuSample>>> = Arc::default();
        let shared = Arc::clone(&samples);
        let watching = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
            let mut pages = Vec::new();
            for tick in 0_u32.. {
                ticks.tick().await;
                // Each new page has a process of its own.
                if tick % 20 == 0 {
                    pages = renderer_pids(driver);
                }
                let at = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap()
                    .as_secs_f64()
                    * 1e3;
                let cpu_times = pages
                    .iter()
                    .filter_map(|pid| Some((*pid, cpu_ms(*pid)?)))
                    .collect();
                shared.lock().unwrap().push((at, cpu_times));
            }
        });
        Self {
            samples,
            sampler: watching,
        }
    }

    /// Returns the tasks of this page which used the CPU for longer than [`LONG_MS`], as pairs of
    /// wall-clock and CPU time.
    pub async fn long_tasks(&self, tab: &BrowserTab) -> Vec<(f64, f64)> {
        let tasks: Vec<(f64, f64)> =
            serde_json::from_value(tab.eval("witness.held").await).unwrap();
        let with_cpu_time = |(from, length): &(f64, f64)| {
            (*length, self.max_cpu_ms(*from, from + length).min(*length))
        };
        let tasks: Vec<_> = tasks.iter().map(with_cpu_time).collect();
        println!("tasks of over {LONG_TASK_MS} ms, wall-clock and CPU time: {tasks:?}");
        tasks
            .into_iter()
            .filter(|(_, cpu_time)| *cpu_time > LONG_TASK_MS)
            .collect()
    }

    /// Returns the CPU time in milliseconds between two moments of the page thread that ran most.
    fn max_cpu_ms(&self, from: f64, to: f64) -> f64 {
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
        let cpu_times = after
            .1
            .iter()
            .map(|(page, ran)| ran - before.1.get(page).unwrap_or(&0.0));
        cpu_times.fold(0.0, f64::max)
    }
}

impl Drop for CpuTimeWatch {
    fn drop(&mut self) {
        self.sampler.abort();
    }
}

/// Returns the renderer processes among the descendants of the driver.
fn renderer_pids(driver: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: BTreeMap<u32, u32> = numbers
        .filter_map(|pid| Some((pid, parent_pid(pid)?)))
        .collect();
    let is_descendant = |mut pid: u32| {
        while let Some(parent) = parents.get(&pid) {
            if *parent == driver {
                return true;
            }
            pid = *parent;
        }
        false
    };
    let is_renderer = |pid: &u32| {
        let line =
            fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("--type=renderer")
    };
    parents
        .keys()
        .copied()
        .filter(|pid| is_descendant(*pid))
        .filter(is_renderer)
        .collect()
}

fn parent_pid(pid: u32) -> Option<u32> {
    let status =
        fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))?
        .trim()
        .parse()
        .ok()
}

/// Returns the CPU time of a process's main thread in milliseconds, or `None` if it has exited.
fn cpu_ms(pid: u32) -> Option<f64> {
    let schedstat =
        fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("schedstat")).ok()?;
    let nanoseconds: f64 = schedstat.split_whitespace().next()?.parse().ok()?;
    Some(nanoseconds / 1e6)
}

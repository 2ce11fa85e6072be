//! Time in tests: it stands still while any task can run, then jumps to the next timer.

use std::time::Duration;

/// An actix system whose clock is paused from the start, so that durations are exact:
/// `#[actix_rt::test(system = "Paused")]`.
pub struct Paused;

impl Paused {
    #[allow(clippy::new_ret_no_self, reason = "the attribute calls this name")]
    pub fn new() -> actix::SystemRunner {
        actix::System::with_tokio_rt(|| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().start_paused(true).build().unwrap()
        })
    }
}

/// Advances the clock by `time`. Tasks that are due at the end may not have run yet.
pub async fn advance_clock(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Advances the clock by `time` and runs the tasks that are due.
pub async fn advance(time: Duration) {
    advance_clock(time).await;
    run_until_idle().await;
}

/// Runs every task of this thread as far as it gets without time passing.
pub async fn run_until_idle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

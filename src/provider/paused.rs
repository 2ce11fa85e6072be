//! Time as tests have it: it stands still while anything can be done, then jumps to what is due next.

use std::time::Duration;

/// An actix system on a clock that is paused from its first moment on, so that no length of time is off by a part of a millisecond:
/// `#[actix_rt::test(system = "Paused")]`.
pub struct Paused;

impl Paused {
    /// Starts the system on this thread.
    #[allow(clippy::new_ret_no_self, reason = "the attribute calls it so")]
    pub fn new() -> actix::SystemRunner {
        actix::System::with_tokio_rt(|| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().start_paused(true).build().unwrap()
        })
    }
}

/// Lets so much time pass; what is due at its end may not be done yet.
pub async fn elapse(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Lets so much time pass; what is due meanwhile is done.
pub async fn pass(time: Duration) {
    elapse(time).await;
    settled().await;
}

/// Lets every task of this thread do what it can do without time passing.
pub async fn settled() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

//! One running turn: what the steps that answer it share.

use std::future::Future;
use std::sync::Arc;

use tokio::time::Instant;

use super::deps::{TurnDeps, TurnOptions};
use super::log::{Cancel, LogWriter};
use super::single_flight::FlightGuard;
use super::summary::TurnSummary;
use crate::answer_cache::{CacheSlot, RefreshJob};
use crate::config::Settings;
use crate::domain::ChatRequest;

/// Asks a provider again in the background and replaces the cached answer.
pub(super) type StartRefresh<'t> = &'t dyn Fn(ChatRequest, RefreshJob);

pub(super) struct RunningTurn<'t> {
    pub(super) deps: &'t TurnDeps,
    pub(super) start_refresh: StartRefresh<'t>,
    /// The settings when the turn started. A reload does not affect it.
    pub(super) settings: Arc<Settings>,
    pub(super) options: TurnOptions,
    pub(super) deadline: Instant,
    pub(super) writer: LogWriter,
    pub(super) summary: TurnSummary,
    pub(super) cache_lookup: CacheLookup,
}

/// A turn's use of the answer cache. By default it uses none.
#[derive(Default)]
pub(super) struct CacheLookup {
    /// `None` if this question may not be cached.
    pub(super) slot: Option<CacheSlot>,
    /// `false` for a retry: the visitor did not like the answer.
    pub(super) may_read: bool,
    /// Held while other turns wait for this one's answer.
    pub(super) flight: Option<FlightGuard>,
}

impl RunningTurn<'_> {
    /// Text was shown that the client cannot retract.
    pub(super) fn must_not_retract(&self) -> bool {
        self.options.append_only && !self.writer.shown_text().is_empty()
    }

    /// Waits for `step`, but not longer than the turn lives.
    ///
    /// # Errors
    /// The turn was cancelled.
    pub(super) async fn unless_cancelled<T>(
        &self,
        step: impl Future<Output = T>,
    ) -> Result<T, Cancel> {
        tokio::select! {
            biased;
            cancel = self.writer.log().cancelled(self.options.orphan_grace) => Err(cancel),
            result = step => Ok(result),
        }
    }
}

//! An attempt of a running turn: prepares its call, drives it to its end and records how it ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::attempt::{self, AttemptEnd, AttemptLimits, AttemptReport, PendingCall};
use super::merge::ContinuationMode;
use super::prompt::{self, ContextLimit};
use super::quality;
use super::running_turn::RunningTurn;
use super::selection::AttemptHistory;
use super::summary::TurnEnd;
use crate::config::MidStream;
use crate::domain::{AttemptOutcome, ChatRequest, Failure, FaultKind, FinishReason};
use crate::provider::breaker::CallOutcome;
use crate::provider::handle::Provider;
use crate::router::actor::ProviderLease;
use crate::router::retry_policy::FailedAttempt;

/// An attempt whose provider call has started.
pub(super) struct ActiveAttempt {
    pub(super) lease: ProviderLease,
    pub(super) call: PendingCall,
    pub(super) request: ChatRequest,
    pub(super) limits: AttemptLimits,
    /// The turn's deadline comes before the provider's own limit.
    capped_by_turn_deadline: bool,
    continuation_mode: ContinuationMode,
    /// Time from the start of the turn to the start of this attempt.
    started_after: Duration,
}

impl RunningTurn<'_> {
    /// Starts the call of a leased attempt. No frame is sent before `announce_attempt`.
    pub(super) fn prepare_attempt(
        &self,
        lease: ProviderLease,
        original: &ChatRequest,
        history: &AttemptHistory,
    ) -> ActiveAttempt {
        let shown = self.writer.shown_text();
        let start = if shown.is_empty() {
            ContinuationMode::Restart
        } else {
            self.continuation_mode(&lease, &history.failed)
        };
        let provider = &lease.provider;
        let prepared = match start {
            ContinuationMode::Prefill => prompt::with_prefill(original, &shown),
            ContinuationMode::RepeatOverlap => prompt::with_repeat_instruction(original, &shown),
            ContinuationMode::Restart if provider.supports_prefill.load(Ordering::Relaxed) => {
                prompt::as_prefill(original)
            }
            ContinuationMode::Restart => original.clone(),
        };
        let request = self.fit_to_context(
            prepared,
            original,
            provider,
            history.history_halved_after.is_some(),
        );
        let is_continuation = start != ContinuationMode::Restart;
        let timeouts = &lease.provider.timeouts;
        let time_left = self.deadline.saturating_duration_since(Instant::now());
        let hurried = time_left < timeouts.total;
        let limits = AttemptLimits {
            first_token: timeouts.first_token(lease.attempt_number),
            stall: timeouts.stall,
            total: timeouts.total.min(time_left),
            // The text shown so far counts towards the minimum, so any continuation is long enough.
            min_chars: if is_continuation {
                1
            } else {
                self.settings.quality.min_chars
            },
            is_continuation,
        };
        let before = self.summary.started_at.elapsed();
        let call = PendingCall::start(&lease.provider.client, &request);
        ActiveAttempt {
            lease,
            call,
            request,
            limits,
            capped_by_turn_deadline: hurried,
            continuation_mode: start,
            started_after: before,
        }
    }

    /// Chooses how the next attempt treats the shown text: as configured, but it restarts after a
    /// continuation that did not match.
    fn continuation_mode(
        &self,
        lease: &ProviderLease,
        failed: &[FailedAttempt],
    ) -> ContinuationMode {
        let has_mismatched = failed
            .iter()
            .any(|failed| failed.failure.fault == FaultKind::Diverged && !failed.had_text);
        let prefill = lease.provider.supports_prefill.load(Ordering::Relaxed);
        match self.options.mid_stream {
            MidStream::Continue if prefill => ContinuationMode::Prefill,
            // Text that cannot be retracted can only be continued.
            MidStream::Continue if self.options.append_only || !has_mismatched => {
                ContinuationMode::RepeatOverlap
            }
            MidStream::Continue | MidStream::Restart => ContinuationMode::Restart,
        }
    }

    /// Sends the `attempt` frame. Text pushed from now on belongs to this attempt.
    pub(super) fn announce_attempt(&mut self, attempt: &ActiveAttempt) {
        let lease = &attempt.lease;
        self.writer.start_attempt(
            lease.attempt_number,
            Arc::clone(&lease.provider.name),
            Arc::clone(&lease.provider.model),
            attempt.continuation_mode,
        );
    }

    /// Streams the attempt to its end. The error tells how it failed.
    pub(super) async fn drive_attempt(
        &mut self,
        attempt: ActiveAttempt,
    ) -> Result<TurnEnd, FailedAttempt> {
        let ActiveAttempt {
            mut lease,
            call,
            request,
            limits,
            capped_by_turn_deadline: hurried,
            started_after: before,
            ..
        } = attempt;
        let log = Arc::clone(self.writer.log());
        let metrics = &self.deps.observer.metrics;
        let on_first_token = |after| {
            lease.permit.record_first_token(after);
            metrics.record_first_token(&lease.provider.name, after);
        };
        let cancelled = log.cancelled(self.options.orphan_grace);
        let report =
            attempt::drive(call, limits, &mut self.writer, cancelled, on_first_token).await;
        let first_shown = report.first_shown.map(|after| before + after);
        self.summary.first_text_after = self.summary.first_text_after.or(first_shown);
        let (outcome, result) = match &report.end {
            AttemptEnd::Complete(finish) => (AttemptOutcome::OK, Ok(TurnEnd::Answered(*finish))),
            AttemptEnd::Cancelled(cancel) => {
                (AttemptOutcome::STOPPED, Ok(TurnEnd::Cancelled(*cancel)))
            }
            AttemptEnd::Failed(failure) => {
                // The provider may have rejected the prefill or the rest of the request. For a
                // caller's own prefill, only the error text tells which.
                let is_prefill_rejection = request.ends_with_prefill
                    && (limits.is_continuation || prompt::refuses_prefill(&failure.detail));
                let failed = self.record_failure(&lease, &report, failure, is_prefill_rejection);
                (AttemptOutcome::from(failed.failure.fault), Err(failed))
            }
        };
        self.record_attempt(&mut lease, &report, outcome, &request);
        // A continuation of another attempt's text has no score of its own.
        if !limits.is_continuation
            && let Some(score) = self.quality_score(&report)
        {
            lease.permit.record_quality(score);
        }
        // An attempt cut short by the turn's deadline or by a stall of this thread says nothing
        // about the provider.
        if report.caused_by_local_stall || hurried && report.elapsed >= limits.total {
            drop(lease.permit);
        } else {
            record_outcome(lease, &report);
        }
        result
    }

    /// Adds an attempt that has ended to the metrics and to the turn's report.
    pub(super) fn record_attempt(
        &mut self,
        lease: &mut ProviderLease,
        report: &AttemptReport,
        outcome: AttemptOutcome,
        request: &ChatRequest,
    ) {
        let metrics = &self.deps.observer.metrics;
        metrics.record_attempt(&lease.provider.name, outcome, report.elapsed);
        self.summary.record_attempt(lease, report, outcome, request);
    }

    /// The quality score of the answer. `None` if there is no answer to judge.
    fn quality_score(&self, report: &AttemptReport) -> Option<f64> {
        match &report.end {
            AttemptEnd::Complete(FinishReason::ContentFilter) | AttemptEnd::Cancelled(_) => None,
            AttemptEnd::Complete(_) => Some(quality::quality_score(
                &report.text,
                &self.settings.quality.keywords,
            )),
            AttemptEnd::Failed(failure) => {
                matches!(failure.fault, FaultKind::Empty | FaultKind::Poor).then_some(0.0)
            }
        }
    }

    fn record_failure(
        &mut self,
        lease: &ProviderLease,
        report: &AttemptReport,
        failure: &Failure,
        is_prefill_rejection: bool,
    ) -> FailedAttempt {
        let provider = &lease.provider;
        tracing::warn!(turn = %self.writer.log().turn(), attempt = lease.attempt_number,
            provider = %provider.name, status = failure.status, failure = failure.log_safe(),
            started = report.has_text(), "attempt failed");
        let mut failure = failure.clone();
        let mut started = report.has_text();
        if is_prefill_rejection && failure.fault == FaultKind::BadRequest {
            // Retry the same provider without prefill. If the error names prefill, never send it to
            // this provider again.
            if prompt::refuses_prefill(&failure.detail) {
                provider.supports_prefill.store(false, Ordering::Relaxed);
            }
            failure.fault = FaultKind::Diverged;
        } else if failure.fault == FaultKind::Diverged {
            // Where text can be retracted, a provider that did not match may answer anew.
            started = self.options.append_only;
        }
        self.writer
            .fail_attempt(Arc::clone(&provider.name), failure.clone());
        FailedAttempt {
            provider: Arc::clone(&provider.name),
            failure,
            had_text: started,
            elapsed: report.elapsed,
        }
    }

    /// Cuts `prepared` to the provider's context.
    ///
    /// The question and a partial answer always stay, and all of a caller's messages. `original` is
    /// the request without the partial answer.
    fn fit_to_context(
        &self,
        prepared: ChatRequest,
        original: &ChatRequest,
        provider: &Provider,
        half: bool,
    ) -> ChatRequest {
        let added = prepared
            .messages
            .len()
            .saturating_sub(original.messages.len());
        let kept = if self.options.surface_caller_errors {
            prepared.messages.len()
        } else {
            added + 1
        };
        prompt::fit_to_context(
            prepared,
            ContextLimit {
                required_messages: kept,
                context_tokens: provider.context_tokens,
                halve_history: half,
            },
        )
    }
}

fn record_outcome(lease: ProviderLease, report: &AttemptReport) {
    match &report.end {
        // A refusal by a content filter is neither a failure nor a proof of health.
        AttemptEnd::Complete(FinishReason::ContentFilter) | AttemptEnd::Cancelled(_) => {
            drop(lease.permit)
        }
        AttemptEnd::Complete(_) => lease.permit.complete(CallOutcome::Success),
        AttemptEnd::Failed(failure) => {
            // To the breaker, an answer starts with its first token, thinking included.
            let started = report.first_token.is_some();
            lease.permit.complete(CallOutcome::Failed {
                fault: failure.fault,
                had_text: started,
                retry_after: failure.retry_after,
            });
        }
    }
}

//! Drives one turn from attempt to attempt to its single `done` frame. If no provider is left, the
//! fallback chain answers.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::attempt::{self, AttemptEnd, AttemptLimits, AttemptReport, PendingCall};
use super::cached_answer::CacheLookup;
use super::log::{Cancel, LogWriter};
use super::merge::ContinuationMode;
use super::persistence::Persistence;
use super::poll_on_wake::PollOnWake;
use super::prompt::{self, ContextLimit};
use super::quality;
use super::service::{TurnOptions, TurnService};
use super::summary::{TurnEnd, TurnSummary};
use crate::config::{MidStream, Settings};
use crate::domain::{
    AnswerSource, AttemptOutcome, ChatRequest, Failure, FaultKind, FinishReason, Recovery,
    TokenEstimate,
};
use crate::provider::breaker::CallOutcome;
use crate::provider::handle::Provider;
use crate::router::actor::{ProviderLease, SelectProvider, Selection};
use crate::router::retry_policy::FailedAttempt;

/// No attempt starts if less time than this is left of the turn's limit.
pub(super) const MIN_TIME_FOR_ATTEMPT: Duration = Duration::from_millis(500);

/// Answers one turn. Its log ends with exactly one `done` frame, even after a panic.
pub async fn run_turn(
    service: &Arc<TurnService>,
    persistence: &Persistence,
    mut writer: LogWriter,
    options: TurnOptions,
) {
    let log = Arc::clone(writer.log());
    // Background turns have no waiting visitor: count their attempts, but not the turn.
    let is_background =
        options.is_background || matches!(persistence, Persistence::CacheRefresh(..));
    let in_flight = (!is_background).then(|| service.metrics.turn_started());
    let mut summary = TurnSummary::start();
    let mut cache_lookup = CacheLookup::default();
    let settings = &*Arc::clone(&service.config().settings);
    let mut runner = TurnRunner {
        service,
        settings,
        writer: &mut writer,
        options: &options,
        summary: &mut summary,
        cache_lookup: &mut cache_lookup,
    };
    // `join!` moves its futures into itself. Boxing the large one keeps the task from reserving
    // space for it twice.
    let answered = Box::pin(AssertUnwindSafe(runner.run(persistence)).catch_unwind());
    let checkpoints = pin!(persistence.checkpoint_loop(service, &log));
    // The question is stored while the first provider is asked already. The checkpoint loop never
    // ends; it is dropped with the answer.
    let ((), answered) = tokio::select! {
        both = async { tokio::join!(persistence.persist_question(service, &log), answered) } => both,
        never = PollOnWake::new(checkpoints) => match never {},
    };
    let end = answered.unwrap_or_else(|_| {
        tracing::error!(turn = %log.turn(), "turn panicked, sending a fallback answer");
        TurnRunner {
            service,
            settings,
            writer: &mut writer,
            options: &options,
            summary: &mut summary,
            cache_lookup: &mut cache_lookup,
        }
        .local_fallback()
    });
    let is_lost = match end {
        // A caller's own faulty request is not counted as a lost turn.
        TurnEnd::Unanswered => log
            .last_failure()
            .is_none_or(|last| !last.fault.recovery().is_caller_fault()),
        // Interrupted by a shutdown, not because all followers left.
        TurnEnd::Cancelled(Cancel::Interrupted) => log.cancel_reason().is_some(),
        TurnEnd::Answered(_)
        | TurnEnd::WithoutProvider { .. }
        | TurnEnd::Cancelled(Cancel::Stopped) => false,
    };
    let timings = summary.timings();
    let record =
        writer.final_record(|record| summary.fill_record(record, end, writer.text_attempt()));
    // A turn that an outage left without an AI answer gets a follow-up later, unless the caller
    // accepted one provider only.
    let needs_followup = match end {
        TurnEnd::WithoutProvider { source, .. } => source.is_degraded() && !options.no_failover,
        _ => is_lost,
    };
    persistence
        .persist_end(service, &record, needs_followup)
        .await;
    tracing::info!(turn = %log.turn(), source = record.source.map(AnswerSource::as_str),
        finish = record.finish.map(FinishReason::as_str), attempts = record.attempts,
        ms = record.total_ms, "turn ended");
    if let Some(tracer) = &service.tracer {
        tracer.record_turn(&record, &timings, is_background);
    }
    if let Some(in_flight) = in_flight {
        service.answer_counters.record_turn(&record, is_lost);
        in_flight.finish(&record, &writer.restarts());
    }
    writer.finish(record);
    // Followers have seen `done` by now: writing to the cache delays nobody.
    cache_lookup.store_answer(persistence, service, &log).await;
}

pub(super) struct TurnRunner<'t> {
    pub(super) service: &'t Arc<TurnService>,
    /// The settings when the turn started. A reload does not affect it.
    pub(super) settings: &'t Settings,
    pub(super) writer: &'t mut LogWriter,
    pub(super) options: &'t TurnOptions,
    pub(super) summary: &'t mut TurnSummary,
    pub(super) cache_lookup: &'t mut CacheLookup,
}

/// The attempts of a turn so far, as the router needs to know them.
#[derive(Default)]
pub(super) struct AttemptHistory {
    /// In the order of their ends.
    pub(super) failed: Vec<FailedAttempt>,
    /// Attempts that lost a hedged race. They are neither failures nor successes.
    pub(super) hedges_abandoned: u32,
    backoff_elapsed: bool,
    /// The number of failed attempts when the history was halved. `None` if it was not.
    history_halved_after: Option<usize>,
    token_estimate: TokenEstimate,
    sticky_provider: Option<Arc<str>>,
}

impl AttemptHistory {
    pub(super) fn select_request(&self, options: &TurnOptions) -> SelectProvider {
        SelectProvider {
            failed_attempts: self.failed.as_slice().into(),
            preferred: options.preferred_provider.clone(),
            no_failover: options.no_failover,
            backoff_elapsed: self.backoff_elapsed,
            attempts_before_truncation: self.history_halved_after.unwrap_or_default(),
            token_estimate: self.token_estimate,
            sticky_provider: self.sticky_provider.clone(),
            hedges_abandoned: self.hedges_abandoned,
            hedging_against: None,
            is_background: options.is_background,
            queue_permit: None,
        }
    }
}

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

impl TurnRunner<'_> {
    async fn run(&mut self, persistence: &Persistence) -> TurnEnd {
        let service = self.service;
        let options = self.options;
        let log = Arc::clone(self.writer.log());
        let deadline = self.summary.started_at + self.settings.timeouts.turn;
        let prepared = persistence.build_request(service, &log).await;
        if let Some(end) = self.lookup_fresh(persistence, &prepared).await {
            return end;
        }
        let request = prepared.request;
        // History may be cut, so only the question has to fit. A caller's messages are never cut.
        let load = if options.surface_caller_errors {
            TokenEstimate::for_request(&request)
        } else {
            TokenEstimate::for_last_messages(&request, 1)
        };
        let mut history = AttemptHistory {
            sticky_provider: prepared.last_provider,
            token_estimate: load,
            ..AttemptHistory::default()
        };
        loop {
            if deadline.saturating_duration_since(Instant::now()) < MIN_TIME_FOR_ATTEMPT {
                return self.degrade().await;
            }
            let pick = history.select_request(options);
            let route = tokio::select! {
                biased;
                cancel = log.cancelled(options.orphan_grace) => return TurnEnd::Cancelled(cancel),
                route = service.select_provider(|| pick.clone()) => route,
            };
            let lease = match route {
                Selection::Provider(lease) => lease,
                // Sleep through the back-off, then ask the router again.
                Selection::RetryAfter(delay) => {
                    let until = deadline.min(Instant::now() + delay);
                    tokio::select! {
                        cancel = log.cancelled(options.orphan_grace) => return TurnEnd::Cancelled(cancel),
                        () = tokio::time::sleep_until(until) => history.backoff_elapsed = true,
                    }
                    continue;
                }
                Selection::Unavailable { .. } => {
                    let is_too_long =
                        |failed: &FailedAttempt| failed.failure.fault == FaultKind::TooLong;
                    if options.surface_caller_errors {
                        let was_too_long = history
                            .failed
                            .last()
                            .map_or_else(|| self.exceeds_every_context(load), is_too_long);
                        return if was_too_long {
                            TurnEnd::Unanswered
                        } else {
                            self.degrade().await
                        };
                    }
                    // Some provider may accept a shorter prompt: retry once with half the history.
                    let any_too_long = history.failed.iter().any(is_too_long);
                    if history.history_halved_after.is_some()
                        || !prompt::has_history(&request)
                        || !any_too_long
                    {
                        return self.degrade().await;
                    }
                    history.history_halved_after = Some(history.failed.len());
                    continue;
                }
            };
            history.backoff_elapsed = false;
            let first = self.prepare_attempt(lease, &request, &history, deadline);
            self.announce_attempt(&first);
            // Boxed so that the turn's future does not hold the race's space while it streams.
            let raced = Box::pin(self.hedge(first, &request, &mut history, deadline)).await;
            let attempt = match raced {
                Ok(attempt) => attempt,
                Err(cancel) => return TurnEnd::Cancelled(cancel),
            };
            match self.drive_attempt(attempt).await {
                Ok(end) => return end,
                // After the first text the request is known to be good: such an error is caused by
                // our continuation of it, so it is not returned to the caller.
                Err(failed)
                    if options.surface_caller_errors
                        && failed.failure.fault.recovery() == Recovery::CallerError
                        && !self.must_not_retract() =>
                {
                    return TurnEnd::Unanswered;
                }
                Err(failed) => history.failed.push(failed),
            }
        }
    }

    /// Starts the call of a leased attempt. No frame is sent before `announce_attempt`.
    pub(super) fn prepare_attempt(
        &self,
        lease: ProviderLease,
        original: &ChatRequest,
        history: &AttemptHistory,
        deadline: Instant,
    ) -> ActiveAttempt {
        let shown = self.writer.shown_text();
        let start = if shown.is_empty() {
            ContinuationMode::Restart
        } else {
            self.continuation_mode(&lease, &history.failed)
        };
        let backend = &lease.provider;
        let prepared = match start {
            ContinuationMode::Prefill => prompt::with_prefill(original, &shown),
            ContinuationMode::RepeatOverlap => prompt::with_repeat_instruction(original, &shown),
            ContinuationMode::Restart if backend.supports_prefill.load(Ordering::Relaxed) => {
                prompt::as_prefill(original)
            }
            ContinuationMode::Restart => original.clone(),
        };
        let request = self.fit_to_context(
            prepared,
            original,
            backend,
            history.history_halved_after.is_some(),
        );
        let is_continuation = start != ContinuationMode::Restart;
        let timeouts = &lease.provider.timeouts;
        let time_left = deadline.saturating_duration_since(Instant::now());
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
        let on_first_token = |after| {
            lease.permit.record_first_token(after);
            self.service
                .metrics
                .record_first_token(&lease.provider.name, after);
        };
        let cancelled = log.cancelled(self.options.orphan_grace);
        let report = attempt::drive(call, limits, self.writer, cancelled, on_first_token).await;
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
        self.service
            .metrics
            .record_attempt(&lease.provider.name, outcome, report.elapsed);
        self.summary
            .record_attempt(&mut lease, &report, outcome, &request);
        // A continuation of another attempt's text has no score of its own.
        if let Some(score) = self
            .quality_score(&report)
            .filter(|_| !limits.is_continuation)
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
        let backend = &lease.provider;
        tracing::warn!(turn = %self.writer.log().turn(), attempt = lease.attempt_number,
            provider = %backend.name, status = failure.status, failure = failure.log_safe(),
            started = report.has_text(), "attempt failed");
        let mut failure = failure.clone();
        let mut started = report.has_text();
        if is_prefill_rejection && failure.fault == FaultKind::BadRequest {
            // Retry the same provider without prefill. If the error names prefill, never send it to
            // this provider again.
            if prompt::refuses_prefill(&failure.detail) {
                backend.supports_prefill.store(false, Ordering::Relaxed);
            }
            failure.fault = FaultKind::Diverged;
        } else if failure.fault == FaultKind::Diverged {
            // Where text can be retracted, a provider that did not match may answer anew.
            started = self.options.append_only;
        }
        self.writer
            .fail_attempt(Arc::clone(&backend.name), failure.clone());
        FailedAttempt {
            provider: Arc::clone(&backend.name),
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
        backend: &Provider,
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
                context_tokens: backend.context_tokens,
                halve_history: half,
            },
        )
    }

    /// Returns `true`, and records it as the turn's failure, if no eligible provider has a context
    /// of this size.
    fn exceeds_every_context(&mut self, load: TokenEstimate) -> bool {
        let options = self.options;
        let is_eligible = |backend: &&Arc<Provider>| {
            !options.no_failover || options.preferred_provider.as_ref() == Some(&backend.name)
        };
        let table = self.service.config();
        let mut eligible = table.providers.iter().filter(is_eligible).peekable();
        let Some(first) = eligible.peek().map(|backend| Arc::clone(&backend.name)) else {
            return false;
        };
        let too_long = eligible.all(|backend| !load.fits(backend.context_tokens));
        if too_long {
            let detail = "the messages are longer than any provider has room for";
            self.writer
                .fail_attempt(first, Failure::with_detail(FaultKind::TooLong, detail));
        }
        too_long
    }

    /// Text was shown that the client cannot retract.
    fn must_not_retract(&self) -> bool {
        self.options.append_only && !self.writer.shown_text().is_empty()
    }

    /// Ends the turn without a provider: with an expired cached answer, else from the fallback
    /// chain.
    async fn degrade(&mut self) -> TurnEnd {
        if self.must_not_retract() || !self.options.allow_fallback {
            return TurnEnd::Unanswered;
        }
        match self.lookup_stale().await {
            Some(end) => end,
            None => self.local_fallback(),
        }
    }

    /// Ends the turn from the fallback chain, which needs neither a provider nor the store.
    fn local_fallback(&mut self) -> TurnEnd {
        if self.must_not_retract() || !self.options.allow_fallback {
            return TurnEnd::Unanswered;
        }
        let chain = Arc::clone(&self.service.fallback_chain.borrow());
        let answer = chain.answer(&self.writer.log().record().question);
        self.writer.replace_text(answer.source, &answer.text);
        TurnEnd::WithoutProvider {
            source: answer.source,
            age_s: answer.age_s,
        }
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

#[cfg(test)]
mod tests;

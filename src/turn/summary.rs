//! Builds the summary of a turn that its record reports: attempts, tokens, cost and times.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::attempt::{AttemptEnd, AttemptReport};
use super::log::Cancel;
use crate::domain::{
    AnswerSource, AttemptOutcome, AttemptSummary, ChatRequest, FinishReason, TokenUsage,
    TurnRecord, TurnState,
};
use crate::router::actor::ProviderLease;
use crate::telemetry::spans::AttemptTiming;

#[derive(Clone, Copy, Debug)]
pub enum TurnEnd {
    /// With a provider's complete answer.
    Answered(FinishReason),
    /// With an answer from the cache or the fallback chain.
    WithoutProvider {
        source: AnswerSource,
        age_s: Option<u64>,
    },
    /// By the visitor, a shutdown or the loss of all followers.
    Cancelled(Cancel),
    /// No provider is left, and the options or the shown text do not allow a lesser answer.
    Unanswered,
}

pub struct TurnSummary {
    pub started_at: Instant,
    /// Time from the start to the first shown text.
    pub first_text_after: Option<Duration>,
    attempts: Vec<AttemptSummary>,
    timings: Vec<AttemptTiming>,
    usage: Option<TokenUsage>,
    cost: Option<f64>,
}

impl TurnSummary {
    pub fn start() -> Self {
        Self {
            started_at: Instant::now(),
            attempts: Vec::new(),
            timings: Vec::new(),
            usage: None,
            cost: None,
            first_text_after: None,
        }
    }

    /// Adds a finished attempt, and reports its usage to its permit for the provider's totals.
    pub fn record_attempt(
        &mut self,
        lease: &mut ProviderLease,
        report: &AttemptReport,
        outcome: AttemptOutcome,
        request: &ChatRequest,
    ) {
        self.attempts.push(AttemptSummary {
            attempt: lease.attempt_number,
            provider: Arc::clone(&lease.provider.name),
            model: Arc::clone(&lease.provider.model),
            outcome,
            ms: millis(report.elapsed),
        });
        self.timings.push(AttemptTiming {
            attempt: lease.attempt_number,
            started_after: self.started_at.elapsed().saturating_sub(report.elapsed),
            elapsed: report.elapsed,
            first_token: report.first_token,
        });
        let Some(usage) = attempt_usage(report, request) else {
            return;
        };
        lease.permit.record_usage(usage);
        let sum = self.usage.get_or_insert_default();
        sum.input_tokens += usage.input_tokens;
        sum.output_tokens += usage.output_tokens;
        sum.estimated |= usage.estimated;
        if let Some(cost) = lease.provider.cost_usd(usage) {
            *self.cost.get_or_insert_default() += cost;
        }
    }

    /// Takes the attempts' times out of the summary. Call once, at the end.
    pub fn timings(&mut self) -> Vec<AttemptTiming> {
        std::mem::take(&mut self.timings)
    }

    /// Writes the end of the turn into `record`. `shown_attempt` is the attempt whose text is
    /// shown.
    pub fn fill_record(self, record: &mut TurnRecord, end: TurnEnd, shown_attempt: Option<u32>) {
        record.state = TurnState::Done;
        // A completed turn belongs to its last attempt. A turn that was cut off belongs to the
        // attempt whose text is shown: a later one may have produced no text.
        let was_cut_off = matches!(end, TurnEnd::Cancelled(_) | TurnEnd::Unanswered);
        if let Some(tried) = self
            .attempts
            .iter()
            .find(|tried| was_cut_off && Some(tried.attempt) == shown_attempt)
        {
            record.provider = Some(Arc::clone(&tried.provider));
            record.model = Some(Arc::clone(&tried.model));
        }
        let (source, finish) = match end {
            TurnEnd::Answered(finish) => (AnswerSource::Ai, finish),
            TurnEnd::WithoutProvider { source, age_s } => {
                record.age_s = age_s;
                (source, FinishReason::Stop)
            }
            TurnEnd::Cancelled(Cancel::Stopped) => (AnswerSource::Ai, FinishReason::Stopped),
            TurnEnd::Unanswered | TurnEnd::Cancelled(Cancel::Interrupted) => {
                record.state = TurnState::Interrupted;
                (AnswerSource::Ai, FinishReason::Interrupted)
            }
        };
        record.source = Some(source);
        record.degraded = source.is_degraded();
        record.finish = Some(finish);
        record.tried = self.attempts;
        // With hedging, attempts may end in another order than they started.
        record.tried.sort_by_key(|tried| tried.attempt);
        record.attempts = record
            .attempts
            .max(u32::try_from(record.tried.len()).unwrap_or(u32::MAX));
        record.usage = self.usage;
        record.cost_usd = self.cost;
        record.first_token_ms = self.first_text_after.map(millis);
        record.total_ms = millis(self.started_at.elapsed());
    }
}

/// The tokens that an attempt used: as reported by the provider, or estimated from its text.
///
/// A provider that was cut off may have reported too few output tokens; the larger number counts.
fn attempt_usage(report: &AttemptReport, request: &ChatRequest) -> Option<TokenUsage> {
    let estimated = report
        .has_text()
        .then(|| estimate_usage(request, report.text.chars().count()));
    match (report.usage, estimated) {
        (Some(reported), Some(estimated))
            if !matches!(report.end, AttemptEnd::Complete(_))
                && estimated.output_tokens > reported.output_tokens =>
        {
            Some(TokenUsage {
                output_tokens: estimated.output_tokens,
                estimated: true,
                ..reported
            })
        }
        (reported, estimated) => reported.or(estimated),
    }
}

/// Estimates four characters a token: the rule of thumb in the providers' documentation for
/// English.
fn estimate_usage(request: &ChatRequest, answer_chars: usize) -> TokenUsage {
    let message_chars: usize = request
        .messages
        .iter()
        .map(|message| message.text.chars().count())
        .sum();
    let tokens = |chars: usize| (chars as u64).div_ceil(4);
    let input_tokens = tokens(message_chars + request.system.chars().count());
    TokenUsage {
        input_tokens,
        output_tokens: tokens(answer_chars),
        estimated: true,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

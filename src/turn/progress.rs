//! Builds the summary of a turn that its record reports: attempts, tokens, cost and times.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::attempt::{Ended, Report};
use super::log::Cancel;
use crate::chat::{Ask, Finish, Outcome, Source, Tried, TurnRecord, TurnState, Usage};
use crate::router::actor::Lease;
use crate::telemetry::spans::Timing;

#[derive(Clone, Copy, Debug)]
pub enum End {
    /// With a provider's complete answer.
    Ai(Finish),
    /// With an answer from the cache or the fallback chain.
    Without { source: Source, age_s: Option<u64> },
    /// By the visitor, a shutdown or the loss of all followers.
    Cancelled(Cancel),
    /// No provider is left, and the options or the shown text do not allow a lesser answer.
    Torn,
}

pub struct Progress {
    pub begun: Instant,
    /// Time from the start to the first shown text.
    pub first_text: Option<Duration>,
    tried: Vec<Tried>,
    timings: Vec<Timing>,
    usage: Option<Usage>,
    cost: Option<f64>,
}

impl Progress {
    pub fn begin() -> Self {
        Self {
            begun: Instant::now(),
            tried: Vec::new(),
            timings: Vec::new(),
            usage: None,
            cost: None,
            first_text: None,
        }
    }

    /// Adds a finished attempt, and reports its usage to its permit for the provider's totals.
    pub fn attempted(
        &mut self,
        lease: &mut Lease,
        report: &Report,
        outcome: Outcome,
        request: &Ask,
    ) {
        self.tried.push(Tried {
            attempt: lease.attempt,
            provider: Arc::clone(&lease.backend.name),
            model: Arc::clone(&lease.backend.model),
            outcome,
            ms: millis(report.took),
        });
        self.timings.push(Timing {
            attempt: lease.attempt,
            after: self.begun.elapsed().saturating_sub(report.took),
            took: report.took,
            first_token: report.first_token,
        });
        let Some(usage) = used(report, request) else {
            return;
        };
        lease.permit.used(usage);
        let sum = self.usage.get_or_insert_default();
        sum.input_tokens += usage.input_tokens;
        sum.output_tokens += usage.output_tokens;
        sum.estimated |= usage.estimated;
        if let Some(cost) = lease.backend.cost(usage) {
            *self.cost.get_or_insert_default() += cost;
        }
    }

    /// Takes the attempts' times out of the summary. Call once, at the end.
    pub fn timings(&mut self) -> Vec<Timing> {
        std::mem::take(&mut self.timings)
    }

    /// Writes the end of the turn into `record`. `shown_attempt` is the attempt whose text is
    /// shown.
    pub fn close(self, record: &mut TurnRecord, end: End, shown_attempt: Option<u32>) {
        record.state = TurnState::Done;
        // A completed turn belongs to its last attempt. A turn that was cut off belongs to the
        // attempt whose text is shown: a later one may have produced no text.
        let was_cut_off = matches!(end, End::Cancelled(_) | End::Torn);
        if let Some(tried) = self
            .tried
            .iter()
            .find(|tried| was_cut_off && Some(tried.attempt) == shown_attempt)
        {
            record.provider = Some(Arc::clone(&tried.provider));
            record.model = Some(Arc::clone(&tried.model));
        }
        let (source, finish) = match end {
            End::Ai(finish) => (Source::Ai, finish),
            End::Without { source, age_s } => {
                record.age_s = age_s;
                (source, Finish::Stop)
            }
            End::Cancelled(Cancel::Stopped) => (Source::Ai, Finish::Stopped),
            End::Torn | End::Cancelled(Cancel::Interrupted) => {
                record.state = TurnState::Interrupted;
                (Source::Ai, Finish::Interrupted)
            }
        };
        record.source = Some(source);
        record.degraded = source.degraded();
        record.finish = Some(finish);
        record.tried = self.tried;
        // With hedging, attempts may end in another order than they started.
        record.tried.sort_by_key(|tried| tried.attempt);
        record.attempts = record
            .attempts
            .max(u32::try_from(record.tried.len()).unwrap_or(u32::MAX));
        record.usage = self.usage;
        record.cost_usd = self.cost;
        record.first_token_ms = self.first_text.map(millis);
        record.total_ms = millis(self.begun.elapsed());
    }
}

/// The tokens that an attempt used: as reported by the provider, or estimated from its text.
///
/// A provider that was cut off may have reported too few output tokens; the larger number counts.
fn used(report: &Report, request: &Ask) -> Option<Usage> {
    let estimated = report
        .started()
        .then(|| estimate(request, report.said.chars().count()));
    match (report.usage, estimated) {
        (Some(reported), Some(estimated))
            if !matches!(report.ended, Ended::Whole(_))
                && estimated.output_tokens > reported.output_tokens =>
        {
            Some(Usage {
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
fn estimate(request: &Ask, answer_chars: usize) -> Usage {
    let message_chars: usize = request
        .messages
        .iter()
        .map(|message| message.text.chars().count())
        .sum();
    let tokens = |chars: usize| (chars as u64).div_ceil(4);
    let input_tokens = tokens(message_chars + request.system.chars().count());
    Usage {
        input_tokens,
        output_tokens: tokens(answer_chars),
        estimated: true,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

//! What a turn's end will report: its attempts, tokens, cost and times.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::attempt::{Ended, Report};
use super::log::Cancel;
use crate::chat::{Ask, Finish, Outcome, Source, Tried, TurnRecord, TurnState, Usage};
use crate::router::actor::Lease;
use crate::telemetry::spans::Timing;

/// How a turn ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// By a provider's whole answer.
    Ai(Finish),
    /// By an answer that no provider gave just now.
    Without {
        /// Which kind.
        source: Source,
        /// How old it is, where it was saved.
        age_s: Option<u64>,
    },
    /// By us.
    Cancelled(Cancel),
    /// Nobody is left, and nothing less than a provider's whole answer may be given.
    Torn,
}

/// What a turn's end will report.
pub struct Progress {
    /// When the question came.
    pub begun: Instant,
    /// From then to the first shown text.
    pub first_text: Option<Duration>,
    tried: Vec<Tried>,
    timings: Vec<Timing>,
    usage: Option<Usage>,
    cost: Option<f64>,
}

impl Progress {
    /// Of a turn that begins now.
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

    /// One more attempt ended. What it used is noted with its permit too, for the provider's own account.
    pub fn attempted(&mut self, lease: &mut Lease, report: &Report, outcome: Outcome, ask: &Ask) {
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
        let Some(used) = used(report, ask) else {
            return;
        };
        lease.permit.used(used);
        let sum = self.usage.get_or_insert_default();
        sum.input_tokens += used.input_tokens;
        sum.output_tokens += used.output_tokens;
        sum.estimated |= used.estimated;
        if let Some(cost) = lease.backend.cost(used) {
            *self.cost.get_or_insert_default() += cost;
        }
    }

    /// How the attempts lay in the turn; to be asked once, at its end.
    pub fn timings(&mut self) -> Vec<Timing> {
        std::mem::take(&mut self.timings)
    }

    /// Fills in a record's end. `speaker`: the attempt whose text stands.
    pub fn close(self, record: &mut TurnRecord, end: End, speaker: Option<u32>) {
        record.state = TurnState::Done;
        // What ends by itself is the last one's; what is cut off is whose text stands, not who was begun and said nothing.
        let cut = matches!(end, End::Cancelled(_) | End::Torn);
        if let Some(whose) = self
            .tried
            .iter()
            .find(|one| cut && Some(one.attempt) == speaker)
        {
            record.provider = Some(Arc::clone(&whose.provider));
            record.model = Some(Arc::clone(&whose.model));
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
        // One that was given up for a faster one may have a later number, or end sooner.
        record.tried.sort_by_key(|one| one.attempt);
        record.attempts = record
            .attempts
            .max(u32::try_from(record.tried.len()).unwrap_or(u32::MAX));
        record.usage = self.usage;
        record.cost_usd = self.cost;
        record.first_token_ms = self.first_text.map(millis);
        record.total_ms = millis(self.begun.elapsed());
    }
}

/// The tokens of an attempt: what the provider told, or an estimate of what it said. Who was cut off may not have told all of it.
fn used(report: &Report, ask: &Ask) -> Option<Usage> {
    let said = report
        .started()
        .then(|| estimate(ask, report.said.chars().count()));
    match (report.usage, said) {
        (Some(told), Some(said))
            if !matches!(report.ended, Ended::Whole(_))
                && said.output_tokens > told.output_tokens =>
        {
            Some(Usage {
                output_tokens: said.output_tokens,
                estimated: true,
                ..told
            })
        }
        (told, said) => told.or(said),
    }
}

/// About four characters a token: the rule of thumb that the providers' own documentation gives for English.
fn estimate(ask: &Ask, chars: usize) -> Usage {
    let asked: usize = ask
        .messages
        .iter()
        .map(|message| message.text.chars().count())
        .sum();
    let tokens = |chars: usize| (chars as u64).div_ceil(4);
    let input_tokens = tokens(asked + ask.system.chars().count());
    Usage {
        input_tokens,
        output_tokens: tokens(chars),
        estimated: true,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

//! The order in which providers are tried. Pure: random numbers and the round-robin position are
//! arguments.
//!
//! The strategy sorts all providers; then those that the turn excludes are dropped, and the
//! conversation's sticky provider and the visitor's preferred provider move to the front. A
//! provider that is down, full or over its budget refuses admission later, and the next one is
//! tried.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::config::RoutingStrategy;
use crate::domain::TokenEstimate;

/// The ranking inputs of one provider. Slices of candidates are in the operator's order of
/// preference.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub name: Arc<str>,
    /// The size of the context in tokens; 0 if unknown.
    pub context_tokens: u32,
    /// Share of turns under the `weighted` strategy; 0 counts as 1.
    pub weight: u32,
    /// USD per million input and output tokens; `None` if unknown.
    pub prices: Option<(f64, f64)>,
    /// The median of recent first-token latencies; `None` if it was not called recently.
    pub first_token_ms: Option<u64>,
    pub has_call_in_flight: bool,
}

#[derive(Clone, Debug, Default)]
pub struct RoutingConstraints {
    pub preferred: Option<Arc<str>>,
    /// Exclude every provider other than `preferred`.
    pub no_failover: bool,
    /// Exclude providers whose known context is not larger than that of each of these.
    pub larger_context_than: Vec<Arc<str>>,
    /// Exclude providers whose known context is too small for this.
    pub token_estimate: TokenEstimate,
    pub sticky_provider: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug)]
pub struct OrderBy {
    pub strategy: RoutingStrategy,
    /// A random number in 0..1, used by `weighted`.
    pub random: f64,
    /// Index of the candidate that is first under `round_robin`; wraps around.
    pub round_robin_next: usize,
}

/// Input tokens per output token in a typical chat, which sends its history along. Price
/// comparisons of models use the same blend.
const INPUT_TO_OUTPUT_RATIO: f64 = 3.0;

/// Returns indexes into `candidates`, the best provider first, without the `tried` ones.
pub fn order(
    candidates: &[Candidate],
    by: OrderBy,
    wish: &RoutingConstraints,
    tried: &[Arc<str>],
) -> Vec<usize> {
    let largest_outgrown = candidates
        .iter()
        .filter(|candidate| wish.larger_context_than.contains(&candidate.name))
        .map(|candidate| candidate.context_tokens)
        .max()
        .unwrap_or_default();
    let is_larger = |candidate: &Candidate| {
        candidate.context_tokens == 0 || candidate.context_tokens > largest_outgrown
    };
    let is_named =
        |name: &Option<Arc<str>>, candidate: &Candidate| name.as_ref() == Some(&candidate.name);
    let is_allowed = |candidate: &Candidate| {
        is_larger(candidate)
            && wish.token_estimate.fits(candidate.context_tokens)
            && !tried.contains(&candidate.name)
            && (!wish.no_failover || is_named(&wish.preferred, candidate))
    };
    let mut allowed: Vec<(usize, &Candidate)> = candidates
        .iter()
        .enumerate()
        .filter(|(_, candidate)| is_allowed(candidate))
        .collect();
    // All sorts are stable: ties keep the order of preference.
    match by.strategy {
        RoutingStrategy::Priority => {}
        RoutingStrategy::Weighted => allowed = weighted_draw(allowed, by.random),
        RoutingStrategy::RoundRobin => {
            let count = candidates.len().max(1);
            allowed.sort_by_key(|(index, _)| (index + count - by.round_robin_next % count) % count);
        }
        RoutingStrategy::Fastest => allowed.sort_by_key(|(_, candidate)| latency_rank(candidate)),
        RoutingStrategy::Cheapest => allowed
            .sort_by(|(_, left), (_, right)| blended_price(left).total_cmp(&blended_price(right))),
    }
    // Stickiness applies where chance or speed alone would move the conversation.
    let is_sticky = matches!(
        by.strategy,
        RoutingStrategy::Weighted | RoutingStrategy::Fastest
    );
    allowed.sort_by_key(|(_, candidate)| {
        Reverse((
            is_named(&wish.preferred, candidate),
            is_sticky && is_named(&wish.sticky_provider, candidate),
        ))
    });
    allowed.into_iter().map(|(index, _)| index).collect()
}

/// Orders the candidates by drawing one after another, each with a probability proportional to its
/// weight among the remaining ones.
///
/// One random number suffices: its position within the share of the drawn candidate is again
/// uniform in 0..1.
fn weighted_draw(mut remaining: Vec<(usize, &Candidate)>, random: f64) -> Vec<(usize, &Candidate)> {
    let weight = |(_, candidate): &(usize, &Candidate)| f64::from(candidate.weight.max(1));
    let mut random = if random > 0.0 { random.min(1.0) } else { 0.0 };
    let mut drawn = Vec::with_capacity(remaining.len());
    while !remaining.is_empty() {
        let mut point = random * remaining.iter().map(weight).sum::<f64>();
        let mut found = 0;
        for (index, candidate) in remaining.iter().enumerate() {
            // A rounding error beyond the last candidate counts as the last candidate.
            found = index;
            if point < weight(candidate) {
                break;
            }
            point -= weight(candidate);
        }
        let candidate = remaining.remove(found);
        random = (point / weight(&candidate)).clamp(0.0, 1.0);
        drawn.push(candidate);
    }
    drawn
}

/// The sort key of the `fastest` strategy.
///
/// A provider of unknown speed comes first so that it gets measured, but only while no call to it
/// is in flight: a slow one must not receive a crowd.
fn latency_rank(candidate: &Candidate) -> (u8, u64) {
    match candidate.first_token_ms {
        None if !candidate.has_call_in_flight => (0, 0),
        Some(ms) => (1, ms),
        None => (2, 0),
    }
}

/// The price of a million tokens in a typical chat; infinite if prices are unknown.
fn blended_price(candidate: &Candidate) -> f64 {
    let cost = candidate
        .prices
        .map(|(input, output)| INPUT_TO_OUTPUT_RATIO * input + output);
    cost.filter(|cost| !cost.is_nan()).unwrap_or(f64::INFINITY)
}

#[cfg(test)]
mod tests;

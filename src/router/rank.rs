//! The order in which providers are tried. Pure: random numbers and the round-robin position are
//! arguments.
//!
//! The strategy sorts all providers; then those that the turn excludes are dropped, and the
//! conversation's sticky provider and the visitor's preferred provider move to the front. A
//! provider that is down, full or over its budget refuses admission later, and the next one is
//! tried.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::chat::Load;
use crate::settings::Strategy;

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
    pub asked: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Wish {
    pub first: Option<Arc<str>>,
    /// Exclude every provider other than `preferred`.
    pub only_first: bool,
    /// Exclude providers whose known context is not larger than that of each of these.
    pub more_room_than: Vec<Arc<str>>,
    /// Exclude providers whose known context is too small for this.
    pub load: Load,
    pub served_by: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug)]
pub struct Order {
    pub strategy: Strategy,
    /// A random number in 0..1, used by `weighted`.
    pub chance: f64,
    /// Index of the candidate that is first under `round_robin`; wraps around.
    pub turn_of: usize,
}

/// Input tokens per output token in a typical chat, which sends its history along. Price
/// comparisons of models use the same blend.
const IN_FOR_ONE_OUT: f64 = 3.0;

/// Returns indexes into `candidates`, the best provider first, without the `tried` ones.
pub fn order(candidates: &[Candidate], by: Order, wish: &Wish, tried: &[Arc<str>]) -> Vec<usize> {
    let largest_outgrown = candidates
        .iter()
        .filter(|candidate| wish.more_room_than.contains(&candidate.name))
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
            && wish.load.fits(candidate.context_tokens)
            && !tried.contains(&candidate.name)
            && (!wish.only_first || is_named(&wish.first, candidate))
    };
    let mut allowed: Vec<(usize, &Candidate)> = candidates
        .iter()
        .enumerate()
        .filter(|(_, candidate)| is_allowed(candidate))
        .collect();
    // All sorts are stable: ties keep the order of preference.
    match by.strategy {
        Strategy::Priority => {}
        Strategy::Weighted => allowed = drawn(allowed, by.chance),
        Strategy::RoundRobin => {
            let count = candidates.len().max(1);
            allowed.sort_by_key(|(index, _)| (index + count - by.turn_of % count) % count);
        }
        Strategy::Fastest => allowed.sort_by_key(|(_, candidate)| speed(candidate)),
        Strategy::Cheapest => {
            allowed.sort_by(|(_, left), (_, right)| blended(left).total_cmp(&blended(right)))
        }
    }
    // Stickiness applies where chance or speed alone would move the conversation.
    let is_sticky = matches!(by.strategy, Strategy::Weighted | Strategy::Fastest);
    allowed.sort_by_key(|(_, candidate)| {
        Reverse((
            is_named(&wish.first, candidate),
            is_sticky && is_named(&wish.served_by, candidate),
        ))
    });
    allowed.into_iter().map(|(index, _)| index).collect()
}

/// Orders the candidates by drawing one after another, each with a probability proportional to its
/// weight among the remaining ones.
///
/// One random number suffices: its position within the share of the drawn candidate is again
/// uniform in 0..1.
fn drawn(mut remaining: Vec<(usize, &Candidate)>, random: f64) -> Vec<(usize, &Candidate)> {
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
fn speed(candidate: &Candidate) -> (u8, u64) {
    match candidate.first_token_ms {
        None if !candidate.asked => (0, 0),
        Some(ms) => (1, ms),
        None => (2, 0),
    }
}

/// The price of a million tokens in a typical chat; infinite if prices are unknown.
fn blended(candidate: &Candidate) -> f64 {
    let cost = candidate
        .prices
        .map(|(input, output)| IN_FOR_ONE_OUT * input + output);
    cost.filter(|cost| !cost.is_nan()).unwrap_or(f64::INFINITY)
}

#[cfg(test)]
mod tests;

//! In which order providers are asked. Pure: chance and whose turn it is are arguments.
//!
//! A strategy orders them all; those to whom a turn may not go are left out; then the provider that a conversation stays with, and before
//! it the one that the visitor named, come to the front. The order says who is asked for leave first; a provider that is down, full or
//! over its budget refuses, and the next one is asked.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::chat::Load;
use crate::settings::Strategy;

/// What the order depends on, one a provider, in order of preference.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its name.
    pub name: Arc<str>,
    /// The room of its context in tokens; 0 where that is not known.
    pub context_tokens: u32,
    /// Its share of turns under the weighted strategy; 0 counts as 1.
    pub weight: u32,
    /// USD per million tokens, in and out; none where they are not known.
    pub prices: Option<(f64, f64)>,
    /// The median of its recent first tokens, in milliseconds; none where it was not asked lately.
    pub first_token_ms: Option<u64>,
    /// Whether a call to it is under way.
    pub asked: bool,
}

/// What a turn asks of the order.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Ask this one first.
    pub first: Option<Arc<str>>,
    /// And nobody else.
    pub only_first: bool,
    /// Only who has more room than each of these, as far as theirs is known, or unknown room.
    pub more_room_than: Vec<Arc<str>>,
    /// Only who has room for this, or unknown room.
    pub load: Load,
    /// Who served the conversation last.
    pub served_by: Option<Arc<str>>,
}

/// By what the order is made.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// The operator's choice.
    pub strategy: Strategy,
    /// A random number in 0..1, for the weighted strategy.
    pub chance: f64,
    /// Whose turn it is, as a place in the candidates, for `round_robin`; places beyond the last begin again.
    pub turn_of: usize,
}

/// How many tokens go in for one that comes out: chats send their history along. It is the blend that price comparisons of models use.
const IN_FOR_ONE_OUT: f64 = 3.0;

/// The places, in `candidates`, of those to ask, best first, without those in `tried`.
pub fn order(candidates: &[Candidate], by: Order, wish: &Wish, tried: &[Arc<str>]) -> Vec<usize> {
    let outgrown = candidates
        .iter()
        .filter(|one| wish.more_room_than.contains(&one.name));
    let room = outgrown
        .map(|one| one.context_tokens)
        .max()
        .unwrap_or_default();
    let roomier = |one: &Candidate| one.context_tokens == 0 || one.context_tokens > room;
    let fits = |one: &Candidate| roomier(one) && wish.load.fits(one.context_tokens);
    let is = |name: &Option<Arc<str>>, one: &Candidate| name.as_ref() == Some(&one.name);
    let may = |one: &Candidate| {
        fits(one) && !tried.contains(&one.name) && (!wish.only_first || is(&wish.first, one))
    };
    let mut left: Vec<(usize, &Candidate)> = candidates
        .iter()
        .enumerate()
        .filter(|(_, one)| may(one))
        .collect();
    // All sorts are stable: where the strategy sees no difference, the order of preference stays.
    match by.strategy {
        Strategy::Priority => {}
        Strategy::Weighted => left = drawn(left, by.chance),
        Strategy::RoundRobin => {
            let all = candidates.len().max(1);
            left.sort_by_key(|(place, _)| (place + all - by.turn_of % all) % all);
        }
        Strategy::Fastest => left.sort_by_key(|(_, one)| speed(one)),
        Strategy::Cheapest => {
            left.sort_by(|(_, one), (_, other)| blended(one).total_cmp(&blended(other)))
        }
    }
    let stays = matches!(by.strategy, Strategy::Weighted | Strategy::Fastest);
    left.sort_by_key(|(_, one)| Reverse((is(&wish.first, one), stays && is(&wish.served_by, one))));
    left.into_iter().map(|(place, _)| place).collect()
}

/// Draws one after the other, each by its weight among those that are left.
///
/// One random number is enough: where it lies within the share of the one that was drawn is as random as it was before.
fn drawn(mut left: Vec<(usize, &Candidate)>, chance: f64) -> Vec<(usize, &Candidate)> {
    let weight = |(_, one): &(usize, &Candidate)| f64::from(one.weight.max(1));
    let mut chance = if chance > 0.0 { chance.min(1.0) } else { 0.0 };
    let mut drawn = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let mut point = chance * left.iter().map(weight).sum::<f64>();
        let mut found = 0;
        for (at, one) in left.iter().enumerate() {
            // What rounding leaves beyond the last one belongs to the last one.
            found = at;
            if point < weight(one) {
                break;
            }
            point -= weight(one);
        }
        let one = left.remove(found);
        chance = (point / weight(&one)).clamp(0.0, 1.0);
        drawn.push(one);
    }
    drawn
}

/// Smaller is faster. Who is not known is tried, before all others but by one turn at a time, so that a slow one does not get a crowd.
fn speed(one: &Candidate) -> (u8, u64) {
    match one.first_token_ms {
        None if !one.asked => (0, 0),
        Some(ms) => (1, ms),
        None => (2, 0),
    }
}

/// What a million tokens cost in a chat's usual blend; beyond all prices where they are not known.
fn blended(one: &Candidate) -> f64 {
    let cost = one
        .prices
        .map(|(input, output)| IN_FOR_ONE_OUT * input + output);
    cost.filter(|cost| !cost.is_nan()).unwrap_or(f64::INFINITY)
}

#[cfg(test)]
mod tests;

//! The order of providers under every strategy.

use super::*;
use crate::config::ConfigEnum as _;
// Not the whole prelude: its `RoutingStrategy` would hide ours.
use proptest::prelude::{any, prop, prop_assert_eq, proptest};

const PRIORITY: OrderBy = OrderBy {
    strategy: RoutingStrategy::Priority,
    random: 0.0,
    round_robin_next: 0,
};

fn candidate(name: &str) -> Candidate {
    Candidate {
        name: name.into(),
        context_tokens: 0,
        weight: 1,
        prices: None,
        first_token_ms: None,
        has_call_in_flight: false,
    }
}

fn named(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().map(|name| (*name).into()).collect()
}

fn ordered(
    candidates: &[Candidate],
    by: OrderBy,
    wish: &RoutingConstraints,
    tried: &[&str],
) -> String {
    order(candidates, by, wish, &named(tried))
        .iter()
        .map(|index| &*candidates[*index].name)
        .collect()
}

fn order_by_context(wish: &RoutingConstraints, tried: &[&str]) -> String {
    let sizes = [("a", 100), ("b", 0), ("c", 50), ("d", 200)];
    let candidates = sizes.map(|(name, context_tokens)| Candidate {
        context_tokens,
        ..candidate(name)
    });
    ordered(&candidates, PRIORITY, wish, tried)
}

#[test]
fn priority_follows_preference_without_the_tried() {
    assert_eq!(
        order_by_context(&RoutingConstraints::default(), &[]),
        "abcd"
    );
    assert_eq!(
        order_by_context(&RoutingConstraints::default(), &["a", "c"]),
        "bd"
    );
}

#[test]
fn preferred_provider_comes_first_or_alone() {
    let mut wish = RoutingConstraints {
        preferred: Some("c".into()),
        ..RoutingConstraints::default()
    };
    assert_eq!(order_by_context(&wish, &[]), "cabd");
    assert_eq!(order_by_context(&wish, &["c"]), "abd");
    wish.no_failover = true;
    assert_eq!(order_by_context(&wish, &[]), "c");
    assert_eq!(order_by_context(&wish, &["c"]), "");
    wish.preferred = Some("unknown".into());
    assert_eq!(order_by_context(&wish, &[]), "");
}

#[test]
fn providers_with_too_small_a_context_are_excluded() {
    let loaded = |prompt| RoutingConstraints {
        token_estimate: TokenEstimate {
            prompt_tokens: prompt,
            max_answer_tokens: 20,
        },
        ..RoutingConstraints::default()
    };
    for (prompt, order) in [
        (30, "abcd"),
        (31, "abd"),
        (80, "abd"),
        (81, "bd"),
        (180, "bd"),
        (181, "b"),
    ] {
        assert_eq!(order_by_context(&loaded(prompt), &[]), order, "{prompt}");
    }
    let wish = RoutingConstraints {
        preferred: Some("c".into()),
        no_failover: true,
        ..loaded(31)
    };
    assert_eq!(order_by_context(&wish, &[]), "");
}

#[test]
fn larger_or_unknown_context_follows_an_outgrown_one() {
    let outgrown = |names: &[&str]| RoutingConstraints {
        larger_context_than: named(names),
        ..RoutingConstraints::default()
    };
    assert_eq!(order_by_context(&outgrown(&["a"]), &["a"]), "bd");
    assert_eq!(order_by_context(&outgrown(&["b"]), &["b"]), "acd");
    assert_eq!(order_by_context(&outgrown(&["a", "b"]), &["a", "b"]), "d");
    assert_eq!(order_by_context(&outgrown(&["d", "c"]), &["d", "c"]), "b");
}

#[test]
fn round_robin_rotates_the_order() {
    let candidates = ["a", "b", "c"].map(candidate);
    let rotated = |turn_of| OrderBy {
        strategy: RoutingStrategy::RoundRobin,
        round_robin_next: turn_of,
        ..PRIORITY
    };
    for (turn_of, tried, expected) in [
        (0, &[][..], "abc"),
        (1, &[], "bca"),
        (2, &[], "cab"),
        (3, &[], "abc"),
        (7, &[], "bca"),
        (2, &["b"], "ca"),
        (usize::MAX, &[], "abc"),
    ] {
        let found = ordered(
            &candidates,
            rotated(turn_of),
            &RoutingConstraints::default(),
            tried,
        );
        assert_eq!(found, expected, "{turn_of} without {tried:?}");
    }
}

#[test]
fn fastest_tries_unknown_providers_one_call_at_a_time() {
    let candidates = [
        ("a", Some(900), false),
        ("b", None, false),
        ("c", Some(200), true),
        ("d", None, true),
    ];
    let candidates = candidates.map(|(name, first_token_ms, asked)| Candidate {
        first_token_ms,
        has_call_in_flight: asked,
        ..candidate(name)
    });
    let fastest = OrderBy {
        strategy: RoutingStrategy::Fastest,
        ..PRIORITY
    };
    assert_eq!(
        ordered(&candidates, fastest, &RoutingConstraints::default(), &[]),
        "bcad"
    );
    assert_eq!(
        ordered(
            &candidates,
            fastest,
            &RoutingConstraints::default(),
            &["b", "c"]
        ),
        "ad"
    );
}

#[test]
fn cheapest_puts_unknown_prices_last() {
    let prices = [
        ("a", None),
        ("b", Some((0.15, 0.6))),
        ("c", Some((0.0, 0.0))),
        ("d", Some((1.0, 0.1))),
    ];
    let mut candidates = prices
        .map(|(name, prices)| Candidate {
            prices,
            ..candidate(name)
        })
        .to_vec();
    let cheapest = OrderBy {
        strategy: RoutingStrategy::Cheapest,
        ..PRIORITY
    };
    assert_eq!(
        ordered(&candidates, cheapest, &RoutingConstraints::default(), &[]),
        "cbda"
    );
    candidates[1].prices = Some((f64::NAN, 1.0));
    assert_eq!(
        ordered(&candidates, cheapest, &RoutingConstraints::default(), &[]),
        "cdab"
    );
}

#[test]
fn weighted_draws_every_order_with_its_probability() {
    let candidates = [("a", 6), ("b", 3), ("c", 0)].map(|(name, weight)| Candidate {
        weight,
        ..candidate(name)
    });
    let mut counts = std::collections::BTreeMap::<String, u32>::new();
    // Evenly spread numbers stand for all random numbers, so each order occurs exactly as often as
    // it is likely.

    for step in 0..1_000 {
        let by = OrderBy {
            strategy: RoutingStrategy::Weighted,
            random: (f64::from(step) + 0.5) / 1_000.0,
            round_robin_next: 0,
        };
        *counts
            .entry(ordered(
                &candidates,
                by,
                &RoutingConstraints::default(),
                &[],
            ))
            .or_default() += 1;
    }
    // 6/10 · 3/4, 6/10 · 1/4, 3/10 · 6/7, 3/10 · 1/7, 1/10 · 6/9, 1/10 · 3/9.
    let expected_counts = [
        ("abc", 450),
        ("acb", 150),
        ("bac", 257),
        ("bca", 43),
        ("cab", 67),
        ("cba", 33),
    ];
    for (order, expected) in expected_counts {
        let found = counts.get(order).copied().unwrap_or(0);
        assert!(
            found.abs_diff(expected) <= 1,
            "{order}: {found} of 1000, not {expected}"
        );
    }
}

#[test]
fn conversation_sticks_only_where_speed_or_chance_would_move_it() {
    let mut candidates = ["a", "b", "c"].map(candidate);
    for (candidate, ms) in candidates.iter_mut().zip([1, 2, 3]) {
        candidate.first_token_ms = Some(ms);
        candidate.prices = Some((1.0, 1.0));
    }
    let wish = RoutingConstraints {
        sticky_provider: Some("c".into()),
        ..RoutingConstraints::default()
    };
    for strategy in RoutingStrategy::ALL {
        let by = OrderBy {
            strategy: *strategy,
            ..PRIORITY
        };
        let is_sticky = matches!(
            strategy,
            RoutingStrategy::Weighted | RoutingStrategy::Fastest
        );
        let expected = if is_sticky { "cab" } else { "abc" };
        assert_eq!(ordered(&candidates, by, &wish, &[]), expected, "{strategy}");
        assert_eq!(ordered(&candidates, by, &wish, &["c"]), "ab", "{strategy}");
        let preferred = RoutingConstraints {
            preferred: Some("b".into()),
            ..wish.clone()
        };
        let expected = if is_sticky { "bca" } else { "bac" };
        assert_eq!(
            ordered(&candidates, by, &preferred, &[]),
            expected,
            "the preferred provider comes before the sticky one, {strategy}"
        );
    }
}

proptest! {
    /// Whatever the numbers: the order contains each untried provider once, and no other.
    #[test]
    fn every_order_is_a_permutation_of_the_untried(
        parts in prop::collection::vec(
            (
                0u32..3,
                0u32..5,
                prop::option::of((prop::num::f64::ANY, prop::num::f64::ANY)),
                prop::option::of(0u64..9),
                any::<bool>(),
            ),
            0..6,
        ),
        strategy in prop::sample::select(RoutingStrategy::ALL),
        chance in prop::num::f64::ANY,
        turn_of: usize,
        tried in prop::collection::btree_set(0usize..6, 0..3),
        served_by in prop::option::of(0usize..6),
    ) {
        let name = |index: usize| Arc::<str>::from(format!("p{index}"));
        let candidates: Vec<Candidate> = parts
            .into_iter()
            .enumerate()
            .map(|(index, (context_tokens, weight, prices, first_token_ms, asked))| Candidate {
                name: name(index), context_tokens, weight, prices, first_token_ms, has_call_in_flight: asked,
            })
            .collect();
        let by = OrderBy { strategy, random: chance, round_robin_next: turn_of };
        let wish = RoutingConstraints { sticky_provider: served_by.map(name), ..RoutingConstraints::default() };
        let tried_names: Vec<_> = tried.iter().copied().map(name).collect();
        let mut found = order(&candidates, by, &wish, &tried_names);
        found.sort_unstable();
        let expected: Vec<_> = (0..candidates.len()).filter(|index| !tried.contains(index)).collect();
        prop_assert_eq!(found, expected);
    }
}

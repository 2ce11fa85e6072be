//! Who is asked first, second and last, under every strategy.

use super::*;
use crate::settings::Choice as _;
// Not all of its prelude: its own `Strategy` would hide ours.
use proptest::prelude::{any, prop, prop_assert_eq, proptest};

const PRIORITY: Order = Order {
    strategy: Strategy::Priority,
    chance: 0.0,
    turn_of: 0,
};

fn candidate(name: &str) -> Candidate {
    Candidate {
        name: name.into(),
        context_tokens: 0,
        weight: 1,
        prices: None,
        first_token_ms: None,
        asked: false,
    }
}

fn named(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().map(|name| (*name).into()).collect()
}

fn ordered(candidates: &[Candidate], by: Order, wish: &Wish, tried: &[&str]) -> String {
    order(candidates, by, wish, &named(tried))
        .iter()
        .map(|place| &*candidates[*place].name)
        .collect()
}

fn by_room(wish: &Wish, tried: &[&str]) -> String {
    let sizes = [("a", 100), ("b", 0), ("c", 50), ("d", 200)];
    let candidates = sizes.map(|(name, context_tokens)| Candidate {
        context_tokens,
        ..candidate(name)
    });
    ordered(&candidates, PRIORITY, wish, tried)
}

#[test]
fn follows_preference_without_the_tried() {
    assert_eq!(by_room(&Wish::default(), &[]), "abcd");
    assert_eq!(by_room(&Wish::default(), &["a", "c"]), "bd");
}

#[test]
fn a_wish_comes_first_or_alone() {
    let mut wish = Wish {
        first: Some("c".into()),
        ..Wish::default()
    };
    assert_eq!(by_room(&wish, &[]), "cabd");
    assert_eq!(by_room(&wish, &["c"]), "abd");
    wish.only_first = true;
    assert_eq!(by_room(&wish, &[]), "c");
    assert_eq!(by_room(&wish, &["c"]), "");
    wish.first = Some("unknown".into());
    assert_eq!(by_room(&wish, &[]), "");
}

#[test]
fn who_has_too_little_room_is_passed_over() {
    let loaded = |prompt| Wish {
        load: Load { prompt, answer: 20 },
        ..Wish::default()
    };
    for (prompt, order) in [
        (30, "abcd"),
        (31, "abd"),
        (80, "abd"),
        (81, "bd"),
        (180, "bd"),
        (181, "b"),
    ] {
        assert_eq!(by_room(&loaded(prompt), &[]), order, "{prompt}");
    }
    let wish = Wish {
        first: Some("c".into()),
        only_first: true,
        ..loaded(31)
    };
    assert_eq!(by_room(&wish, &[]), "");
}

#[test]
fn who_needs_more_room_gets_more_or_unknown_room() {
    let outgrown = |names: &[&str]| Wish {
        more_room_than: named(names),
        ..Wish::default()
    };
    assert_eq!(by_room(&outgrown(&["a"]), &["a"]), "bd");
    assert_eq!(by_room(&outgrown(&["b"]), &["b"]), "acd");
    assert_eq!(by_room(&outgrown(&["a", "b"]), &["a", "b"]), "d");
    assert_eq!(by_room(&outgrown(&["d", "c"]), &["d", "c"]), "b");
}

#[test]
fn they_take_turns() {
    let all = ["a", "b", "c"].map(candidate);
    let turn = |turn_of| Order {
        strategy: Strategy::RoundRobin,
        turn_of,
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
        let found = ordered(&all, turn(turn_of), &Wish::default(), tried);
        assert_eq!(found, expected, "{turn_of} without {tried:?}");
    }
}

#[test]
fn the_fastest_is_first_and_the_unknown_are_tried_by_one_at_a_time() {
    let all = [
        ("a", Some(900), false),
        ("b", None, false),
        ("c", Some(200), true),
        ("d", None, true),
    ];
    let all = all.map(|(name, first_token_ms, asked)| Candidate {
        first_token_ms,
        asked,
        ..candidate(name)
    });
    let fastest = Order {
        strategy: Strategy::Fastest,
        ..PRIORITY
    };
    assert_eq!(ordered(&all, fastest, &Wish::default(), &[]), "bcad");
    assert_eq!(ordered(&all, fastest, &Wish::default(), &["b", "c"]), "ad");
}

#[test]
fn the_cheapest_is_first_and_who_says_no_price_last() {
    let prices = [
        ("a", None),
        ("b", Some((0.15, 0.6))),
        ("c", Some((0.0, 0.0))),
        ("d", Some((1.0, 0.1))),
    ];
    let mut all = prices
        .map(|(name, prices)| Candidate {
            prices,
            ..candidate(name)
        })
        .to_vec();
    let cheapest = Order {
        strategy: Strategy::Cheapest,
        ..PRIORITY
    };
    assert_eq!(ordered(&all, cheapest, &Wish::default(), &[]), "cbda");
    all[1].prices = Some((f64::NAN, 1.0));
    assert_eq!(ordered(&all, cheapest, &Wish::default(), &[]), "cdab");
}

#[test]
fn chance_is_spread_by_weight_over_every_place() {
    let all = [("a", 6), ("b", 3), ("c", 0)].map(|(name, weight)| Candidate {
        weight,
        ..candidate(name)
    });
    let mut seen = std::collections::BTreeMap::<String, u32>::new();
    // Evenly spread numbers stand for all: each order must come as often as its draws are likely.
    for step in 0..1_000 {
        let by = Order {
            strategy: Strategy::Weighted,
            chance: (f64::from(step) + 0.5) / 1_000.0,
            turn_of: 0,
        };
        *seen
            .entry(ordered(&all, by, &Wish::default(), &[]))
            .or_default() += 1;
    }
    // 6/10 · 3/4, 6/10 · 1/4, 3/10 · 6/7, 3/10 · 1/7, 1/10 · 6/9, 1/10 · 3/9.
    let likely = [
        ("abc", 450),
        ("acb", 150),
        ("bac", 257),
        ("bca", 43),
        ("cab", 67),
        ("cba", 33),
    ];
    for (order, often) in likely {
        let found = seen.get(order).copied().unwrap_or(0);
        assert!(
            found.abs_diff(often) <= 1,
            "{order}: {found} of 1000, not {often}"
        );
    }
}

#[test]
fn a_conversation_stays_only_where_speed_or_chance_would_move_it() {
    let mut all = ["a", "b", "c"].map(candidate);
    for (one, ms) in all.iter_mut().zip([1, 2, 3]) {
        one.first_token_ms = Some(ms);
        one.prices = Some((1.0, 1.0));
    }
    let wish = Wish {
        served_by: Some("c".into()),
        ..Wish::default()
    };
    for strategy in Strategy::ALL {
        let by = Order {
            strategy: *strategy,
            ..PRIORITY
        };
        let stays = matches!(strategy, Strategy::Weighted | Strategy::Fastest);
        let expected = if stays { "cab" } else { "abc" };
        assert_eq!(ordered(&all, by, &wish, &[]), expected, "{strategy}");
        assert_eq!(ordered(&all, by, &wish, &["c"]), "ab", "{strategy}");
        let named = Wish {
            first: Some("b".into()),
            ..wish.clone()
        };
        let expected = if stays { "bca" } else { "bac" };
        assert_eq!(
            ordered(&all, by, &named, &[]),
            expected,
            "what is named comes before, {strategy}"
        );
    }
}

proptest! {
    /// Whatever the numbers: everyone who may be asked is, once, and nobody else.
    #[test]
    fn every_order_is_whole(
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
        strategy in prop::sample::select(Strategy::ALL),
        chance in prop::num::f64::ANY,
        turn_of: usize,
        tried in prop::collection::btree_set(0usize..6, 0..3),
        served_by in prop::option::of(0usize..6),
    ) {
        let name = |place: usize| Arc::<str>::from(format!("p{place}"));
        let candidates: Vec<Candidate> = parts
            .into_iter()
            .enumerate()
            .map(|(place, (context_tokens, weight, prices, first_token_ms, asked))| Candidate {
                name: name(place), context_tokens, weight, prices, first_token_ms, asked,
            })
            .collect();
        let by = Order { strategy, chance, turn_of };
        let wish = Wish { served_by: served_by.map(name), ..Wish::default() };
        let gone: Vec<_> = tried.iter().copied().map(name).collect();
        let mut found = order(&candidates, by, &wish, &gone);
        found.sort_unstable();
        let expected: Vec<_> = (0..candidates.len()).filter(|place| !tried.contains(place)).collect();
        prop_assert_eq!(found, expected);
    }
}

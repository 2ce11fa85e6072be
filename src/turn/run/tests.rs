//! Whom a turn goes to under each strategy, and what becomes of answers that are none.

use std::time::Duration;

use crate::chat::{At, Fault, Finish, ProviderState, Source, TurnId, TurnRecord, TurnState};
use crate::provider::backend::Vitals;
use crate::provider::paused::{Paused, pass};
use crate::provider::scripted::{Act, Script, breaks, fails, says};
use crate::provider::spending::Terms;
use crate::provider::stand::Plan;
use crate::settings::Strategy;
use crate::store::Store as _;
use crate::turn::reader::Reader;
use crate::turn::stage::{House, Stage, conversation, question};

/// Backends `a`, `b` and `c`, which say their names.
fn house(strategy: Strategy) -> House {
    let mut house = House::following([vec![says("a")], vec![says("b")], vec![says("c")]]);
    house.settings.routing.strategy = strategy;
    house
}

/// A new conversation's first message; the names of those asked, in order.
async fn asked(stage: &Stage, number: u8) -> String {
    asked_in(stage, number, "m").await
}

async fn asked_in(stage: &Stage, number: u8, name: &str) -> String {
    let room = stage.desk.rooms.enter(conversation(number));
    let Ok(log) = stage
        .desk
        .open(&room, question(name, "What is new?"), stage.desk.usual())
    else {
        panic!("refused")
    };
    let reader = Reader::follow(&log).await;
    stage.assert_idle().await;
    reader
        .done()
        .tried
        .iter()
        .map(|one| &*one.provider)
        .collect()
}

/// Puts an ended turn into a conversation, answered whole by this provider.
async fn served(stage: &Stage, number: u8, provider: &str) {
    let name = format!("old-{provider}").parse().unwrap();
    let mut record = TurnRecord::asked(TurnId::after(None, 1, 0), name, At(1), "q".into(), None);
    record.text = "a".into();
    record.state = TurnState::Done;
    record.source = Some(Source::Ai);
    record.finish = Some(Finish::Stop);
    record.provider = Some(provider.into());
    stage
        .store
        .write_turn(conversation(number), record)
        .await
        .unwrap();
}

#[actix_rt::test(system = "Paused")]
async fn they_take_turns() {
    let stage = house(Strategy::RoundRobin).open();
    let mut all = String::new();
    for number in 0..7 {
        all += &asked(&stage, number).await;
    }
    assert_eq!(all, "abcabca");
}

#[actix_rt::test(system = "Paused")]
async fn whose_turn_it_is_passes_over_one_that_is_down_and_gives_nobody_its_share() {
    let mut down = house(Strategy::RoundRobin);
    let later = At(u64::MAX / 2);
    down.plans[1].vitals = Vitals {
        state: ProviderState::Open,
        retry_at: Some(later),
        ..Vitals::default()
    };
    let stage = down.open();
    let mut all = String::new();
    for number in 0..6 {
        all += &asked(&stage, number).await;
    }
    assert_eq!(all, "acacac");
}

#[actix_rt::test(system = "Paused")]
async fn a_fail_over_goes_on_in_the_circle_and_takes_nobodys_turn() {
    let mut failing = house(Strategy::RoundRobin);
    failing.plans[1].scripts = vec![breaks("x", Fault::Reset), says("b")];
    let stage = failing.open();
    let mut all = Vec::new();
    for number in 0..4 {
        all.push(asked(&stage, number).await);
    }
    assert_eq!(all, ["a", "bc", "c", "a"]);
}

#[actix_rt::test(system = "Paused")]
async fn chance_goes_by_weight() {
    for (weights, expected) in [([1, 1, 1], "b"), ([3, 1, 1], "a"), ([1, 1, 3], "c")] {
        let mut weighted = house(Strategy::Weighted);
        for (plan, weight) in weighted.plans.iter_mut().zip(weights) {
            plan.weight = weight;
        }
        // The stage's chance is always a half.
        assert_eq!(asked(&weighted.open(), 1).await, expected, "{weights:?}");
    }
}

#[actix_rt::test(system = "Paused")]
async fn the_cheapest_is_asked_and_the_next_cheapest_where_it_fails() {
    let mut priced = house(Strategy::Cheapest);
    for (plan, prices) in priced
        .plans
        .iter_mut()
        .zip([Some((3.0, 15.0)), None, Some((0.15, 0.6))])
    {
        plan.terms = Terms {
            prices,
            daily_budget_usd: None,
        };
    }
    priced.plans[2].scripts = vec![says("c"), fails(Fault::Timeout)];
    let stage = priced.open();
    assert_eq!(asked(&stage, 1).await, "c");
    assert_eq!(asked(&stage, 2).await, "ca");
}

#[actix_rt::test(system = "Paused")]
async fn the_unknown_are_tried_and_then_the_fastest_is_asked_until_it_is_forgotten() {
    let after = |ms, text: &str| {
        vec![
            Act::Wait(Duration::from_millis(ms)),
            says(text).remove(0),
            Act::End(Finish::Stop),
        ]
    };
    let mut house = house(Strategy::Fastest);
    for (plan, (ms, text)) in house
        .plans
        .iter_mut()
        .zip([(900, "a"), (300, "b"), (600, "c")])
    {
        plan.scripts = vec![after(ms, text)];
    }
    let stage = house.open();
    let mut all = String::new();
    for number in 0..6 {
        all += &asked(&stage, number).await;
    }
    assert_eq!(all, "abcbbb");
    // One that became fast is found when its old record is forgotten.
    stage.stands[0].upstream.follow([after(10, "a")]);
    let mut seen = String::new();
    for number in 10..40 {
        pass(Duration::from_secs(30)).await;
        seen += &asked(&stage, number).await;
    }
    assert!(
        seen.starts_with("bbbb") && seen.contains("aaaaaa"),
        "{seen}"
    );
}

#[actix_rt::test(system = "Paused")]
async fn a_conversation_stays_with_who_served_it_while_that_one_is_well() {
    for strategy in [Strategy::Weighted, Strategy::Fastest] {
        let mut known = house(strategy);
        known.plans[1].weight = 1_000_000;
        let stage = known.open();
        served(&stage, 1, "c").await;
        assert_eq!(asked(&stage, 1).await, "c", "{strategy}");
        // Its own answers keep it there.
        assert_eq!(asked_in(&stage, 1, "again").await, "c", "{strategy}");
        stage.stands[2]
            .upstream
            .follow([fails(Fault::Unauthorized)]);
        assert_eq!(
            asked_in(&stage, 1, "more").await.chars().next(),
            Some('c'),
            "{strategy}"
        );
        let moved = asked_in(&stage, 1, "last").await;
        assert!(
            moved == "a" || moved == "b",
            "blocked, it is not asked: {moved} under {strategy}"
        );
        served(&stage, 2, "gone").await;
        assert_ne!(
            asked(&stage, 2).await,
            "c",
            "one that is no more configured holds nobody"
        );
    }
}

#[actix_rt::test(system = "Paused")]
async fn whose_budget_is_spent_is_passed_over() {
    let mut house = house(Strategy::Priority);
    house.plans[0].terms.daily_budget_usd = Some(1e-6);
    let stage = house.open();
    // What the script does not tell is estimated.
    assert_eq!(asked(&stage, 1).await, "a");
    assert!(stage.stands[0].vitals().await.spent.estimated);
    assert_eq!(asked(&stage, 2).await, "b");
    assert_eq!(stage.stands[0].vitals().await.failures, 0);
}

#[actix_rt::test(system = "Paused")]
async fn what_a_broken_answer_did_not_tell_is_estimated() {
    let text = "four".repeat(100);
    let script = vec![
        Act::Used(50, 1),
        Act::Say(text),
        Act::Fail(crate::chat::Failure::of(Fault::Reset)),
    ];
    let stage = House::of([Plan::new("a").with([script])]).open();
    asked(&stage, 1).await;
    let used = stage.stands[0].vitals().await.used;
    assert_eq!(
        (used.input_tokens, used.output_tokens, used.estimated),
        (50, 100, true)
    );
}

fn repeated(finish: Finish) -> Script {
    vec![
        Act::Say("Well, ".into()),
        Act::Say(" the".repeat(500)),
        Act::End(finish),
    ]
}

#[actix_rt::test(system = "Paused")]
async fn one_token_repeated_to_the_limit_is_a_failed_attempt() {
    let stage = House::following([vec![repeated(Finish::Length)], vec![says("Hello.")]]).open();
    let log = stage.ask("m");
    let reader = Reader::follow(&log).await;
    assert_eq!(
        (reader.done().text.as_str(), reader.done().drafts.len()),
        ("Hello.", 1)
    );
    assert_eq!(reader.done().tried[0].outcome.as_str(), "malformed");
    let vitals = stage.stands[0].vitals().await;
    assert_eq!(
        (vitals.failures, vitals.reason, vitals.quality),
        (1, Some(Fault::Poor), Some(0.0))
    );
    let ends = House::following([vec![repeated(Finish::Stop)], vec![]]).open();
    assert_eq!(
        asked(&ends, 1).await,
        "a",
        "it was not the limit that ended it"
    );
}

#[actix_rt::test(system = "Paused")]
async fn no_visitor_can_open_breakers_by_asking_for_poor_answers() {
    let mut house =
        House::following([vec![repeated(Finish::Length), says("ok")], vec![says("ok")]]);
    house.settings.quality.min_chars = 10;
    let stage = house.open();
    for number in 0..20 {
        assert_eq!(asked(&stage, number).await, "ab");
    }
    for stand in &stage.stands {
        assert_eq!(stand.vitals().await.state, ProviderState::Closed);
        assert_eq!(stand.vitals().await.failures, 20);
    }
}

#[actix_rt::test(system = "Paused")]
async fn whole_answers_are_scored_and_refusals_are_not() {
    let good =
        "One two three four five six seven eight nine ten, and so on to the end of it. ".to_owned();
    let refuses = vec![Act::Say("No.".into()), Act::End(Finish::ContentFilter)];
    let mut house = House::following([vec![says(&good), refuses]]);
    house.settings.quality.keywords = vec!["seven".to_owned(), "eleven".to_owned()];
    let stage = house.open();
    asked(&stage, 1).await;
    let quality = stage.stands[0].vitals().await.quality.unwrap();
    let expected = f64::from(u32::try_from(good.trim().len()).unwrap()) / 200.0 * 0.75;
    assert!(
        (quality - expected).abs() < 1e-9,
        "{quality} for {expected}"
    );
    asked(&stage, 2).await;
    assert_eq!(stage.stands[0].vitals().await.quality, Some(quality));
}

//! A provider is down for a minute while a turn comes every four seconds.

use super::*;
use crate::router::actor::MAILBOX;
use tokio::time::Instant;

/// Turns until `end`, one every four seconds or as soon as the one before has its answer; each is answered, by `a` or by `b`. Gives when `a`
/// answered first.
async fn turns(stage: &Stage, end: Instant, count: &mut u32) -> Option<Instant> {
    let mut back = None;
    while Instant::now() < end {
        let begun = Instant::now();
        *count += 1;
        let reader = Reader::follow(&stage.ask(&format!("m{count}"))).await;
        let done = reader.done();
        assert_eq!((done.source, &*done.text), (Source::Ai, "Hello."));
        assert!(
            Instant::now() - begun <= s(5),
            "a first token is waited for no longer"
        );
        if done.provider.as_deref() == Some("a") {
            back = back.or(Some(begun));
        }
        pass(s(4).saturating_sub(Instant::now() - begun)).await;
    }
    back
}

#[actix_rt::test(system = "Paused")]
async fn everyone_is_answered_and_it_is_tried_once_an_open_time() {
    for down in [
        fails(Fault::Unreachable),
        fails(Fault::Overloaded),
        fails(Fault::ServerError),
        silent(),
    ] {
        let stage = House::following([vec![down.clone()], vec![says("Hello.")]]).open();
        let alpha = &stage.stands[0];
        alpha.upstream.follow_when_probed([down.clone()]);
        let (begun, mut count) = (Instant::now(), 0);
        assert_eq!(turns(&stage, begun + s(60), &mut count).await, None);
        assert!(count >= 14, "{count} turns in a minute");
        // Five failures open it; then it is our own probe that tries it, after 10 s, 20 s, and 20 to 25 s.
        assert_eq!(stage.calls(0).len(), 5, "{down:?}");
        let last = stage.calls(0)[4].at;
        let tries: Vec<_> = alpha.upstream.probes().iter().map(|call| call.at).collect();
        let mut before = last;
        for (at, open_for) in tries.iter().zip([10, 20, 22]) {
            assert!(
                *at - before >= s(open_for),
                "{down:?}: tried again after {:?}",
                *at - before
            );
            before = *at;
        }
        assert!(
            (1..=3).contains(&tries.len()),
            "{down:?}: {} tries",
            tries.len()
        );

        let well = Instant::now();
        alpha.upstream.follow([says("Hello.")]);
        alpha.upstream.follow_when_probed([says("pong")]);
        let back = turns(&stage, well + s(60), &mut count).await.unwrap();
        assert!(
            back - well <= s(30),
            "{down:?}: back after {:?}",
            back - well
        );
        stage.assert_idle().await;
    }
}

#[actix_rt::test(system = "Paused")]
async fn it_is_found_well_within_half_a_minute_whenever_that_is() {
    for down in [fails(Fault::Reset), silent()] {
        for length in 30..100 {
            let stage = House::following([vec![down.clone()], vec![says("Hello.")]]).open();
            let alpha = &stage.stands[0];
            alpha.upstream.follow_when_probed([down.clone()]);
            let begun = Instant::now();
            let end = begun + s(length);
            turns(&stage, end.min(begun + s(30)), &mut 0).await;
            pass(end.saturating_duration_since(Instant::now())).await;
            assert_ne!(alpha.vitals().await.state, ProviderState::Closed);
            let well = Instant::now();
            alpha.upstream.follow_when_probed([says("pong")]);
            let mut vitals = alpha.backend.vitals.clone();
            vitals
                .wait_for(|vitals| vitals.state == ProviderState::Closed)
                .await
                .unwrap();
            assert!(
                Instant::now() - well <= s(30),
                "{down:?} for {length} s: {:?}",
                Instant::now() - well
            );
        }
    }
}

#[actix_rt::test(system = "Paused")]
async fn where_too_many_questions_wait_for_the_router_the_ladder_answers_at_once() {
    let stage = House::following([vec![says("Hello.")]]).open();
    let waiting: Vec<_> = (0..MAILBOX)
        .map_while(|_| stage.desk.asking.take(MAILBOX))
        .collect();
    let begun = Instant::now();
    let reader = Reader::follow(&stage.ask("m1")).await;
    assert_eq!(
        (&*reader.done().text, begun.elapsed()),
        (FALLBACK, Duration::ZERO)
    );
    assert!(stage.calls(0).is_empty());
    drop(waiting);
    let reader = Reader::follow(&stage.ask("m2")).await;
    assert_eq!(&*reader.done().text, "Hello.");
    assert_eq!(stage.desk.asking.taken(), 0);
}

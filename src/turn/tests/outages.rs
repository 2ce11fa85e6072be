//! A provider is down for a minute while a turn starts every four seconds.

use super::*;
use crate::router::actor::MAILBOX;
use tokio::time::Instant;

/// Asks until `end`, every four seconds or as soon as the previous turn has ended. Every turn is
/// answered. Returns the start of the first turn that `a` answered.
async fn ask_until(harness: &Stage, end: Instant, count: &mut u32) -> Option<Instant> {
    let mut first_by_a = None;
    while Instant::now() < end {
        let started = Instant::now();
        *count += 1;
        let reader = Reader::follow(&harness.ask(&format!("m{count}"))).await;
        let done = reader.done();
        assert_eq!((done.source, &*done.text), (Source::Ai, "Hello."));
        assert!(
            Instant::now() - started <= s(5),
            "a first token takes at most five seconds"
        );
        if done.provider.as_deref() == Some("a") {
            first_by_a = first_by_a.or(Some(started));
        }
        pass(s(4).saturating_sub(Instant::now() - started)).await;
    }
    first_by_a
}

#[actix_rt::test(system = "Paused")]
async fn every_turn_is_answered_and_the_provider_is_only_probed() {
    for down in [
        fails(Fault::Unreachable),
        fails(Fault::Overloaded),
        fails(Fault::ServerError),
        silent(),
    ] {
        let harness = House::following([vec![down.clone()], vec![says("Hello.")]]).open();
        let provider_a = &harness.stands[0];
        provider_a.upstream.follow_when_probed([down.clone()]);
        let started = Instant::now();
        let mut count = 0;
        assert_eq!(ask_until(&harness, started + s(60), &mut count).await, None);
        assert!(count >= 14, "{count} turns in a minute");
        // Five failures open the breaker. Then only health probes reach it, after 10 s, 20 s, and
        // 20 to 25 s.
        assert_eq!(harness.calls(0).len(), 5, "{down:?}");
        let last = harness.calls(0)[4].at;
        let probes: Vec<_> = provider_a
            .upstream
            .probes()
            .iter()
            .map(|call| call.at)
            .collect();
        let mut before = last;
        for (at, open_for) in probes.iter().zip([10, 20, 22]) {
            assert!(
                *at - before >= s(open_for),
                "{down:?}: probed again after {:?}",
                *at - before
            );
            before = *at;
        }
        assert!(
            (1..=3).contains(&probes.len()),
            "{down:?}: {} probes",
            probes.len()
        );

        let recovered = Instant::now();
        provider_a.upstream.follow([says("Hello.")]);
        provider_a.upstream.follow_when_probed([says("pong")]);
        let back = ask_until(&harness, recovered + s(60), &mut count)
            .await
            .unwrap();
        assert!(
            back - recovered <= s(30),
            "{down:?}: back after {:?}",
            back - recovered
        );
        harness.assert_idle().await;
    }
}

#[actix_rt::test(system = "Paused")]
async fn recovery_is_detected_within_half_a_minute_after_any_downtime() {
    for down in [fails(Fault::Reset), silent()] {
        for length in 30..100 {
            let harness = House::following([vec![down.clone()], vec![says("Hello.")]]).open();
            let provider_a = &harness.stands[0];
            provider_a.upstream.follow_when_probed([down.clone()]);
            let started = Instant::now();
            let end = started + s(length);
            ask_until(&harness, end.min(started + s(30)), &mut 0).await;
            pass(end.saturating_duration_since(Instant::now())).await;
            assert_ne!(provider_a.vitals().await.state, ProviderState::Closed);
            let recovered = Instant::now();
            provider_a.upstream.follow_when_probed([says("pong")]);
            let mut status = provider_a.backend.vitals.clone();
            status
                .wait_for(|status| status.state == ProviderState::Closed)
                .await
                .unwrap();
            assert!(
                Instant::now() - recovered <= s(30),
                "{down:?} for {length} s: {:?}",
                Instant::now() - recovered
            );
        }
    }
}

#[actix_rt::test(system = "Paused")]
async fn fallback_answers_at_once_when_the_router_queue_is_full() {
    let harness = House::following([vec![says("Hello.")]]).open();
    let waiting: Vec<_> = (0..MAILBOX)
        .map_while(|_| harness.desk.asking.take(MAILBOX))
        .collect();
    let started = Instant::now();
    let reader = Reader::follow(&harness.ask("m1")).await;
    assert_eq!(
        (&*reader.done().text, started.elapsed()),
        (FALLBACK, Duration::ZERO)
    );
    assert!(harness.calls(0).is_empty());
    drop(waiting);
    let reader = Reader::follow(&harness.ask("m2")).await;
    assert_eq!(&*reader.done().text, "Hello.");
    assert_eq!(harness.desk.asking.taken(), 0);
}

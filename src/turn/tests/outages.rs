//! A provider is down for a minute while a turn starts every four seconds.

use super::*;
use crate::router::actor::MAILBOX_CAPACITY;
use tokio::time::Instant;

/// Asks until `end`, every four seconds or as soon as the previous turn has ended. Every turn is
/// answered. Returns the start of the first turn that `a` answered.
async fn ask_until(harness: &TestService, end: Instant, count: &mut u32) -> Option<Instant> {
    let mut first_by_a = None;
    while Instant::now() < end {
        let started = Instant::now();
        *count += 1;
        let reader = ProtocolClient::follow(&harness.ask(&format!("m{count}"))).await;
        let done = reader.done();
        assert_eq!((done.source, &*done.text), (AnswerSource::Ai, "Hello."));
        assert!(
            Instant::now() - started <= s(5),
            "a first token takes at most five seconds"
        );
        if done.provider.as_deref() == Some("a") {
            first_by_a = first_by_a.or(Some(started));
        }
        advance(s(4).saturating_sub(Instant::now() - started)).await;
    }
    first_by_a
}

#[actix_rt::test(system = "Paused")]
async fn every_turn_is_answered_and_the_provider_is_only_probed() {
    for down in [
        fail_with(FaultKind::Unreachable),
        fail_with(FaultKind::Overloaded),
        fail_with(FaultKind::ServerError),
        hang(),
    ] {
        let harness =
            TestServiceBuilder::with_scripts([vec![down.clone()], vec![reply("Hello.")]]).start();
        let provider_a = &harness.providers[0];
        provider_a.client.set_probe_scripts([down.clone()]);
        let started = Instant::now();
        let mut count = 0;
        assert_eq!(ask_until(&harness, started + s(60), &mut count).await, None);
        assert!(count >= 14, "{count} turns in a minute");
        // Five failures open the breaker. Then only health probes reach it, after 10 s, 20 s, and
        // 20 to 25 s.
        assert_eq!(harness.calls(0).len(), 5, "{down:?}");
        let last = harness.calls(0)[4].started_at;
        let probes: Vec<_> = provider_a
            .client
            .probes()
            .iter()
            .map(|call| call.started_at)
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
        provider_a.client.set_scripts([reply("Hello.")]);
        provider_a.client.set_probe_scripts([reply("pong")]);
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
    for down in [fail_with(FaultKind::Reset), hang()] {
        for length in 30..100 {
            let harness =
                TestServiceBuilder::with_scripts([vec![down.clone()], vec![reply("Hello.")]])
                    .start();
            let provider_a = &harness.providers[0];
            provider_a.client.set_probe_scripts([down.clone()]);
            let started = Instant::now();
            let end = started + s(length);
            ask_until(&harness, end.min(started + s(30)), &mut 0).await;
            advance(end.saturating_duration_since(Instant::now())).await;
            assert_ne!(provider_a.status().await.state, ProviderState::Closed);
            let recovered = Instant::now();
            provider_a.client.set_probe_scripts([reply("pong")]);
            let mut status = provider_a.provider.status.clone();
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
    let harness = TestServiceBuilder::with_scripts([vec![reply("Hello.")]]).start();
    let waiting: Vec<_> = (0..MAILBOX_CAPACITY)
        .map_while(|_| harness.turns.router_queue.try_acquire(MAILBOX_CAPACITY))
        .collect();
    let started = Instant::now();
    let reader = ProtocolClient::follow(&harness.ask("m1")).await;
    assert_eq!(
        (&*reader.done().text, started.elapsed()),
        (FALLBACK_TEXT, Duration::ZERO)
    );
    assert!(harness.calls(0).is_empty());
    drop(waiting);
    let reader = ProtocolClient::follow(&harness.ask("m2")).await;
    assert_eq!(&*reader.done().text, "Hello.");
    assert_eq!(harness.turns.router_queue.in_use(), 0);
}

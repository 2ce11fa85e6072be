//! What hedging shows of a provider to its breaker.

use super::*;

#[actix_rt::test(system = "Paused")]
async fn always_overtaken_provider_keeps_its_breaker_closed_and_shows_its_latency() {
    let service = hedging([vec![reply("Hello.")], vec![reply("Hello.")]]).start();
    // The provider's usual latency is low, so every later call would count as slow.
    for number in 0..30 {
        ProtocolClient::follow(&service.ask(&format!("well{number}"))).await;
        advance(ms(3_000)).await;
    }
    service.providers[0].client.set_scripts([hang()]);
    // Slow enough for the retry budget.
    for number in 0..30 {
        let client = ProtocolClient::follow(&service.ask(&format!("hung{number}"))).await;
        assert_eq!(attempt_lines(&client), ["1 a stopped 1000", "2 b ok 0"]);
        advance(ms(6_000)).await;
    }
    let provider_status = service.providers[0].status().await;
    assert_eq!(
        (
            provider_status.state,
            provider_status.failures,
            provider_status.failed_probes
        ),
        (ProviderState::Closed, 0, 0)
    );
    assert!(
        provider_status
            .first_token_latency
            .is_some_and(|recent| recent.p99 >= 1_000),
        "{:?}",
        provider_status.first_token_latency
    );
}

#[actix_rt::test(system = "Paused")]
async fn abandoned_attempt_does_not_reset_consecutive_failures() {
    let resets = || fail_with(FaultKind::Reset);
    let scripts = vec![resets(), resets(), resets(), resets(), hang(), resets()];
    let mut builder = hedging([scripts, vec![reply("Hello.")]]);
    builder.providers[0].retry.same_provider = 0;
    let service = builder.start();
    for number in 0..6 {
        assert_eq!(
            service.providers[0].status().await.state,
            ProviderState::Closed,
            "before {number}"
        );
        let client = ProtocolClient::follow(&service.ask(&format!("m{number}"))).await;
        assert_eq!(client.done().text, "Hello.");
    }
    assert_eq!(
        service.providers[0].status().await.state,
        ProviderState::Open,
        "four failures, and the fifth after the abandoned attempt"
    );
}

#[actix_rt::test(system = "Paused")]
async fn hanging_provider_is_detected_by_turns_without_hedging() {
    let service = hedging([vec![hang()], vec![reply("Hello.")]]).start();
    let mut turns = 0;
    while service.providers[0].status().await.state == ProviderState::Closed {
        let client = ProtocolClient::follow(&service.ask(&format!("m{turns}"))).await;
        assert_eq!(client.done().text, "Hello.");
        turns += 1;
        assert!(turns < 60, "the hanging provider is never detected");
    }
}

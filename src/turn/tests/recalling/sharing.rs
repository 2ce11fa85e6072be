//! Identical questions that are asked at the same time.

use super::*;

#[actix_rt::test(system = "Paused")]
async fn one_turn_asks_for_all_identical_questions() {
    let harness = start_with_cache(
        [vec![reply_slowly("Hel", s(2), "lo.")]],
        CacheSharing::Always,
    );
    let first = ask(&harness, 1);
    run_until_idle().await;
    let others: Vec<_> = (2..=6).map(|number| ask(&harness, number)).collect();
    let stopped = ask(&harness, 7);
    run_until_idle().await;
    stopped.cancel(Cancel::Stopped);
    assert_eq!(
        ProtocolClient::follow(&stopped).await.done().finish,
        FinishReason::Stopped
    );
    assert_answered(&ProtocolClient::follow(&first).await, "a", "Hello.");
    for other in &others {
        assert_cached(
            &ProtocolClient::follow(other).await,
            AnswerSource::Cache,
            "Hello.",
            0,
        );
    }
    assert_eq!(harness.calls(0).len(), 1);
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn identical_questions_are_asked_separately_without_sharing() {
    for share in [CacheSharing::Never, CacheSharing::Repeated] {
        let harness = start_with_cache([vec![reply_slowly("Hel", s(2), "lo.")]], share);
        let logs: Vec<_> = (1..=2).map(|number| ask(&harness, number)).collect();
        for log in &logs {
            assert_answered(&ProtocolClient::follow(log).await, "a", "Hello.");
        }
        assert_eq!(harness.calls(0).len(), 2, "{share:?}");
    }
}

#[actix_rt::test(system = "Paused")]
async fn followers_ask_themselves_after_the_leader_fails() {
    let harness = start_with_cache(
        [
            vec![fail_with(FaultKind::BadRequest)],
            vec![reply_slowly("Hel", s(2), "lo.")],
        ],
        CacheSharing::Always,
    );
    let logs: Vec<_> = (1..=4).map(|number| ask(&harness, number)).collect();
    advance(s(1)).await;
    assert_eq!(
        harness.calls(1).len(),
        4,
        "no turn waits for a second attempt of the leader"
    );
    for log in &logs {
        assert_answered(&ProtocolClient::follow(log).await, "b", "Hello.");
    }
    assert_eq!((logs.len(), harness.calls(1).len()), (4, 4));
    // A leader stopped by its visitor has no answer for the followers either.
    let harness = start_with_cache(
        [vec![reply_slowly("Hel", s(2), "lo.")]],
        CacheSharing::Always,
    );
    let logs: Vec<_> = (1..=3).map(|number| ask(&harness, number)).collect();
    run_until_idle().await;
    let first = logs.iter().position(|log| log.attempts() == 1).unwrap();
    logs[first].cancel(Cancel::Stopped);
    for (number, log) in logs
        .iter()
        .enumerate()
        .filter(|(number, _)| *number != first)
    {
        assert_eq!(
            ProtocolClient::follow(log).await.done().source,
            AnswerSource::Ai,
            "{number}"
        );
    }
    harness.assert_idle().await;
}

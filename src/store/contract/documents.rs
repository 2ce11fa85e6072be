//! The contract for the service's own records: breakers, daily spends, incidents, documents.

use crate::domain::{FaultKind, Incident, ServiceLifetime, ServiceMode, Timestamp};
use crate::store::{BreakerRecord, DailySpendRecord, MAX_INCIDENTS, Store};

pub(super) async fn breakers_read_back_the_last_write(store: &dyn Store) {
    let open = |provider: &str, strikes| BreakerRecord {
        provider: provider.into(),
        is_blocked: false,
        failed_probes: strikes,
        retry_at: Timestamp(9),
        reason: "timeout".into(),
        fault: Some(FaultKind::Timeout),
    };
    for (provider, strikes) in [("b", 1), ("a", 1), ("b", 2)] {
        let record = open(provider, strikes);
        store
            .write_breaker(provider.into(), Some(record))
            .await
            .unwrap();
    }
    let mut found = store.breakers().await.unwrap();
    found.sort_by(|a, b| a.provider.cmp(&b.provider));
    assert_eq!(found, [open("a", 1), open("b", 2)]);
    store.write_breaker("a".into(), None).await.unwrap();
    assert_eq!(store.breakers().await, Ok(vec![open("b", 2)]));
}

pub(super) async fn daily_spend_reads_back_the_last_write(store: &dyn Store) {
    let spent = |provider: &str, day, usd| DailySpendRecord {
        provider: provider.into(),
        utc_day: day,
        usd,
        is_estimated: false,
    };
    assert_eq!(store.daily_spend().await, Ok(vec![]));
    for (provider, day, usd) in [("b", 1, 0.5), ("a", 1, 0.25), ("b", 2, 0.125)] {
        store
            .save_daily_spend(spent(provider, day, usd))
            .await
            .unwrap();
    }
    let mut found = store.daily_spend().await.unwrap();
    found.sort_by(|a, b| a.provider.cmp(&b.provider));
    assert_eq!(found, [spent("a", 1, 0.25), spent("b", 2, 0.125)]);
    // A spend is not mistaken for a breaker.
    assert_eq!(store.breakers().await, Ok(vec![]));
}

pub(super) async fn incidents_read_back_the_last_write_and_are_bounded(store: &dyn Store) {
    assert_eq!(store.incidents().await, Ok(vec![]));
    let incident = |ms: u64, ended| Incident {
        id: format!("inc-{ms}"),
        mode: ServiceMode::Outage,
        started: Timestamp(ms),
        ended,
        cause: "a: timeout".into(),
    };
    for (ms, ended) in [(900, None), (10_000, None), (900, Some(Timestamp(950)))] {
        store.write_incident(incident(ms, ended)).await.unwrap();
    }
    assert_eq!(
        store.incidents().await,
        Ok(vec![
            incident(900, Some(Timestamp(950))),
            incident(10_000, None)
        ])
    );
    for ms in 0..u64::try_from(MAX_INCIDENTS).unwrap() {
        drop(store.write_incident(incident(20_000 + ms, None)));
    }
    store.write_incident(incident(30_000, None)).await.unwrap();
    let stored = store.incidents().await.unwrap();
    assert_eq!(
        (stored.len(), stored[0].started),
        (MAX_INCIDENTS, Timestamp(20_001))
    );
}

pub(super) async fn service_lifetime_reads_back_the_last_write(store: &dyn Store) {
    assert_eq!(store.service_lifetime().await, Ok(None));
    for last in [Timestamp(6), Timestamp(7)] {
        store
            .save_service_lifetime(ServiceLifetime {
                first_start: Timestamp(5),
                last_seen: last,
            })
            .await
            .unwrap();
    }
    assert_eq!(
        store.service_lifetime().await,
        Ok(Some(ServiceLifetime {
            first_start: Timestamp(5),
            last_seen: Timestamp(7)
        }))
    );
}

pub(super) async fn documents_read_back_the_last_write(store: &dyn Store) {
    assert_eq!(store.note("one".into()).await, Ok(None));
    for (name, text) in [("one", "first"), ("two", ""), ("one", "second\n\u{0}é")] {
        store.write_note(name.into(), text.into()).await.unwrap();
    }
    assert_eq!(
        store.note("one".into()).await,
        Ok(Some("second\n\u{0}é".into()))
    );
    assert_eq!(store.note("two".into()).await, Ok(Some(String::new())));
    assert_eq!(
        store.note("on".into()).await,
        Ok(None),
        "names match exactly, not by prefix"
    );
}

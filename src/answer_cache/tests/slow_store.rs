//! Lookups over a store that is slow or fails.

use super::*;

#[tokio::test(start_paused = true)]
async fn slow_or_failing_store_gives_no_hit() {
    let (store, cache) = new_cache(settings(CacheSharing::Always));
    ask(&cache, first_message(1), "Hours?", "saved", 5).await;
    for (trouble, limit) in [
        (StoreFault::Slow(Duration::from_secs(5)), CACHE_READ_TIMEOUT),
        (StoreFault::Failing, Duration::ZERO),
    ] {
        store.set_fault(trouble);
        let started_at = tokio::time::Instant::now();
        assert_eq!(
            lookup(&cache, first_message(2), "Hours?", AcceptedAge::FreshOnly).await,
            None
        );
        assert!(
            started_at.elapsed() <= limit + Duration::from_millis(1),
            "{:?}",
            started_at.elapsed()
        );
    }
    store.set_fault(StoreFault::Slow(Duration::from_millis(40)));
    assert!(
        lookup(&cache, first_message(2), "Hours?", AcceptedAge::FreshOnly)
            .await
            .is_some()
    );
}

#[tokio::test(start_paused = true)]
async fn unknown_key_is_not_read_once_the_index_is_complete() {
    let (store, cache) = new_cache(settings(CacheSharing::Always));
    ask(&cache, first_message(1), "Hours?", "saved", 5).await;
    let timed_lookup = async |cache: &AnswerCache, question: &str| {
        store.set_fault(StoreFault::Slow(Duration::from_millis(40)));
        let started_at = tokio::time::Instant::now();
        let found = lookup(cache, first_message(2), question, AcceptedAge::FreshOnly)
            .await
            .map(|(text, ..)| text);
        store.set_fault(StoreFault::None);
        (found, started_at.elapsed() >= Duration::from_millis(40))
    };
    assert_eq!(
        timed_lookup(&cache, "Where?").await,
        (None, true),
        "before the index is loaded"
    );
    let cache = AnswerCache::new(
        Arc::clone(&store) as _,
        settings(CacheSharing::Always),
        "Be kind.".into(),
    );
    cache.load().await;
    assert_eq!(timed_lookup(&cache, "Where?").await, (None, false));
    assert_eq!(
        timed_lookup(&cache, "Hours?").await,
        (Some("saved".into()), true)
    );
    ask(&cache, first_message(3), "Where?", "here", 5).await;
    assert_eq!(
        timed_lookup(&cache, "Where?").await,
        (Some("here".into()), true)
    );
}

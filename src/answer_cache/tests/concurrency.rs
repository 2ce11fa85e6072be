//! Concurrent changes: every saved answer can be found, and their number stays within the limit.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const MAX_ENTRIES: usize = 4;
const VISITORS: u64 = 12;
const ROUNDS: u64 = 3_000;

/// Randomly saves, reads and removes the answers of more visitors than the cache has space for.
async fn visit(cache: &AnswerCache, mut random: u64) {
    for _ in 0..ROUNDS {
        // Marsaglia's xorshift.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let asker = first_message(random % VISITORS);
        let record = answered("Hours?", "Always.");
        let place = cache.slot("Hours?", asker).unwrap();
        match random >> 40 & 3 {
            0 => cache.remove(asker.conversation, &record).await,
            1 => drop(cache.get(&place, AcceptedAge::FreshOnly, NOW).await),
            _ => cache.put(&place, &record, NOW).await,
        }
    }
}

#[test]
fn concurrent_changes_keep_the_index_and_the_store_equal() {
    let small = CacheSettings {
        max_entries: MAX_ENTRIES,
        ..settings(CacheSharing::Never)
    };
    let (store, cache) = new_cache(small);
    block_on(cache.load());
    let running = AtomicUsize::new(4);
    std::thread::scope(|scope| {
        for seed in 1..=4_u64 {
            let cache = &cache;
            let running = &running;
            scope.spawn(move || {
                block_on(visit(cache, seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
                running.fetch_sub(1, Ordering::SeqCst);
            });
        }
        while running.load(Ordering::SeqCst) > 0 {
            let saved = block_on(store.answer_keys()).unwrap().len();
            assert!(saved <= MAX_ENTRIES, "{saved} are saved");
        }
    });
    let saved = block_on(store.answer_keys()).unwrap();
    let mut found = 0;
    for visitor in 0..VISITORS {
        let hit = block_on(lookup(
            &cache,
            first_message(visitor),
            "Hours?",
            AcceptedAge::FreshOnly,
        ));
        found += usize::from(hit.is_some());
    }
    assert_eq!(found, saved.len(), "every saved answer is found");
    assert!(found > 0);
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

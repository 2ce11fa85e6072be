//! Many at once: what is saved can be found, and is never more than there may be.

use std::sync::atomic::AtomicUsize;

use super::*;

const MOST: usize = 4;
const VISITORS: u64 = 12;
const ROUNDS: u64 = 3_000;

/// Saves, finds and evicts, as chance has it, the answers of more visitors than there is room for.
async fn visit(shelf: &Shelf, mut chance: u64) {
    for _ in 0..ROUNDS {
        // Marsaglia's xorshift.
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        let asker = first(chance % VISITORS);
        let record = answered("Hours?", "Always.");
        let place = shelf.place("Hours?", asker).unwrap();
        match chance >> 40 & 3 {
            0 => shelf.evict(asker.conversation, &record).await,
            1 => drop(shelf.find(&place, Need::Fresh, NOW).await),
            _ => shelf.keep(&place, &record, NOW).await,
        }
    }
}

#[test]
fn what_is_saved_is_found_and_is_never_too_much() {
    let few = CacheSettings {
        max_entries: MOST,
        ..settings(Share::Never)
    };
    let (store, shelf) = shelf(few);
    wait(shelf.open());
    let busy = AtomicUsize::new(4);
    std::thread::scope(|scope| {
        for seed in 1..=4_u64 {
            let (shelf, busy) = (&shelf, &busy);
            scope.spawn(move || {
                wait(visit(shelf, seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
                busy.fetch_sub(1, Ordering::SeqCst);
            });
        }
        while busy.load(Ordering::SeqCst) > 0 {
            let saved = wait(store.cached_keys()).unwrap().len();
            assert!(saved <= MOST, "{saved} are saved");
        }
    });
    let saved = wait(store.cached_keys()).unwrap();
    let mut seen = 0;
    for visitor in 0..VISITORS {
        let told = wait(found(&shelf, first(visitor), "Hours?", Need::Fresh));
        seen += usize::from(told.is_some());
    }
    assert_eq!(seen, saved.len(), "what is saved is found");
    assert!(seen > 0);
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

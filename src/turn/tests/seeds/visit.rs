//! One visitor of one turn: follows it, leaves and comes back, stops it, or is never seen again.

use tokio::time::timeout;

use super::super::*;
use super::chance::Chance;
use crate::chat::ConversationId;
use crate::turn::log::Cancel;
use crate::turn::rooms::Room;

/// A turn as its visitor saw it.
pub struct Visit {
    pub conversation: ConversationId,
    pub log: Arc<TurnLog>,
    pub reader: Reader,
    /// Whether the visitor stopped it or was away: only then it may end cut.
    pub abandoned: bool,
}

/// Reads the turn to its end, one way or another.
pub async fn visit(room: Arc<Room>, log: Arc<TurnLog>, mut chance: Chance) -> Visit {
    let conversation = room.id();
    let mut reader = Reader::default();
    let manner = chance.below(10);
    match manner {
        // Cut and back again, each time where the page stands.
        0..=2 => {
            for _ in 0..1 + chance.below(3) {
                let mut follower = if reader.seq == 0 {
                    log.follow()
                } else {
                    log.resume(reader.seq)
                };
                let _ = timeout(chance.pause(), reader.read(&mut follower)).await;
                drop(follower);
                elapse(chance.between(0, 3_000)).await;
            }
        }
        3 => {
            let _ = timeout(chance.pause(), reader.read(&mut log.follow())).await;
            log.cancel(Cancel::Stopped);
        }
        // Gone for good: nobody follows it to its end.
        4 => {
            let _ = timeout(chance.between(0, 500), reader.read(&mut log.follow())).await;
            let mut changes = log.changes();
            while !log.ended() {
                changes.changed().await.unwrap();
            }
        }
        _ => {}
    }
    if reader.done.is_none() {
        let mut follower = if reader.seq == 0 {
            log.follow()
        } else {
            log.resume(reader.seq)
        };
        reader.read(&mut follower).await;
        assert!(
            follower.next().await.is_none(),
            "nothing comes after the end"
        );
    }
    // Who comes when all is over sees the same.
    if chance.one_in(4) {
        assert_eq!(Reader::follow(&log).await.done, reader.done);
    }
    Visit {
        conversation,
        log,
        reader,
        abandoned: matches!(manner, 3 | 4),
    }
}

//! One visitor of one turn: follows it, leaves and returns, stops it, or is never seen again.

use tokio::time::timeout;

use super::super::*;
use super::chance::Chance;
use crate::chat::ConversationId;
use crate::turn::log::Cancel;
use crate::turn::rooms::Room;

pub struct Visit {
    pub conversation: ConversationId,
    pub log: Arc<TurnLog>,
    pub reader: Reader,
    /// `true` if the visitor stopped it or left for good: only then it may end early.
    pub abandoned: bool,
}

/// Reads the turn to its end, in one of several ways.
pub async fn visit(conversation: Arc<Room>, log: Arc<TurnLog>, mut chance: Chance) -> Visit {
    let conversation_id = conversation.id();
    let mut reader = Reader::default();
    let behaviour = chance.below(10);
    match behaviour {
        // Disconnects and resumes at the frame that the page has.
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
        // Leaves for good: nobody follows the turn to its end.
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
    // A visitor who comes after the end sees the same.
    if chance.one_in(4) {
        assert_eq!(Reader::follow(&log).await.done, reader.done);
    }
    Visit {
        conversation: conversation_id,
        log,
        reader,
        abandoned: matches!(behaviour, 3 | 4),
    }
}

//! One visitor of one turn: follows it, leaves and returns, stops it, or is never seen again.

use tokio::time::timeout;

use super::super::*;
use super::chance::SeededRandom;
use crate::domain::ConversationId;
use crate::turn::conversations::LiveConversation;
use crate::turn::log::Cancel;

pub struct Visit {
    pub conversation: ConversationId,
    pub log: Arc<TurnLog>,
    pub reader: ProtocolClient,
    /// `true` if the visitor stopped it or left for good: only then it may end early.
    pub abandoned: bool,
}

/// Reads the turn to its end, in one of several ways.
pub async fn visit(
    conversation: Arc<LiveConversation>,
    log: Arc<TurnLog>,
    mut chance: SeededRandom,
) -> Visit {
    let conversation_id = conversation.id();
    let mut reader = ProtocolClient::default();
    let behaviour = chance.below(10);
    match behaviour {
        // Disconnects and resumes at the frame that the page has.
        0..=2 => {
            for _ in 0..1 + chance.below(3) {
                let mut follower = if reader.last_seq == 0 {
                    log.follow()
                } else {
                    log.resume(reader.last_seq)
                };
                let _ = timeout(chance.pause(), reader.read_to_end(&mut follower)).await;
                drop(follower);
                advance_clock(chance.between(0, 3_000)).await;
            }
        }
        3 => {
            let _ = timeout(chance.pause(), reader.read_to_end(&mut log.follow())).await;
            log.cancel(Cancel::Stopped);
        }
        // Leaves for good: nobody follows the turn to its end.
        4 => {
            let _ = timeout(
                chance.between(0, 500),
                reader.read_to_end(&mut log.follow()),
            )
            .await;
            let mut changes = log.changes();
            while !log.is_finished() {
                changes.changed().await.unwrap();
            }
        }
        _ => {}
    }
    if reader.done.is_none() {
        let mut follower = if reader.last_seq == 0 {
            log.follow()
        } else {
            log.resume(reader.last_seq)
        };
        reader.read_to_end(&mut follower).await;
        assert!(
            follower.next().await.is_none(),
            "nothing comes after the end"
        );
    }
    // A visitor who comes after the end sees the same.
    if chance.one_in(4) {
        assert_eq!(ProtocolClient::follow(&log).await.done, reader.done);
    }
    Visit {
        conversation: conversation_id,
        log,
        reader,
        abandoned: matches!(behaviour, 3 | 4),
    }
}

//! The scan for expired conversations. It walks the keys and decodes no turn.

use sled::Db;

use super::conversations::{conversation, last_turn};
use super::tree::Result;
use crate::domain::{ConversationId, Timestamp};
use crate::store::ExpiredPage;

/// Implements [`crate::store::Store::expired_conversations`] in the order of the ids as text.
pub(super) fn expired_conversations(
    db: &Db,
    before: Timestamp,
    cursor: Option<ConversationId>,
    limit: usize,
) -> Result<ExpiredPage> {
    let mut found = Vec::new();
    let mut at = cursor;
    for _ in 0..limit {
        let Some(id) = next_conversation(db, at)? else {
            return Ok(ExpiredPage {
                conversations: found,
                next_cursor: None,
            });
        };
        at = Some(id);
        let last = match last_turn(db, id)? {
            Some(turn) => Some(turn.timestamp()),
            // Without a turn, the record tells when it started. If it is unreadable, keep it.
            None => conversation(db, id)
                .ok()
                .flatten()
                .map(|record| record.started_at),
        };
        found.extend(last.filter(|last| *last < before).map(|_| id));
    }
    Ok(ExpiredPage {
        conversations: found,
        next_cursor: at,
    })
}

/// Returns the next conversation that has a turn or a record.
fn next_conversation(db: &Db, after: Option<ConversationId>) -> Result<Option<ConversationId>> {
    let mut nearest: Option<(String, ConversationId)> = None;
    for kind in ["t/", "c/"] {
        // '0' follows '/', so this is the first key behind all of the conversation's keys.
        let from = after.map_or_else(|| kind.to_owned(), |after| format!("{kind}{after}0"));
        let end = kind.replace('/', "0");
        for key in db.range(from..end).keys() {
            let key = key?;
            let name = std::str::from_utf8(&key)
                .ok()
                .and_then(|key| key.strip_prefix(kind)?.split('/').next());
            // Skip keys that name no conversation.
            let Some((name, id)) = name.and_then(|name| Some((name, name.parse().ok()?))) else {
                continue;
            };
            if nearest
                .as_ref()
                .is_none_or(|(before, _)| name < before.as_str())
            {
                nearest = Some((name.to_owned(), id));
            }
            break;
        }
    }
    Ok(nearest.map(|(_, id)| id))
}

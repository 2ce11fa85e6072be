//! Which conversations were quiet for long: one by one through the keys, without reading a turn.

use sled::Db;

use super::layout::{conversation, last_turn, meaning};
use crate::chat::{At, ConversationId};
use crate::store::{Idle, StoreError};

/// See [`crate::store::Store::idle`]. The order is that of the ids as text.
pub(super) fn idle(
    db: &Db,
    before: At,
    after: Option<ConversationId>,
    look: usize,
) -> Result<Idle, StoreError> {
    let (mut found, mut at) = (Vec::new(), after);
    for _ in 0..look {
        let Some(id) = next(db, at)? else {
            return Ok(Idle { found, next: None });
        };
        at = Some(id);
        let last = match last_turn(db, id)? {
            Some(turn) => Some(turn.at()),
            // Where the record does not read nothing is known.
            None => conversation(db, id)
                .ok()
                .flatten()
                .map(|record| record.began),
        };
        found.extend(last.filter(|last| *last < before).map(|_| id));
    }
    Ok(Idle { found, next: at })
}

/// The conversation that comes next: one with a turn, or with a record alone.
fn next(db: &Db, after: Option<ConversationId>) -> Result<Option<ConversationId>, StoreError> {
    let mut nearest: Option<(String, ConversationId)> = None;
    for kind in ["t/", "c/"] {
        // '0' follows '/': the first key behind all of a conversation's.
        let from = after.map_or_else(|| kind.to_owned(), |after| format!("{kind}{after}0"));
        let end = kind.replace('/', "0");
        for key in db.range(from..end).keys() {
            let key = key.map_err(|error| meaning(&error))?;
            let name = std::str::from_utf8(&key)
                .ok()
                .and_then(|key| key.strip_prefix(kind)?.split('/').next());
            // What is no conversation's is passed over.
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

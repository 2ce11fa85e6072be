//! Saved answers in the tree: under their key, with an index of those that come from a conversation.
//!
//! The index is written before and removed after what it leads to, so a crash leaves no answer that its conversation's end would miss.

use sled::Db;

use super::layout::{get, meaning, put, remove};
use crate::chat::{At, ConversationId};
use crate::store::record::{decode, encode, read};
use crate::store::{CacheKey, CachedAnswer, StoreError};

fn answer_key(key: CacheKey) -> String {
    format!("a/{key}")
}

fn origin_key(conversation: ConversationId, key: CacheKey) -> String {
    format!("o/{conversation}/{key}")
}

/// The answer under this key.
pub(super) fn get_answer(db: &Db, key: CacheKey) -> Result<Option<CachedAnswer>, StoreError> {
    let bytes = get(db, &answer_key(key))?;
    Ok(bytes.and_then(|bytes| decode("saved answer", &bytes)))
}

/// All keys, those saved longest ago first.
pub(super) fn keys(db: &Db) -> Result<Vec<CacheKey>, StoreError> {
    let mut found = Vec::new();
    for entry in db.scan_prefix("a/") {
        let (key, bytes) = entry.map_err(|error| meaning(&error))?;
        let key = std::str::from_utf8(&key)
            .ok()
            .and_then(|key| CacheKey::parse(key.strip_prefix("a/")?));
        let saved = read::<CachedAnswer>(&bytes).map_or(At(0), |answer| answer.saved);
        found.extend(key.map(|key| (saved, key)));
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, key)| key).collect())
}

/// How many of them do not read: of another version of the program, or damaged.
pub(in crate::store) fn unreadable(db: &Db) -> Result<usize, StoreError> {
    let mut count = 0;
    for bytes in db.scan_prefix("a/").values() {
        let bytes = bytes.map_err(|error| meaning(&error))?;
        count += usize::from(read::<CachedAnswer>(&bytes).is_none());
    }
    Ok(count)
}

/// Writes an answer in the place of what was there.
pub(super) fn put_answer(db: &Db, key: CacheKey, answer: &CachedAnswer) -> Result<(), StoreError> {
    let before = get_answer(db, key)?.and_then(|before| before.conversation);
    if let Some(conversation) = answer.conversation {
        put(db, &origin_key(conversation, key), Vec::new())?;
    }
    put(db, &answer_key(key), encode(answer)?)?;
    match before.filter(|before| Some(*before) != answer.conversation) {
        Some(before) => remove(db, origin_key(before, key)),
        None => Ok(()),
    }
}

/// Removes an answer.
pub(super) fn remove_answer(db: &Db, key: CacheKey) -> Result<(), StoreError> {
    let before = get_answer(db, key)?.and_then(|before| before.conversation);
    remove(db, answer_key(key))?;
    before.map_or(Ok(()), |before| remove(db, origin_key(before, key)))
}

/// Removes all answers that come from a conversation.
pub(super) fn forget(db: &Db, conversation: ConversationId) -> Result<(), StoreError> {
    let prefix = format!("o/{conversation}/");
    for origin in db.scan_prefix(&prefix).keys() {
        let origin = origin.map_err(|error| meaning(&error))?;
        let key = std::str::from_utf8(&origin)
            .ok()
            .and_then(|key| CacheKey::parse(key.strip_prefix(&prefix)?));
        if let Some(key) = key
            && get_answer(db, key)?.is_none_or(|answer| answer.conversation == Some(conversation))
        {
            remove(db, answer_key(key))?;
        }
        remove(db, origin)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::contract::{cached, conversation, key};

    fn tree() -> Db {
        sled::Config::new().temporary(true).open().unwrap()
    }

    #[test]
    fn an_answer_of_another_version_is_as_if_it_were_not_there_and_goes_first() {
        let db = tree();
        put_answer(&db, key(1), &cached(1, 5, "old")).unwrap();
        put_answer(&db, key(2), &cached(1, 9, "new")).unwrap();
        let mut later = encode(&cached(1, 9, "new")).unwrap();
        *later.first_mut().unwrap() += 1;
        put(&db, &answer_key(key(2)), later).unwrap();
        assert_eq!(get_answer(&db, key(2)).unwrap(), None);
        assert_eq!(get_answer(&db, key(1)).unwrap(), Some(cached(1, 5, "old")));
        assert_eq!(keys(&db).unwrap(), [key(2), key(1)]);
        assert_eq!(unreadable(&db), Ok(1));
        put_answer(&db, key(2), &cached(1, 10, "mine")).unwrap();
        assert_eq!(unreadable(&db), Ok(0));
        assert_eq!(
            get_answer(&db, key(2)).unwrap(),
            Some(cached(1, 10, "mine"))
        );
    }

    #[test]
    fn the_index_of_origins_is_as_long_as_it_must_be() {
        let db = tree();
        let origins = || db.scan_prefix("o/").count();
        put_answer(&db, key(1), &cached(1, 5, "mine")).unwrap();
        put_answer(&db, key(1), &cached(2, 6, "yours")).unwrap();
        assert_eq!(origins(), 1);
        forget(&db, conversation(1)).unwrap();
        assert!(get_answer(&db, key(1)).unwrap().is_some());
        put_answer(
            &db,
            key(1),
            &CachedAnswer {
                conversation: None,
                ..cached(1, 7, "nobody's")
            },
        )
        .unwrap();
        assert_eq!(origins(), 0);
        put_answer(&db, key(3), &cached(3, 5, "mine")).unwrap();
        remove_answer(&db, key(3)).unwrap();
        assert_eq!((origins(), get_answer(&db, key(3)).unwrap()), (0, None));
    }
}

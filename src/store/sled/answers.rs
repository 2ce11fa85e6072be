//! Cached answers in the tree: by key, with an index of those that came from each conversation.
//!
//! An index entry is written before its answer and removed after it. After a crash, deleting a
//! conversation therefore still finds all of its answers.

use sled::Db;

use super::tree::{Result, get, mark, put, remove};
use crate::domain::{ConversationId, Timestamp};
use crate::store::codec::try_decode;
use crate::store::{CacheKey, CachedAnswer};

fn answer_key(key: CacheKey) -> String {
    format!("a/{key}")
}

fn origin_key(conversation: ConversationId, key: CacheKey) -> String {
    format!("o/{conversation}/{key}")
}

fn parse_key(key: &[u8], prefix: &str) -> Option<CacheKey> {
    CacheKey::parse(str::from_utf8(key).ok()?.strip_prefix(prefix)?)
}

pub(super) fn get_answer(db: &Db, key: CacheKey) -> Result<Option<CachedAnswer>> {
    get(db, "cached answer", &answer_key(key))
}

/// Returns all keys, oldest answer first.
pub(super) fn answer_keys(db: &Db) -> Result<Vec<CacheKey>> {
    let mut found = Vec::new();
    for entry in db.scan_prefix("a/") {
        let (key, bytes) = entry?;
        let key = parse_key(&key, "a/");
        let saved =
            try_decode::<CachedAnswer>(&bytes).map_or(Timestamp(0), |answer| answer.saved_at);
        found.extend(key.map(|key| (saved, key)));
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, key)| key).collect())
}

/// Counts the answers that cannot be decoded: damaged, or of an unsupported version.
pub(in crate::store) fn count_unreadable(db: &Db) -> Result<usize> {
    let mut count = 0;
    for bytes in db.scan_prefix("a/").values() {
        count += usize::from(try_decode::<CachedAnswer>(&bytes?).is_none());
    }
    Ok(count)
}

pub(super) fn put_answer(db: &Db, key: CacheKey, answer: &CachedAnswer) -> Result {
    let old_origin = get_answer(db, key)?.and_then(|old| old.conversation);
    if let Some(conversation) = answer.conversation {
        mark(db, &origin_key(conversation, key))?;
    }
    put(db, &answer_key(key), answer)?;
    match old_origin.filter(|old| Some(*old) != answer.conversation) {
        Some(old) => remove(db, origin_key(old, key)),
        None => Ok(()),
    }
}

pub(super) fn remove_answer(db: &Db, key: CacheKey) -> Result {
    let old_origin = get_answer(db, key)?.and_then(|old| old.conversation);
    remove(db, answer_key(key))?;
    old_origin.map_or(Ok(()), |old| remove(db, origin_key(old, key)))
}

pub(super) fn remove_from_conversation(db: &Db, conversation: ConversationId) -> Result {
    let prefix = format!("o/{conversation}/");
    for origin in db.scan_prefix(&prefix).keys() {
        let origin = origin?;
        if let Some(key) = parse_key(&origin, &prefix)
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
    use crate::store::contract::{cache_key, cached_answer, conversation};

    fn tree() -> Db {
        sled::Config::new().temporary(true).open().unwrap()
    }

    #[test]
    fn answer_of_another_version_reads_as_missing_and_sorts_first() {
        let db = tree();
        put_answer(&db, cache_key(1), &cached_answer(1, 5, "old")).unwrap();
        put_answer(&db, cache_key(2), &cached_answer(1, 9, "new")).unwrap();
        let mut later = crate::store::codec::encode(&cached_answer(1, 9, "new")).unwrap();
        *later.first_mut().unwrap() += 1;
        db.insert(answer_key(cache_key(2)), later).unwrap();
        assert_eq!(get_answer(&db, cache_key(2)).unwrap(), None);
        assert_eq!(
            get_answer(&db, cache_key(1)).unwrap(),
            Some(cached_answer(1, 5, "old"))
        );
        assert_eq!(answer_keys(&db).unwrap(), [cache_key(2), cache_key(1)]);
        assert_eq!(count_unreadable(&db), Ok(1));
        put_answer(&db, cache_key(2), &cached_answer(1, 10, "replaced")).unwrap();
        assert_eq!(count_unreadable(&db), Ok(0));
        assert_eq!(
            get_answer(&db, cache_key(2)).unwrap(),
            Some(cached_answer(1, 10, "replaced"))
        );
    }

    #[test]
    fn the_index_of_origins_is_as_long_as_it_must_be() {
        let db = tree();
        let origins = || db.scan_prefix("o/").count();
        put_answer(&db, cache_key(1), &cached_answer(1, 5, "first")).unwrap();
        put_answer(&db, cache_key(1), &cached_answer(2, 6, "second")).unwrap();
        assert_eq!(origins(), 1);
        remove_from_conversation(&db, conversation(1)).unwrap();
        assert!(get_answer(&db, cache_key(1)).unwrap().is_some());
        put_answer(
            &db,
            cache_key(1),
            &CachedAnswer {
                conversation: None,
                ..cached_answer(1, 7, "warmed")
            },
        )
        .unwrap();
        assert_eq!(origins(), 0);
        put_answer(&db, cache_key(3), &cached_answer(3, 5, "first")).unwrap();
        remove_answer(&db, cache_key(3)).unwrap();
        assert_eq!(
            (origins(), get_answer(&db, cache_key(3)).unwrap()),
            (0, None)
        );
    }
}

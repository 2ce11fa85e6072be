//! Small documents in the tree.

use sled::Db;

use super::tree::{Result, remove};
use crate::store::DocumentKind;

fn document_key(kind: DocumentKind, key: &str) -> String {
    match kind {
        DocumentKind::Lifetime => kind.letter().into(),
        _ => format!("{}/{key}", kind.letter()),
    }
}

pub(super) fn get(db: &Db, kind: DocumentKind, key: &str) -> Result<Option<Vec<u8>>> {
    Ok(db.get(document_key(kind, key))?.map(|bytes| bytes.to_vec()))
}

pub(super) fn list(db: &Db, kind: DocumentKind) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    let prefix = document_key(kind, "");
    for entry in db.scan_prefix(&prefix) {
        let (key, bytes) = entry?;
        let key = key.get(prefix.len()..).unwrap_or_default();
        found.push((String::from_utf8_lossy(key).into_owned(), bytes.to_vec()));
    }
    Ok(found)
}

pub(super) fn put(db: &Db, kind: DocumentKind, key: &str, document: Option<&[u8]>) -> Result {
    let key = document_key(kind, key);
    let Some(bytes) = document else {
        return remove(db, key);
    };
    db.insert(key, bytes)?;
    if kind.max_count() < usize::MAX {
        let prefix = document_key(kind, "");
        let excess = db
            .scan_prefix(&prefix)
            .count()
            .saturating_sub(kind.max_count());
        for key in db.scan_prefix(&prefix).keys().take(excess) {
            remove(db, key?)?;
        }
    }
    Ok(())
}

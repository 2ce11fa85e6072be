//! The changes of the tree.

use sled::Db;

use super::journal::{JournalEntry, RecordKey};
use super::tree::Result;
use super::{answers, conversations, documents, journal};
use crate::domain::{ConversationId, TurnId, TurnRecord, TurnUpdate};
use crate::store::codec::turn_memory_bytes;
use crate::store::{CacheKey, CachedAnswer, ConversationRecord, DocumentKind};

#[derive(Debug)]
pub(super) enum WriteOp {
    /// Writes a conversation's record unless it has one.
    CreateConversation(ConversationId, ConversationRecord),
    WriteTurn(ConversationId, TurnRecord),
    UpdateTurn(ConversationId, TurnId, TurnUpdate),
    SetFollowupPending(ConversationId, TurnId, bool),
    Checkpoint(ConversationId, TurnRecord),
    DeleteConversation(ConversationId),
    /// Writes a document, or removes it if `None`.
    PutDocument(DocumentKind, String, Option<Vec<u8>>),
    PutAnswer(CacheKey, CachedAnswer),
    RemoveAnswers(Vec<CacheKey>),
    /// Deletes the local copy of a conversation that another instance deleted. Not replicated.
    DropLocal(ConversationId),
    ClearEntries(Vec<JournalEntry>),
    #[cfg(test)]
    Panic,
}

impl WriteOp {
    /// `true` if nobody waits for it to be on disk.
    ///
    /// A lost checkpoint is covered by the turn's final write, a journal entry too many costs one
    /// more replication, and a lost cached answer costs one provider call.
    pub(super) fn is_best_effort(&self) -> bool {
        matches!(
            self,
            WriteOp::Checkpoint(..) | WriteOp::ClearEntries(_) | WriteOp::PutAnswer(..)
        )
    }

    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            WriteOp::WriteTurn(_, turn) | WriteOp::Checkpoint(_, turn) => turn_memory_bytes(turn),
            WriteOp::PutAnswer(_, answer) => answer.memory_bytes(),
            WriteOp::PutDocument(_, _, Some(bytes)) => 256 + bytes.len(),
            WriteOp::RemoveAnswers(keys) => 256 + 32 * keys.len(),
            WriteOp::ClearEntries(marks) => 256 + 128 * marks.len(),
            WriteOp::UpdateTurn(_, _, TurnUpdate::Followup(followup)) => 256 + followup.text.len(),
            _ => 256,
        }
    }

    /// Lists the records that the operation changes and other instances need.
    pub(super) fn changed_records(&self) -> Vec<RecordKey> {
        match self {
            WriteOp::CreateConversation(id, _) => vec![RecordKey::Conversation(*id)],
            WriteOp::WriteTurn(id, turn) => vec![RecordKey::Turn(*id, turn.turn)],
            WriteOp::UpdateTurn(id, turn, _) | WriteOp::SetFollowupPending(id, turn, _) => {
                vec![RecordKey::Turn(*id, *turn)]
            }
            WriteOp::DeleteConversation(id) => vec![RecordKey::DeletedConversation(*id)],
            WriteOp::PutDocument(kind, key, _) if kind.is_shared() => {
                vec![RecordKey::Document(*kind, key.clone())]
            }
            WriteOp::PutAnswer(key, _) => vec![RecordKey::Answer(*key)],
            WriteOp::RemoveAnswers(keys) => keys.iter().copied().map(RecordKey::Answer).collect(),
            _ => Vec::new(),
        }
    }

    /// Applies the change. It is visible at once and durable after the next flush.
    ///
    /// A crash leaves a prefix of the single writes, so they are ordered such that every prefix is
    /// consistent: a turn is written after the keys that lead to it, and leaves the index of
    /// running turns after it has ended. sled's batches would do too, but at the price of two
    /// flushes each.
    pub(super) fn apply(&self, db: &Db) -> Result {
        match self {
            WriteOp::CreateConversation(id, record) => {
                conversations::create_conversation(db, *id, record)
            }
            WriteOp::WriteTurn(id, turn) => conversations::write_turn(db, *id, turn),
            WriteOp::UpdateTurn(id, turn, change) => {
                conversations::update_turn(db, *id, *turn, change)
            }
            WriteOp::SetFollowupPending(id, turn, is_pending) => {
                conversations::set_followup_pending(db, *id, *turn, *is_pending)
            }
            WriteOp::Checkpoint(id, turn) => conversations::write_checkpoint(db, *id, turn),
            WriteOp::DeleteConversation(id) | WriteOp::DropLocal(id) => {
                conversations::delete_conversation(db, *id)
            }
            WriteOp::ClearEntries(entries) => journal::clear_entries(db, entries),
            WriteOp::PutDocument(kind, key, document) => {
                documents::put(db, *kind, key, document.as_deref())
            }
            WriteOp::PutAnswer(key, answer) => answers::put_answer(db, *key, answer),
            WriteOp::RemoveAnswers(keys) => keys
                .iter()
                .try_for_each(|key| answers::remove_answer(db, *key)),
            #[cfg(test)]
            #[allow(clippy::panic)]
            WriteOp::Panic => panic!("test panic"),
        }
    }
}

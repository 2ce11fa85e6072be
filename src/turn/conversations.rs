//! The registry of live conversations. Every tab of a conversation shares one entry, so that all of
//! them see the same turns.

use parking_lot::{Mutex, MutexGuard};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::time::timeout;

use super::log::{LogWriter, TurnLog};
use crate::domain::{
    ClientMsgId, ConversationId, Followup, Timestamp, TurnId, TurnRecord, TurnUpdate,
};
use crate::store::Store;

/// The conversations that have a session or a log in memory. An entry disappears with its last
/// user.
#[derive(Default)]
pub struct ConversationRegistry {
    conversations: Mutex<HashMap<ConversationId, Weak<LiveConversation>>>,
}

/// The running and just finished turns of one conversation.
pub struct LiveConversation {
    id: ConversationId,
    registry: Weak<ConversationRegistry>,
    state: Mutex<ConversationState>,
    /// The number of turns started here. Sessions wait for it to change.
    turns_opened: watch::Sender<u64>,
    /// Held while a turn is being started and other instances are asked first.
    opening_lock: tokio::sync::Mutex<()>,
    followups: broadcast::Sender<(TurnId, Followup)>,
    deletions: watch::Sender<u64>,
}

#[derive(Default)]
struct ConversationState {
    /// Logs that are not evicted yet, oldest first. At most one of them is running.
    logs: VecDeque<Arc<TurnLog>>,
    turns_opened: u64,
    last_turn_id: Option<TurnId>,
    /// Set by the first message, cleared by a deletion.
    has_started: bool,
    owner: Option<Option<Arc<str>>>,
    is_being_deleted: bool,
    /// The store has no turn of this conversation that is not in `logs`.
    logs_are_complete: bool,
}

impl ConversationState {
    fn running_turn(&self) -> Option<Arc<TurnLog>> {
        self.logs.iter().find(|log| !log.is_finished()).cloned()
    }
}

/// The number of follow-ups a session may lag behind before it has to reload the history.
const MAX_UNREAD_FOLLOWUPS: usize = 8;

#[derive(Clone, Debug)]
pub struct NewMessage {
    pub client_msg_id: ClientMsgId,
    pub text: String,
    pub retry_of: Option<TurnId>,
}

pub enum TurnConflict {
    /// Another turn of the conversation is running.
    Busy,
    Duplicate(Arc<TurnLog>),
    /// The message id already has a turn with a different text.
    ConflictingText,
}

impl ConversationRegistry {
    /// Creates the entry of a new conversation whose id nobody outside this process knows yet.
    ///
    /// Until the first of its logs is evicted, its history is read from memory instead of the
    /// store.
    pub fn create(self: &Arc<Self>, id: ConversationId) -> Arc<LiveConversation> {
        let conversation = self.get_or_create(id);
        conversation.state.lock().logs_are_complete = true;
        conversation
    }

    pub fn get_or_create(self: &Arc<Self>, id: ConversationId) -> Arc<LiveConversation> {
        let mut conversations = self.conversations.lock();
        if let Some(conversation) = conversations.get(&id).and_then(Weak::upgrade) {
            return conversation;
        }
        let conversation = Arc::new(LiveConversation {
            id,
            registry: Arc::downgrade(self),
            state: Mutex::default(),
            turns_opened: watch::Sender::new(0),
            opening_lock: tokio::sync::Mutex::default(),
            followups: broadcast::Sender::new(MAX_UNREAD_FOLLOWUPS),
            deletions: watch::Sender::new(0),
        });
        conversations.insert(id, Arc::downgrade(&conversation));
        conversation
    }

    pub fn get(&self, id: ConversationId) -> Option<Arc<LiveConversation>> {
        self.conversations.lock().get(&id).and_then(Weak::upgrade)
    }

    pub fn all(&self) -> Vec<Arc<LiveConversation>> {
        self.conversations
            .lock()
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }

    pub fn count(&self) -> usize {
        self.conversations.lock().len()
    }
}

impl Drop for LiveConversation {
    fn drop(&mut self) {
        if let Some(owner) = self.registry.upgrade() {
            let mut conversations = owner.conversations.lock();
            // `get_or_create` may have inserted a new entry after the last reference was dropped.
            if conversations
                .get(&self.id)
                .is_some_and(|entry| entry.strong_count() == 0)
            {
                conversations.remove(&self.id);
            }
        }
    }
}

impl LiveConversation {
    pub fn id(&self) -> ConversationId {
        self.id
    }

    /// The id that a turn started at `now` would get. `random` is a random number.
    pub fn next_turn_id(&self, now: Timestamp, random: u64) -> TurnId {
        TurnId::next_after(self.state.lock().last_turn_id, now.0, random)
    }

    /// Waits until no other task is starting a turn here.
    pub async fn lock_opening(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.opening_lock.lock().await
    }

    /// Adds the log of a turn that another instance answers. Returns `false` if it is known
    /// already.
    pub fn attach_replica(&self, log: &Arc<TurnLog>) -> bool {
        let state = self.state.lock();
        if state.logs.iter().any(|known| known.turn() == log.turn()) {
            return false;
        }
        self.register(state, log);
        true
    }

    /// Starts the turn of `message` unless another one is running.
    ///
    /// Its id is `claimed` if that is greater than all earlier ids, else a new one made of `now`
    /// and `random`.
    ///
    /// # Errors
    /// See [`TurnConflict`].
    pub fn open_turn(
        &self,
        message: NewMessage,
        claimed: Option<TurnId>,
        now: Timestamp,
        random: u64,
    ) -> Result<LogWriter, TurnConflict> {
        let state = self.state.lock();
        if let Some(log) = state
            .logs
            .iter()
            .find(|log| *log.client_msg_id() == message.client_msg_id)
        {
            return Err(if log.has_question(&message.text) {
                TurnConflict::Duplicate(Arc::clone(log))
            } else {
                TurnConflict::ConflictingText
            });
        }
        if state.is_being_deleted || state.running_turn().is_some() {
            return Err(TurnConflict::Busy);
        }
        let next_id = || TurnId::next_after(state.last_turn_id, now.0, random);
        let turn = claimed
            .filter(|claimed| Some(*claimed) > state.last_turn_id)
            .unwrap_or_else(next_id);
        let NewMessage {
            client_msg_id,
            text,
            retry_of,
        } = message;
        let writer = LogWriter::new(TurnRecord::new(turn, client_msg_id, now, text, retry_of));
        self.register(state, writer.log());
        Ok(writer)
    }

    fn register(&self, mut state: MutexGuard<'_, ConversationState>, log: &Arc<TurnLog>) {
        state.last_turn_id = state.last_turn_id.max(Some(log.turn()));
        state.logs.push_back(Arc::clone(log));
        state.turns_opened += 1;
        let opened = state.turns_opened;
        // Unlocked first: the sessions that wake up lock the state.
        drop(state);
        self.turns_opened.send_replace(opened);
    }

    /// Records the id of a turn in the store. Later turns get greater ids.
    pub fn observe_turn_id(&self, turn: TurnId) {
        let mut state = self.state.lock();
        state.last_turn_id = state.last_turn_id.max(Some(turn));
    }

    /// All logs, or `None` if the store has turns of the conversation that are not among them.
    pub fn complete_logs(&self) -> Option<Vec<Arc<TurnLog>>> {
        let state = self.state.lock();
        let logs = state.logs_are_complete.then_some(&state.logs)?;
        Some(logs.iter().cloned().collect())
    }

    pub fn running_turn(&self) -> Option<Arc<TurnLog>> {
        self.state.lock().running_turn()
    }

    pub fn logs(&self) -> Vec<Arc<TurnLog>> {
        self.state.lock().logs.iter().cloned().collect()
    }

    /// `None` while the owner is unknown; `Some(None)` if the visitor is anonymous.
    pub fn owner(&self) -> Option<Option<Arc<str>>> {
        self.state.lock().owner.clone()
    }

    /// Sets the owner. Does nothing if it is known already: a conversation has one owner.
    pub fn set_owner(&self, subject: Option<&str>) {
        self.state
            .lock()
            .owner
            .get_or_insert_with(|| subject.map(Into::into));
    }

    /// Prevents new turns until the guard is dropped.
    pub fn begin_deletion(self: &Arc<Self>) -> DeletionGuard {
        self.state.lock().is_being_deleted = true;
        DeletionGuard(Arc::clone(self))
    }

    /// Resets the conversation after a deletion and notifies its sessions. A running turn keeps its
    /// log.
    pub fn reset(&self) {
        let mut state = self.state.lock();
        state.logs.retain(|log| !log.is_finished());
        // `turns_opened` is kept, so that subscribers do not look for the deleted turns.
        state.has_started = false;
        state.owner = None;
        drop(state);
        self.deletions.send_modify(|count| *count += 1);
    }

    pub fn subscribe_deletions(&self) -> watch::Receiver<u64> {
        self.deletions.subscribe()
    }

    /// Returns `true` for the first message of a conversation, and again after a deletion.
    pub fn mark_started(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().has_started, true)
    }

    pub fn log(&self, turn: TurnId) -> Option<Arc<TurnLog>> {
        self.state
            .lock()
            .logs
            .iter()
            .find(|log| log.turn() == turn)
            .cloned()
    }

    /// Removes the log of a finished turn. From now on the turn is read from the store.
    pub fn evict_log(&self, turn: TurnId) {
        let mut state = self.state.lock();
        state
            .logs
            .retain(|log| log.turn() != turn || !log.is_finished());
        state.logs_are_complete = false;
    }

    /// Subscribes to new turns. Also returns the turn that is running now.
    pub fn subscribe(&self) -> (TurnSubscription, Option<Arc<TurnLog>>) {
        // Subscribed before the lock is taken: a turn that starts in between is not missed.
        let opened = self.turns_opened.subscribe();
        let state = self.state.lock();
        let subscription = TurnSubscription {
            next_index: state.turns_opened,
            turns_opened: opened,
        };
        (subscription, state.running_turn())
    }

    pub fn subscribe_followups(&self) -> broadcast::Receiver<(TurnId, Followup)> {
        self.followups.subscribe()
    }

    /// Publishes a follow-up that is already in the store.
    pub fn publish_followup(&self, turn: TurnId, followup: Followup) {
        if let Some(log) = self.log(turn) {
            log.apply_update(TurnUpdate::Followup(followup.clone()));
        }
        // An error means that no session is open. The next one reads it from the history.
        let _ = self.followups.send((turn, followup));
    }

    /// Loads the turns before `before` (`None`: all), at most `limit` of them from the store.
    ///
    /// The store gets `store_timeout` to answer, and is not asked if all turns are in memory.
    pub async fn history(
        &self,
        store: &dyn Store,
        before: Option<TurnId>,
        limit: usize,
        store_timeout: Duration,
    ) -> History {
        let complete_logs = self.complete_logs();
        let stored = match &complete_logs {
            Some(_) => Some(Vec::new()),
            None => timeout(store_timeout, store.turns(self.id, before, limit))
                .await
                .ok()
                .and_then(Result::ok),
        };
        // Read the logs after the store: a turn is stored before its log is evicted, so none is
        // missed.
        let mut logs = complete_logs.unwrap_or_else(|| self.logs());
        logs.retain(|log| before.is_none_or(|before| log.turn() < before));
        History { stored, logs }
    }
}

pub struct DeletionGuard(Arc<LiveConversation>);

impl Drop for DeletionGuard {
    fn drop(&mut self) {
        self.0.state.lock().is_being_deleted = false;
    }
}

pub enum TurnEvent {
    Started(Arc<TurnLog>),
    /// Some turns were started and their logs evicted already. The history has them.
    Lagged,
}

/// A session's position in the sequence of turns of one conversation.
pub struct TurnSubscription {
    next_index: u64,
    turns_opened: watch::Receiver<u64>,
}

impl TurnSubscription {
    /// Waits for the next turn that starts in `conversation`. Cancel-safe.
    pub async fn next(&mut self, conversation: &LiveConversation) -> TurnEvent {
        loop {
            // Marked as seen before the logs are read, so that a turn that starts later wakes us.
            self.turns_opened.borrow_and_update();
            {
                let state = conversation.state.lock();
                let first = state.turns_opened - state.logs.len() as u64;
                if self.next_index < first {
                    self.next_index = first;
                    return TurnEvent::Lagged;
                }
                let index = usize::try_from(self.next_index - first).unwrap_or(usize::MAX);
                if let Some(log) = state.logs.get(index) {
                    self.next_index += 1;
                    return TurnEvent::Started(Arc::clone(log));
                }
            }
            if self.turns_opened.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// The turns of a conversation. A turn may be in both lists; its log is newer than its record.
pub struct History {
    /// The last turns in the store, oldest first. `None` if the store did not answer in time.
    pub stored: Option<Vec<TurnRecord>>,
    pub logs: Vec<Arc<TurnLog>>,
}

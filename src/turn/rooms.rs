//! The registry of live conversations. Every tab of a conversation shares one entry, so that all of
//! them see the same turns.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{broadcast, watch};

use super::log::{LogWriter, TurnLog};
use crate::chat::{Amendment, At, ClientMsgId, ConversationId, Followup, TurnId, TurnRecord};

/// The conversations that have a session or a log in memory. An entry disappears with its last
/// user.
#[derive(Default)]
pub struct Rooms {
    map: Mutex<HashMap<ConversationId, Weak<Room>>>,
}

/// The running and just finished turns of one conversation.
pub struct Room {
    id: ConversationId,
    rooms: Weak<Rooms>,
    inner: Mutex<Inner>,
    /// The number of turns started here. Sessions wait for it to change.
    opened: watch::Sender<u64>,
    /// Held while a turn is being started and other instances are asked first.
    opening_lock: tokio::sync::Mutex<()>,
    followups: broadcast::Sender<(TurnId, Followup)>,
    deletions: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    /// Logs that are not evicted yet, oldest first. At most one of them is running.
    logs: VecDeque<Arc<TurnLog>>,
    opened: u64,
    last: Option<TurnId>,
    /// Set by the first message, cleared by a deletion.
    begun: bool,
    owner: Option<Option<Arc<str>>>,
    closed: bool,
    /// The store has no turn of this conversation that is not in `logs`.
    all_here: bool,
}

/// The number of follow-ups a session may lag behind before it has to reload the history.
const LATE: usize = 8;

#[derive(Clone, Debug)]
pub struct Question {
    pub client_msg_id: ClientMsgId,
    pub text: String,
    pub retry_of: Option<TurnId>,
}

pub enum NotOpened {
    /// Another turn of the conversation is running.
    Busy,
    Duplicate(Arc<TurnLog>),
    /// The message id already has a turn with a different text.
    OtherText,
}

impl Rooms {
    /// Creates the entry of a new conversation whose id nobody outside this process knows yet.
    ///
    /// Until the first of its logs is evicted, its history is read from memory instead of the
    /// store.
    pub fn begin(self: &Arc<Self>, id: ConversationId) -> Arc<Room> {
        let conversation = self.enter(id);
        conversation.lock().all_here = true;
        conversation
    }

    pub fn enter(self: &Arc<Self>, id: ConversationId) -> Arc<Room> {
        let mut conversations = self.lock();
        if let Some(conversation) = conversations.get(&id).and_then(Weak::upgrade) {
            return conversation;
        }
        let conversation = Arc::new(Room {
            id,
            rooms: Arc::downgrade(self),
            inner: Mutex::default(),
            opened: watch::Sender::new(0),
            opening_lock: tokio::sync::Mutex::default(),
            followups: broadcast::Sender::new(LATE),
            deletions: watch::Sender::new(0),
        });
        conversations.insert(id, Arc::downgrade(&conversation));
        conversation
    }

    pub fn find(&self, id: ConversationId) -> Option<Arc<Room>> {
        self.lock().get(&id).and_then(Weak::upgrade)
    }

    pub fn all(&self) -> Vec<Arc<Room>> {
        self.lock().values().filter_map(Weak::upgrade).collect()
    }

    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ConversationId, Weak<Room>>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(registry) = self.rooms.upgrade() {
            let mut conversations = registry.lock();
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

impl Room {
    pub fn id(&self) -> ConversationId {
        self.id
    }

    /// The id that a turn started at `now` would get. `random` is a random number.
    pub fn next_turn(&self, now: At, random: u64) -> TurnId {
        TurnId::after(self.lock().last, now.0, random)
    }

    /// Waits until no other task is starting a turn here.
    pub async fn opening(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.opening_lock.lock().await
    }

    /// Adds the log of a turn that another instance answers. Returns `false` if it is known
    /// already.
    pub fn adopt(&self, log: &Arc<TurnLog>) -> bool {
        let state = self.lock();
        if state.logs.iter().any(|known| known.turn() == log.turn()) {
            return false;
        }
        self.enlist(state, log);
        true
    }

    /// Starts the turn of `message` unless another one is running.
    ///
    /// Its id is `claimed` if that is greater than all earlier ids, else a new one made of `now`
    /// and `random`.
    ///
    /// # Errors
    /// See [`TurnConflict`].
    pub fn open(
        &self,
        message: Question,
        claimed: Option<TurnId>,
        now: At,
        random: u64,
    ) -> Result<LogWriter, NotOpened> {
        let state = self.lock();
        if let Some(log) = state
            .logs
            .iter()
            .find(|log| *log.client_msg_id() == message.client_msg_id)
        {
            let has_same_text = log.asks(&message.text);
            return Err(if has_same_text {
                NotOpened::Duplicate(Arc::clone(log))
            } else {
                NotOpened::OtherText
            });
        }
        if state.closed || state.logs.iter().any(|log| !log.ended()) {
            return Err(NotOpened::Busy);
        }
        let next_id = || TurnId::after(state.last, now.0, random);
        let turn = claimed
            .filter(|claimed| Some(*claimed) > state.last)
            .unwrap_or_else(next_id);
        let Question {
            client_msg_id,
            text,
            retry_of,
        } = message;
        let writer = LogWriter::open(TurnRecord::asked(turn, client_msg_id, now, text, retry_of));
        self.enlist(state, writer.log());
        Ok(writer)
    }

    fn enlist(&self, mut state: MutexGuard<'_, Inner>, log: &Arc<TurnLog>) {
        state.last = state.last.max(Some(log.turn()));
        state.logs.push_back(Arc::clone(log));
        state.opened += 1;
        let opened = state.opened;
        // Unlocked first: the sessions that wake up lock the state.
        drop(state);
        self.opened.send_replace(opened);
    }

    /// Records the id of a turn in the store. Later turns get greater ids.
    pub fn seen(&self, turn: TurnId) {
        let mut state = self.lock();
        state.last = state.last.max(Some(turn));
    }

    /// All logs, or `None` if the store has turns of the conversation that are not among them.
    pub fn all_here(&self) -> Option<Vec<Arc<TurnLog>>> {
        let state = self.lock();
        state.all_here.then(|| state.logs.iter().cloned().collect())
    }

    pub fn running(&self) -> Option<Arc<TurnLog>> {
        self.lock().logs.iter().find(|log| !log.ended()).cloned()
    }

    pub fn logs(&self) -> Vec<Arc<TurnLog>> {
        self.lock().logs.iter().cloned().collect()
    }

    /// `None` while the owner is unknown; `Some(None)` if the visitor is anonymous.
    pub fn owner(&self) -> Option<Option<Arc<str>>> {
        self.lock().owner.clone()
    }

    /// Sets the owner. Does nothing if it is known already: a conversation has one owner.
    pub fn belongs_to(&self, subject: Option<&str>) {
        self.lock()
            .owner
            .get_or_insert_with(|| subject.map(Into::into));
    }

    /// Prevents new turns until the guard is dropped.
    pub fn close(self: &Arc<Self>) -> Closed {
        self.lock().closed = true;
        Closed(Arc::clone(self))
    }

    /// Resets the conversation after a deletion and notifies its sessions. A running turn keeps its
    /// log.
    pub fn forget(&self) {
        let mut state = self.lock();
        state.logs.retain(|log| !log.ended());
        // `turns_opened` is kept, so that subscribers do not look for the deleted turns.
        state.begun = false;
        state.owner = None;
        drop(state);
        self.deletions.send_modify(|count| *count += 1);
    }

    pub fn forgotten(&self) -> watch::Receiver<u64> {
        self.deletions.subscribe()
    }

    /// Returns `true` for the first message of a conversation, and again after a deletion.
    pub fn first_message(&self) -> bool {
        !std::mem::replace(&mut self.lock().begun, true)
    }

    pub fn log(&self, turn: TurnId) -> Option<Arc<TurnLog>> {
        self.lock()
            .logs
            .iter()
            .find(|log| log.turn() == turn)
            .cloned()
    }

    /// Removes the log of a finished turn. From now on the turn is read from the store.
    pub fn drop_log(&self, turn: TurnId) {
        let mut state = self.lock();
        state.logs.retain(|log| log.turn() != turn || !log.ended());
        state.all_here = false;
    }

    /// Subscribes to new turns. Also returns the turn that is running now.
    pub fn watch(&self) -> (NewTurns, Option<Arc<TurnLog>>) {
        // Subscribed before the lock is taken: a turn that starts in between is not missed.
        let opened = self.opened.subscribe();
        let state = self.lock();
        let running = state.logs.iter().find(|log| !log.ended()).cloned();
        (
            NewTurns {
                next_index: state.opened,
                opened,
            },
            running,
        )
    }

    pub fn late(&self) -> broadcast::Receiver<(TurnId, Followup)> {
        self.followups.subscribe()
    }

    /// Publishes a follow-up that is already in the store.
    pub fn follow_up(&self, turn: TurnId, followup: Followup) {
        if let Some(log) = self.log(turn) {
            log.amend(Amendment::Followup(followup.clone()));
        }
        // An error means that no session is open. The next one reads it from the history.
        let _ = self.followups.send((turn, followup));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct Closed(Arc<Room>);

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.lock().closed = false;
    }
}

pub enum NewTurn {
    Log(Arc<TurnLog>),
    /// Some turns were started and their logs evicted already. The history has them.
    Missed,
}

/// A session's position in the sequence of turns of one conversation.
pub struct NewTurns {
    next_index: u64,
    opened: watch::Receiver<u64>,
}

impl NewTurns {
    /// Waits for the next turn that starts in `conversation`. Cancel-safe.
    pub async fn next(&mut self, conversation: &Room) -> NewTurn {
        loop {
            // Marked as seen before the logs are read, so that a turn that starts later wakes us.
            self.opened.borrow_and_update();
            {
                let state = conversation.lock();
                let first = state.opened - state.logs.len() as u64;
                if self.next_index < first {
                    self.next_index = first;
                    return NewTurn::Missed;
                }
                let index = usize::try_from(self.next_index - first).unwrap_or(usize::MAX);
                if let Some(log) = state.logs.get(index) {
                    self.next_index += 1;
                    return NewTurn::Log(Arc::clone(log));
                }
            }
            if self.opened.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

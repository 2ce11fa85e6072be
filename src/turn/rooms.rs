//! Who is in which conversation: one room a conversation that has a session or a running turn, so that several tabs see the same.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{broadcast, watch};

use super::log::{LogWriter, TurnLog};
use crate::chat::{Amendment, At, ClientMsgId, ConversationId, Followup, TurnId, TurnRecord};

/// All rooms. A room is gone when its last session and its last log are.
#[derive(Default)]
pub struct Rooms {
    map: Mutex<HashMap<ConversationId, Weak<Room>>>,
}

/// One conversation's running and just ended turns.
pub struct Room {
    id: ConversationId,
    rooms: Weak<Rooms>,
    inner: Mutex<Inner>,
    /// How many turns were opened here; sessions wait for it to change.
    opened: watch::Sender<u64>,
    /// Held while a turn is being opened, where other instances are asked first.
    opening: tokio::sync::Mutex<()>,
    /// Late answers, as they come.
    late: broadcast::Sender<(TurnId, Followup)>,
    /// How many times it was forgotten with someone in it.
    forgotten: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    /// Logs not yet dropped, oldest first; at most one of them runs.
    logs: VecDeque<Arc<TurnLog>>,
    opened: u64,
    last: Option<TurnId>,
    begun: bool,
    /// Whose it is, once that is known; none within: an anonymous visitor's.
    owner: Option<Option<Arc<str>>>,
    /// It is being forgotten: no turn opens.
    closed: bool,
    /// Whether the store has nothing of it that is not here.
    all_here: bool,
}

/// Late answers that a session may be behind with, before it reads the history anew.
const LATE: usize = 8;

/// A message that opens a turn.
#[derive(Clone, Debug)]
pub struct Question {
    /// What its client calls it.
    pub client_msg_id: ClientMsgId,
    /// The text.
    pub text: String,
    /// The turn that is answered again.
    pub retry_of: Option<TurnId>,
}

/// Why a message opened no turn.
pub enum NotOpened {
    /// Another turn of the conversation runs.
    Busy,
    /// The message has a turn already.
    Duplicate(Arc<TurnLog>),
    /// The message id has a turn already, with another text.
    OtherText,
}

impl Rooms {
    /// The room of a conversation that was made just now, and is told to nobody outside this process: until the first of its logs is dropped, all of
    /// it is here, and the store need not be asked.
    pub fn begin(self: &Arc<Self>, id: ConversationId) -> Arc<Room> {
        let room = self.enter(id);
        room.lock().all_here = true;
        room
    }

    /// The room of this conversation, made if need be.
    pub fn enter(self: &Arc<Self>, id: ConversationId) -> Arc<Room> {
        let mut map = self.lock();
        if let Some(room) = map.get(&id).and_then(Weak::upgrade) {
            return room;
        }
        let room = Arc::new(Room {
            id,
            rooms: Arc::downgrade(self),
            inner: Mutex::default(),
            opened: watch::Sender::new(0),
            opening: tokio::sync::Mutex::default(),
            late: broadcast::Sender::new(LATE),
            forgotten: watch::Sender::new(0),
        });
        map.insert(id, Arc::downgrade(&room));
        room
    }

    /// The room of this conversation, where anyone is in it.
    pub fn find(&self, id: ConversationId) -> Option<Arc<Room>> {
        self.lock().get(&id).and_then(Weak::upgrade)
    }

    /// All rooms.
    pub fn all(&self) -> Vec<Arc<Room>> {
        self.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// How many rooms are open.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ConversationId, Weak<Room>>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(rooms) = self.rooms.upgrade() {
            let mut map = rooms.lock();
            if map
                .get(&self.id)
                .is_some_and(|room| room.strong_count() == 0)
            {
                map.remove(&self.id);
            }
        }
    }
}

impl Room {
    /// The conversation.
    pub fn id(&self) -> ConversationId {
        self.id
    }

    /// The id that the next turn would have. `chance`: a random number.
    pub fn next_turn(&self, now: At, chance: u64) -> TurnId {
        TurnId::after(self.lock().last, now.0, chance)
    }

    /// Waits until nobody else opens a turn here; that is over when what this gives is dropped.
    pub async fn opening(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.opening.lock().await
    }

    /// Takes in the log of a turn that another instance answers. False where it is here already.
    pub fn adopt(&self, log: &Arc<TurnLog>) -> bool {
        let inner = self.lock();
        if inner.logs.iter().any(|known| known.turn() == log.turn()) {
            return false;
        }
        self.enlist(inner, log);
        true
    }

    /// Opens the turn of `question`, unless another runs; under the id that was `claimed` for it, if any. `chance` is a random number for
    /// another id.
    ///
    /// # Errors
    /// See [`NotOpened`].
    pub fn open(
        &self,
        question: Question,
        claimed: Option<TurnId>,
        now: At,
        chance: u64,
    ) -> Result<LogWriter, NotOpened> {
        let inner = self.lock();
        if let Some(log) = inner
            .logs
            .iter()
            .find(|log| *log.client_msg_id() == question.client_msg_id)
        {
            let same = log.asks(&question.text);
            return Err(if same {
                NotOpened::Duplicate(Arc::clone(log))
            } else {
                NotOpened::OtherText
            });
        }
        if inner.closed || inner.logs.iter().any(|log| !log.ended()) {
            return Err(NotOpened::Busy);
        }
        let next = || TurnId::after(inner.last, now.0, chance);
        let turn = claimed
            .filter(|claimed| Some(*claimed) > inner.last)
            .unwrap_or_else(next);
        let Question {
            client_msg_id,
            text,
            retry_of,
        } = question;
        let writer = LogWriter::open(TurnRecord::asked(turn, client_msg_id, now, text, retry_of));
        self.enlist(inner, writer.log());
        Ok(writer)
    }

    fn enlist(&self, mut inner: MutexGuard<'_, Inner>, log: &Arc<TurnLog>) {
        inner.last = inner.last.max(Some(log.turn()));
        inner.logs.push_back(Arc::clone(log));
        inner.opened += 1;
        let opened = inner.opened;
        drop(inner);
        self.opened.send_replace(opened);
    }

    /// Tells the room of a turn that the store has: later ones get greater ids.
    pub fn seen(&self, turn: TurnId) {
        let mut inner = self.lock();
        inner.last = inner.last.max(Some(turn));
    }

    /// All logs, as [`Room::logs`] gives them, where the store has nothing of the conversation that is not among them; else none.
    pub fn all_here(&self) -> Option<Vec<Arc<TurnLog>>> {
        let inner = self.lock();
        inner.all_here.then(|| inner.logs.iter().cloned().collect())
    }

    /// The turn that runs.
    pub fn running(&self) -> Option<Arc<TurnLog>> {
        self.lock().logs.iter().find(|log| !log.ended()).cloned()
    }

    /// All logs not yet dropped, oldest first.
    pub fn logs(&self) -> Vec<Arc<TurnLog>> {
        self.lock().logs.iter().cloned().collect()
    }

    /// Whose it is, where that is known; none within: an anonymous visitor's.
    pub fn owner(&self) -> Option<Option<Arc<str>>> {
        self.lock().owner.clone()
    }

    /// It is known whose it is. What is known already stays: a conversation has one owner.
    pub fn belongs_to(&self, subject: Option<&str>) {
        self.lock()
            .owner
            .get_or_insert_with(|| subject.map(Into::into));
    }

    /// Opens no turn any more, for as long as what it gives is held.
    pub fn close(self: &Arc<Self>) -> Closed {
        self.lock().closed = true;
        Closed(Arc::clone(self))
    }

    /// It begins anew, with nothing of what was; who is in it is told.
    pub fn forget(&self) {
        let mut inner = self.lock();
        inner.logs.retain(|log| !log.ended());
        // A session counts the turns that were opened: those that are gone it need not look for.
        (inner.begun, inner.owner) = (false, None);
        drop(inner);
        self.forgotten.send_modify(|times| *times += 1);
    }

    /// Changes when the conversation was forgotten.
    pub fn forgotten(&self) -> watch::Receiver<u64> {
        self.forgotten.subscribe()
    }

    /// True once in a room's life, and once more after it was forgotten: for what is done at a conversation's first message.
    pub fn first_message(&self) -> bool {
        !std::mem::replace(&mut self.lock().begun, true)
    }

    /// The log of this turn, where it is not dropped yet.
    pub fn log(&self, turn: TurnId) -> Option<Arc<TurnLog>> {
        self.lock()
            .logs
            .iter()
            .find(|log| log.turn() == turn)
            .cloned()
    }

    /// Drops an ended turn's log; the store serves it from now on.
    pub fn drop_log(&self, turn: TurnId) {
        let mut inner = self.lock();
        inner.logs.retain(|log| log.turn() != turn || !log.ended());
        inner.all_here = false;
    }

    /// The turn that runs now, and a watch for those that are opened from now on.
    pub fn watch(&self) -> (NewTurns, Option<Arc<TurnLog>>) {
        let opened = self.opened.subscribe();
        let inner = self.lock();
        let running = inner.logs.iter().find(|log| !log.ended()).cloned();
        (
            NewTurns {
                next: inner.opened,
                opened,
            },
            running,
        )
    }

    /// Late answers, from now on.
    pub fn late(&self) -> broadcast::Receiver<(TurnId, Followup)> {
        self.late.subscribe()
    }

    /// Tells everyone here of a late answer that is in the store.
    pub fn follow_up(&self, turn: TurnId, late: Followup) {
        if let Some(log) = self.log(turn) {
            log.amend(Amendment::Followup(late.clone()));
        }
        // Nobody may be here: who comes finds it in the history.
        let _ = self.late.send((turn, late));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A room that opens no turn. Dropped, it does again.
pub struct Closed(Arc<Room>);

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.lock().closed = false;
    }
}

/// What a session finds when a turn was opened.
pub enum NewTurn {
    /// Its log.
    Log(Arc<TurnLog>),
    /// Turns were opened whose logs are dropped already: the history has them.
    Missed,
}

/// One session's place in the sequence of a room's turns.
pub struct NewTurns {
    next: u64,
    opened: watch::Receiver<u64>,
}

impl NewTurns {
    /// The next turn that was opened in `room`. Cancel-safe.
    pub async fn next(&mut self, room: &Room) -> NewTurn {
        loop {
            self.opened.borrow_and_update();
            {
                let inner = room.lock();
                let first = inner.opened - inner.logs.len() as u64;
                if self.next < first {
                    self.next = first;
                    return NewTurn::Missed;
                }
                let index = usize::try_from(self.next - first).unwrap_or(usize::MAX);
                if let Some(log) = inner.logs.get(index) {
                    self.next += 1;
                    return NewTurn::Log(Arc::clone(log));
                }
            }
            if self.opened.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

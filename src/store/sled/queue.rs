//! What waits for the writing thread: bounded in number and bytes, in the order of the calls, checkpoints apart.
//!
//! Of the checkpoints of a turn only the newest waits, and a write of the same turn that comes after it takes its place. Those that are left
//! when the queue is taken are newer than every write of their turn in it, so they are applied last.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::journal::Mark;
use crate::chat::{Amendment, ConversationId, Incident, Life, TurnId, TurnRecord};
use crate::store::record::weight;
use crate::store::{
    BreakerRecord, CacheKey, CachedAnswer, ConversationRecord, SpentRecord, StoreError,
};

/// The most writes that wait: twice the turns that run at once by default, so only a disk that stands still fills it.
const MOST: usize = 4096;

/// The most bytes of text that wait, checkpoints included.
pub(super) const MOST_BYTES: usize = 64 << 20;

/// How long checkpoints wait for more of them to come: the writing thread wakes for some at once, not for each. Nobody waits for them, and with the
/// time from one of a turn to the next it stays under the half second that a crash may cost.
const GATHER: Duration = Duration::from_millis(25);

/// One change of the store.
#[derive(Debug)]
pub(super) enum Op {
    /// Writes a conversation's record where there is none.
    Begin(ConversationId, ConversationRecord),
    /// Writes a turn.
    Turn(ConversationId, TurnRecord),
    /// Changes a turn that has ended.
    Amend(ConversationId, TurnId, Amendment),
    /// Notes whether a turn waits for a late answer.
    Waiting(ConversationId, TurnId, bool),
    /// Writes a turn that is still running; nobody waits for it.
    Checkpoint(ConversationId, TurnRecord),
    /// Removes a conversation.
    Forget(ConversationId),
    /// Writes or removes a breaker's state.
    Breaker(String, Option<BreakerRecord>),
    /// Writes what a provider's day cost.
    Spent(SpentRecord),
    /// Writes an incident.
    Incident(Incident),
    /// Writes when the service was seen to run.
    Life(Life),
    /// Writes a note of the service's own.
    Note(String, String),
    /// Writes a saved answer.
    Cached(CacheKey, CachedAnswer),
    /// Removes saved answers.
    Uncached(Vec<CacheKey>),
    /// Removes a conversation that was forgotten elsewhere: nobody needs to be told.
    Outdated(ConversationId),
    /// Removes marks of the journal; nobody waits for it.
    Unmark(Vec<Mark>),
    /// A panic of the database.
    #[cfg(test)]
    Panic,
}

impl Op {
    /// Whether nobody waits for it to be on disk: a turn's end has all of its checkpoints, a mark too many costs a look, and a saved answer that a
    /// crash takes costs a question.
    pub(super) fn is_light(&self) -> bool {
        matches!(self, Op::Checkpoint(..) | Op::Unmark(_) | Op::Cached(..))
    }

    /// About how much memory it takes, in bytes.
    pub(super) fn weight(&self) -> usize {
        match self {
            Op::Turn(_, turn) | Op::Checkpoint(_, turn) => weight(turn),
            Op::Cached(_, answer) => answer.weight(),
            Op::Note(_, text) => 256 + text.len(),
            Op::Uncached(keys) => 256 + 32 * keys.len(),
            Op::Unmark(marks) => 256 + 128 * marks.len(),
            Op::Amend(_, _, Amendment::Followup(late)) => 256 + late.text.len(),
            _ => 256,
        }
    }
}

/// How a write came out.
pub(super) type Told = oneshot::Receiver<Result<(), StoreError>>;

/// A change with the one who waits for it.
#[derive(Debug)]
pub(super) struct Pending {
    /// The change.
    pub(super) op: Op,
    waiter: Option<oneshot::Sender<Result<(), StoreError>>>,
}

impl Pending {
    /// Whether it is made up for later if it fails. A checkpoint is not: the turn's end will be; nor is what only saves work.
    pub(super) fn is_owed(&self) -> bool {
        !self.op.is_light()
    }

    /// Tells the waiter how it came out; the first word counts.
    pub(super) fn tell(&mut self, result: Result<(), StoreError>) {
        if let Some(waiter) = self.waiter.take() {
            // Nobody waits any more: the write stands all the same.
            let _ = waiter.send(result);
        }
    }
}

#[derive(Default)]
struct Waiting {
    ops: VecDeque<Pending>,
    checkpoints: BTreeMap<(ConversationId, TurnId), TurnRecord>,
    /// Since when the oldest of them waits.
    since: Option<Instant>,
    bytes: usize,
    closed: bool,
}

impl Waiting {
    fn drop_checkpoint(&mut self, key: &(ConversationId, TurnId)) {
        if let Some(old) = self.checkpoints.remove(key) {
            self.bytes -= weight(&old);
        }
        if self.checkpoints.is_empty() {
            self.since = None;
        }
    }

    fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.checkpoints.is_empty()
    }

    /// How long until there is something to take; none while nothing waits.
    fn due_in(&self) -> Option<Duration> {
        if self.closed || !self.ops.is_empty() {
            return Some(Duration::ZERO);
        }
        Some((self.since? + GATHER).saturating_duration_since(Instant::now()))
    }
}

/// The queue; shared by all callers and the one writing thread.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    came: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a change. Never waits.
    ///
    /// # Errors
    /// `Broken` where the queue is full or closed.
    pub(super) fn push(&self, op: Op) -> Result<Told, StoreError> {
        let mut waiting = self.lock();
        if let Op::Turn(conversation, turn) = &op {
            waiting.drop_checkpoint(&(*conversation, turn.turn));
        }
        let bytes = waiting.bytes + op.weight();
        if waiting.closed {
            return Err(StoreError::Broken("it is closed".into()));
        }
        if waiting.ops.len() >= MOST || bytes > MOST_BYTES {
            return Err(StoreError::Broken("too many writes wait".into()));
        }
        let (waiter, told) = oneshot::channel();
        waiting.bytes = bytes;
        waiting.ops.push_back(Pending {
            op,
            waiter: Some(waiter),
        });
        drop(waiting);
        self.came.notify_one();
        Ok(told)
    }

    /// Queues a checkpoint in place of an older one of the same turn; a full queue drops it, the next one is near.
    pub(super) fn checkpoint(&self, conversation: ConversationId, turn: TurnRecord) {
        let mut waiting = self.lock();
        let key = (conversation, turn.turn);
        // One that takes another's place waits no longer for it.
        let since = waiting.since;
        waiting.drop_checkpoint(&key);
        let bytes = waiting.bytes + weight(&turn);
        if waiting.closed || waiting.checkpoints.len() >= MOST || bytes > MOST_BYTES {
            return;
        }
        waiting.bytes = bytes;
        waiting.checkpoints.insert(key, turn);
        waiting.since = since.or_else(|| Some(Instant::now()));
        drop(waiting);
        if since.is_none() {
            self.came.notify_one();
        }
    }

    /// Takes all that waits, waiting for something to come, at most `patience` if given. None once it is closed and empty.
    pub(super) fn take(&self, patience: Option<Duration>) -> Option<Vec<Pending>> {
        let until = patience.map(|patience| Instant::now() + patience);
        let mut waiting = self.lock();
        loop {
            let due = waiting.due_in();
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if due == Some(Duration::ZERO) || left == Some(Duration::ZERO) {
                break;
            }
            waiting = match [due, left].into_iter().flatten().min() {
                None => self
                    .came
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(time) => {
                    self.came
                        .wait_timeout(waiting, time)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
        if waiting.is_empty() && waiting.closed {
            return None;
        }
        waiting.bytes = 0;
        waiting.since = None;
        let checkpoints = std::mem::take(&mut waiting.checkpoints);
        let mut taken = Vec::from(std::mem::take(&mut waiting.ops));
        taken.extend(
            checkpoints
                .into_iter()
                .map(|((conversation, _), turn)| Pending {
                    op: Op::Checkpoint(conversation, turn),
                    waiter: None,
                }),
        );
        Some(taken)
    }

    /// Takes no more; what waits is still handed out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.came.notify_one();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::store::contract::{conversation, saying as with_text, turn};

    fn texts(taken: &[Pending]) -> Vec<(&'static str, String)> {
        let of = |pending: &Pending| match &pending.op {
            Op::Turn(_, turn) => ("turn", turn.text.clone()),
            Op::Checkpoint(_, turn) => ("checkpoint", turn.text.clone()),
            other => ("other", format!("{other:?}")),
        };
        taken.iter().map(of).collect()
    }

    fn saying(text: &str) -> TurnRecord {
        with_text(turn(1, "m", "what?"), text)
    }

    #[test]
    fn only_the_newest_checkpoint_of_a_turn_waits() {
        let queue = Queue::default();
        for text in ["a", "ab", "abc"] {
            queue.checkpoint(conversation(1), saying(text));
        }
        assert_eq!(
            texts(&queue.take(None).unwrap()),
            [("checkpoint", "abc".into())]
        );
        assert_eq!(queue.lock().bytes, 0);
    }

    #[test]
    fn a_write_takes_the_place_of_an_earlier_checkpoint_and_comes_before_a_later_one() {
        let queue = Queue::default();
        queue.checkpoint(conversation(1), saying("a"));
        queue.push(Op::Turn(conversation(1), saying("ab"))).unwrap();
        queue.checkpoint(conversation(1), saying("abc"));
        queue
            .push(Op::Turn(conversation(2), saying("other")))
            .unwrap();
        let taken = texts(&queue.take(None).unwrap());
        let expected = [("turn", "ab"), ("turn", "other"), ("checkpoint", "abc")];
        assert_eq!(taken, expected.map(|(kind, text)| (kind, text.to_owned())));
    }

    #[test]
    fn checkpoints_wait_for_more_of_them_and_a_write_takes_them_along() {
        let queue = Queue::default();
        let begun = Instant::now();
        queue.checkpoint(conversation(1), saying("a"));
        assert!(
            queue.take(Some(Duration::ZERO)).unwrap().len() == 1,
            "who has no patience takes what there is"
        );
        queue.checkpoint(conversation(1), saying("ab"));
        queue.checkpoint(conversation(2), saying("b"));
        assert_eq!(queue.take(None).unwrap().len(), 2);
        assert!(begun.elapsed() >= GATHER);
        queue.checkpoint(conversation(1), saying("abc"));
        queue.push(Op::Forget(conversation(3))).unwrap();
        assert_eq!(queue.lock().due_in(), Some(Duration::ZERO));
        assert_eq!(queue.take(None).unwrap().len(), 2);
        assert_eq!(queue.lock().due_in(), None);
    }

    #[test]
    fn a_checkpoint_that_takes_anothers_place_waits_no_longer_for_it() {
        let queue = Queue::default();
        queue.checkpoint(conversation(1), saying("a"));
        let since = queue.lock().since;
        queue.checkpoint(conversation(1), saying("ab"));
        assert_eq!(queue.lock().since, since);
        queue
            .push(Op::Turn(conversation(1), saying("abc")))
            .unwrap();
        assert_eq!(queue.lock().since, None, "a write has it all");
    }

    #[test]
    fn a_full_queue_refuses_at_once_and_is_whole_again_when_taken() {
        let queue = Queue::default();
        let fill = |op: fn() -> Op| (0..=MOST).take_while(|_| queue.push(op()).is_ok()).count();
        assert_eq!(fill(|| Op::Forget(conversation(1))), MOST);
        assert_eq!(queue.take(None).unwrap().len(), MOST);
        let heavy = || Op::Turn(conversation(1), saying(&"x".repeat(MOST_BYTES / 8)));
        assert_eq!(fill(heavy), 7);
        queue.checkpoint(conversation(3), saying(&"x".repeat(MOST_BYTES / 8)));
        assert_eq!(queue.take(None).unwrap().len(), 7);
        assert_eq!(fill(heavy), 7);
    }

    #[test]
    fn closed_it_hands_out_what_waits_and_ends() {
        let queue = Queue::default();
        queue.push(Op::Forget(conversation(1))).unwrap();
        queue.close();
        assert!(queue.push(Op::Forget(conversation(1))).is_err());
        queue.checkpoint(conversation(1), saying("late"));
        assert_eq!(queue.take(None).unwrap().len(), 1);
        assert!(queue.take(None).is_none());
    }

    #[test]
    fn a_taker_with_patience_comes_back_with_nothing() {
        let taken = Queue::default().take(Some(Duration::from_millis(1)));
        assert!(taken.unwrap().is_empty());
    }
}

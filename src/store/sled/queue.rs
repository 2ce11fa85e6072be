//! The writer thread's queue: bounded in number and bytes, in the order of the calls.
//!
//! Checkpoints wait apart. Only the newest of each turn waits, and a later write of the turn
//! replaces it. A checkpoint that remains when the queue is drained is therefore newer than every
//! write of its turn in the queue, and is applied after them.

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

/// The number of waiting writes: twice the default `limits.turns`, so only a stalled disk fills
/// the queue.
const MOST: usize = 4096;

/// Limit on the text of the waiting writes and checkpoints, in bytes.
pub(super) const MOST_BYTES: usize = 64 << 20;

/// Delay in which checkpoints gather, so that the writer thread does not wake for each. Together
/// with the interval between two checkpoints of a turn, it stays under the half second that a crash
/// may cost.
const GATHER: Duration = Duration::from_millis(25);

#[derive(Debug)]
pub(super) enum Op {
    /// Writes a conversation's record unless it has one.
    Begin(ConversationId, ConversationRecord),
    Turn(ConversationId, TurnRecord),
    Amend(ConversationId, TurnId, Amendment),
    Waiting(ConversationId, TurnId, bool),
    Checkpoint(ConversationId, TurnRecord),
    Forget(ConversationId),
    /// Writes a breaker's state, or removes it if `None`.
    Breaker(String, Option<BreakerRecord>),
    Spent(SpentRecord),
    Incident(Incident),
    Life(Life),
    /// Writes a document of the service: its name and text.
    Note(String, String),
    Cached(CacheKey, CachedAnswer),
    Uncached(Vec<CacheKey>),
    /// Deletes the local copy of a conversation that another instance deleted. Not replicated.
    Outdated(ConversationId),
    Unmark(Vec<Mark>),
    #[cfg(test)]
    Panic,
}

impl Op {
    /// `true` if nobody waits for it to be on disk.
    ///
    /// A lost checkpoint is covered by the turn's final write, a journal entry too many costs one
    /// more replication, and a lost cached answer costs one provider call.
    pub(super) fn is_light(&self) -> bool {
        matches!(self, Op::Checkpoint(..) | Op::Unmark(_) | Op::Cached(..))
    }

    pub(super) fn weight(&self) -> usize {
        match self {
            Op::Turn(_, turn) | Op::Checkpoint(_, turn) => weight(turn),
            Op::Cached(_, answer) => answer.weight(),
            Op::Note(_, text) => 256 + text.len(),
            Op::Uncached(keys) => 256 + 32 * keys.len(),
            Op::Unmark(marks) => 256 + 128 * marks.len(),
            Op::Amend(_, _, Amendment::Followup(followup)) => 256 + followup.text.len(),
            _ => 256,
        }
    }
}

pub(super) type Told = oneshot::Receiver<Result<(), StoreError>>;

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) op: Op,
    waiter: Option<oneshot::Sender<Result<(), StoreError>>>,
}

impl Pending {
    pub(super) fn is_owed(&self) -> bool {
        !self.op.is_light()
    }

    /// Sends the result to the waiting caller. Only the first call has an effect.
    pub(super) fn tell(&mut self, result: Result<(), StoreError>) {
        if let Some(waiter) = self.waiter.take() {
            // The caller may have given up. The write still stands.
            let _ = waiter.send(result);
        }
    }
}

#[derive(Default)]
struct Waiting {
    ops: VecDeque<Pending>,
    checkpoints: BTreeMap<(ConversationId, TurnId), TurnRecord>,
    /// When the first of the current checkpoints was queued.
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

    /// Time until there is something to drain. `None` while the queue is empty.
    fn due_in(&self) -> Option<Duration> {
        if self.closed || !self.ops.is_empty() {
            return Some(Duration::ZERO);
        }
        Some((self.since? + GATHER).saturating_duration_since(Instant::now()))
    }
}

#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    came: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a write without waiting.
    ///
    /// # Errors
    /// `Unavailable` if the queue is full or closed.
    pub(super) fn push(&self, op: Op) -> Result<Told, StoreError> {
        let mut backlog = self.lock();
        if let Op::Turn(conversation, turn) = &op {
            backlog.drop_checkpoint(&(*conversation, turn.turn));
        }
        let bytes = backlog.bytes + op.weight();
        if backlog.closed {
            return Err(StoreError::Broken("it is closed".into()));
        }
        if backlog.ops.len() >= MOST || bytes > MOST_BYTES {
            return Err(StoreError::Broken("too many writes wait".into()));
        }
        let (waiter, receipt) = oneshot::channel();
        backlog.bytes = bytes;
        backlog.ops.push_back(Pending {
            op,
            waiter: Some(waiter),
        });
        drop(backlog);
        self.came.notify_one();
        Ok(receipt)
    }

    /// Queues a checkpoint in place of an older one of the same turn.
    ///
    /// A full queue drops it: the turn's next checkpoint follows soon.
    pub(super) fn checkpoint(&self, conversation: ConversationId, turn: TurnRecord) {
        let mut backlog = self.lock();
        let key = (conversation, turn.turn);
        // A replacement inherits the waiting time of the checkpoint that it replaces.
        let since = backlog.since;
        backlog.drop_checkpoint(&key);
        let bytes = backlog.bytes + weight(&turn);
        if backlog.closed || backlog.checkpoints.len() >= MOST || bytes > MOST_BYTES {
            return;
        }
        backlog.bytes = bytes;
        backlog.checkpoints.insert(key, turn);
        backlog.since = since.or_else(|| Some(Instant::now()));
        drop(backlog);
        if since.is_none() {
            self.came.notify_one();
        }
    }

    /// Waits for writes and takes all of them.
    ///
    /// Returns what there is, possibly nothing, once `wait_limit` is over. Returns `None` once the
    /// queue is closed and empty.
    pub(super) fn take(&self, wait_limit: Option<Duration>) -> Option<Vec<Pending>> {
        let deadline = wait_limit.map(|limit| Instant::now() + limit);
        let mut backlog = self.lock();
        loop {
            let due = backlog.due_in();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if due == Some(Duration::ZERO) || left == Some(Duration::ZERO) {
                break;
            }
            backlog = match [due, left].into_iter().flatten().min() {
                None => self
                    .came
                    .wait(backlog)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(time) => {
                    self.came
                        .wait_timeout(backlog, time)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
        if backlog.is_empty() && backlog.closed {
            return None;
        }
        backlog.bytes = 0;
        backlog.since = None;
        let checkpoints = std::mem::take(&mut backlog.checkpoints);
        let mut drained = Vec::from(std::mem::take(&mut backlog.ops));
        drained.extend(
            checkpoints
                .into_iter()
                .map(|((conversation, _), turn)| Pending {
                    op: Op::Checkpoint(conversation, turn),
                    waiter: None,
                }),
        );
        Some(drained)
    }

    /// Refuses further writes. Waiting writes can still be drained.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.came.notify_one();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::store::contract::{conversation, saying, turn};

    fn kinds_and_texts(writes: &[Pending]) -> Vec<(&'static str, String)> {
        let kind_and_text = |pending: &Pending| match &pending.op {
            Op::Turn(_, turn) => ("turn", turn.text.clone()),
            Op::Checkpoint(_, turn) => ("checkpoint", turn.text.clone()),
            other => ("other", format!("{other:?}")),
        };
        writes.iter().map(kind_and_text).collect()
    }

    fn turn_with_text(text: &str) -> TurnRecord {
        saying(turn(1, "m", "what?"), text)
    }

    #[test]
    fn only_the_newest_checkpoint_of_a_turn_waits() {
        let queue = Queue::default();
        for text in ["a", "ab", "abc"] {
            queue.checkpoint(conversation(1), turn_with_text(text));
        }
        assert_eq!(
            kinds_and_texts(&queue.take(None).unwrap()),
            [("checkpoint", "abc".into())]
        );
        assert_eq!(queue.lock().bytes, 0);
    }

    #[test]
    fn write_replaces_an_earlier_checkpoint_and_precedes_a_later_one() {
        let queue = Queue::default();
        queue.checkpoint(conversation(1), turn_with_text("a"));
        queue
            .push(Op::Turn(conversation(1), turn_with_text("ab")))
            .unwrap();
        queue.checkpoint(conversation(1), turn_with_text("abc"));
        queue
            .push(Op::Turn(conversation(2), turn_with_text("other")))
            .unwrap();
        let drained = kinds_and_texts(&queue.take(None).unwrap());
        let expected = [("turn", "ab"), ("turn", "other"), ("checkpoint", "abc")];
        assert_eq!(
            drained,
            expected.map(|(kind, text)| (kind, text.to_owned()))
        );
    }

    #[test]
    fn checkpoints_are_delayed_and_drained_together_with_a_write() {
        let queue = Queue::default();
        let started = Instant::now();
        queue.checkpoint(conversation(1), turn_with_text("a"));
        assert!(
            queue.take(Some(Duration::ZERO)).unwrap().len() == 1,
            "an elapsed wait limit returns what there is"
        );
        queue.checkpoint(conversation(1), turn_with_text("ab"));
        queue.checkpoint(conversation(2), turn_with_text("b"));
        assert_eq!(queue.take(None).unwrap().len(), 2);
        assert!(started.elapsed() >= GATHER);
        queue.checkpoint(conversation(1), turn_with_text("abc"));
        queue.push(Op::Forget(conversation(3))).unwrap();
        assert_eq!(queue.lock().due_in(), Some(Duration::ZERO));
        assert_eq!(queue.take(None).unwrap().len(), 2);
        assert_eq!(queue.lock().due_in(), None);
    }

    #[test]
    fn replacing_a_checkpoint_does_not_restart_its_delay() {
        let queue = Queue::default();
        queue.checkpoint(conversation(1), turn_with_text("a"));
        let since = queue.lock().since;
        queue.checkpoint(conversation(1), turn_with_text("ab"));
        assert_eq!(queue.lock().since, since);
        queue
            .push(Op::Turn(conversation(1), turn_with_text("abc")))
            .unwrap();
        assert_eq!(
            queue.lock().since,
            None,
            "the write replaced the checkpoint"
        );
    }

    #[test]
    fn full_queue_refuses_writes_until_it_is_drained() {
        let queue = Queue::default();
        let fill = |op: fn() -> Op| (0..=MOST).take_while(|_| queue.push(op()).is_ok()).count();
        assert_eq!(fill(|| Op::Forget(conversation(1))), MOST);
        assert_eq!(queue.take(None).unwrap().len(), MOST);
        let heavy = || Op::Turn(conversation(1), turn_with_text(&"x".repeat(MOST_BYTES / 8)));
        assert_eq!(fill(heavy), 7);
        queue.checkpoint(conversation(3), turn_with_text(&"x".repeat(MOST_BYTES / 8)));
        assert_eq!(queue.take(None).unwrap().len(), 7);
        assert_eq!(fill(heavy), 7);
    }

    #[test]
    fn closed_queue_returns_waiting_writes_and_then_none() {
        let queue = Queue::default();
        queue.push(Op::Forget(conversation(1))).unwrap();
        queue.close();
        assert!(queue.push(Op::Forget(conversation(1))).is_err());
        queue.checkpoint(conversation(1), turn_with_text("late"));
        assert_eq!(queue.take(None).unwrap().len(), 1);
        assert!(queue.take(None).is_none());
    }

    #[test]
    fn drain_returns_nothing_after_its_wait_limit() {
        let drained = Queue::default().take(Some(Duration::from_millis(1)));
        assert!(drained.unwrap().is_empty());
    }
}

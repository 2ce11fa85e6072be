//! The writer thread's queue: bounded in number and bytes, in the order of the calls.
//!
//! Checkpoints wait apart. Only the newest of each turn waits, and a later write of the turn
//! replaces it. A checkpoint that remains when the queue is drained is therefore newer than every
//! write of its turn in the queue, and is applied after them.

use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::write_op::WriteOp;
use crate::domain::{ConversationId, TurnId, TurnRecord};
use crate::store::StoreError;
use crate::store::codec::turn_memory_bytes;

/// The number of waiting writes: twice the default `limits.turns`, so only a stalled disk fills
/// the queue.
const MAX_PENDING_WRITES: usize = 4096;

/// Limit on the text of the waiting writes and checkpoints, in bytes.
pub(super) const MAX_PENDING_BYTES: usize = 64 << 20;

/// Delay in which checkpoints gather, so that the writer thread does not wake for each. Together
/// with the interval between two checkpoints of a turn, it stays under the half second that a crash
/// may cost.
const CHECKPOINT_DELAY: Duration = Duration::from_millis(25);

pub(super) type WriteReceipt = oneshot::Receiver<Result<(), StoreError>>;

#[derive(Debug)]
pub(super) struct PendingWrite {
    pub(super) op: WriteOp,
    waiter: Option<oneshot::Sender<Result<(), StoreError>>>,
}

impl PendingWrite {
    /// Sends the result to the waiting caller. Only the first call has an effect.
    pub(super) fn complete(&mut self, result: Result<(), StoreError>) {
        if let Some(waiter) = self.waiter.take() {
            // The caller may have given up. The write still stands.
            let _ = waiter.send(result);
        }
    }
}

#[derive(Default)]
struct WriteBacklog {
    writes: VecDeque<PendingWrite>,
    checkpoints: BTreeMap<(ConversationId, TurnId), TurnRecord>,
    /// When the first of the current checkpoints was queued.
    first_checkpoint_at: Option<Instant>,
    bytes: usize,
    is_closed: bool,
}

impl WriteBacklog {
    fn drop_checkpoint(&mut self, key: &(ConversationId, TurnId)) {
        if let Some(old) = self.checkpoints.remove(key) {
            self.bytes -= turn_memory_bytes(&old);
        }
        if self.checkpoints.is_empty() {
            self.first_checkpoint_at = None;
        }
    }

    fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.checkpoints.is_empty()
    }

    /// Time until there is something to drain. `None` while the queue is empty.
    fn due_in(&self) -> Option<Duration> {
        if self.is_closed || !self.writes.is_empty() {
            return Some(Duration::ZERO);
        }
        let due = self.first_checkpoint_at? + CHECKPOINT_DELAY;
        Some(due.saturating_duration_since(Instant::now()))
    }
}

#[derive(Default)]
pub(super) struct WriteQueue {
    backlog: Mutex<WriteBacklog>,
    arrived: Condvar,
}

impl WriteQueue {
    /// Queues a write without waiting.
    ///
    /// # Errors
    /// `Unavailable` if the queue is full or closed.
    pub(super) fn push(&self, op: WriteOp) -> Result<WriteReceipt, StoreError> {
        let mut backlog = self.backlog.lock();
        if let WriteOp::WriteTurn(conversation, turn) = &op {
            backlog.drop_checkpoint(&(*conversation, turn.turn));
        }
        let bytes = backlog.bytes + op.memory_bytes();
        if backlog.is_closed {
            return Err(StoreError::Unavailable("it is closed".into()));
        }
        if backlog.writes.len() >= MAX_PENDING_WRITES || bytes > MAX_PENDING_BYTES {
            return Err(StoreError::Unavailable("too many writes wait".into()));
        }
        let (waiter, receipt) = oneshot::channel();
        backlog.bytes = bytes;
        backlog.writes.push_back(PendingWrite {
            op,
            waiter: Some(waiter),
        });
        drop(backlog);
        self.arrived.notify_one();
        Ok(receipt)
    }

    /// Queues a checkpoint in place of an older one of the same turn.
    ///
    /// A full queue drops it: the turn's next checkpoint follows soon.
    pub(super) fn push_checkpoint(&self, conversation: ConversationId, turn: TurnRecord) {
        let mut backlog = self.backlog.lock();
        let key = (conversation, turn.turn);
        // A replacement inherits the waiting time of the checkpoint that it replaces.
        let since = backlog.first_checkpoint_at;
        backlog.drop_checkpoint(&key);
        let bytes = backlog.bytes + turn_memory_bytes(&turn);
        if backlog.is_closed
            || backlog.checkpoints.len() >= MAX_PENDING_WRITES
            || bytes > MAX_PENDING_BYTES
        {
            return;
        }
        backlog.bytes = bytes;
        backlog.checkpoints.insert(key, turn);
        backlog.first_checkpoint_at = since.or_else(|| Some(Instant::now()));
        drop(backlog);
        if since.is_none() {
            self.arrived.notify_one();
        }
    }

    /// Waits for writes and takes all of them.
    ///
    /// Returns what there is, possibly nothing, once `wait_limit` is over. Returns `None` once the
    /// queue is closed and empty.
    pub(super) fn drain(&self, wait_limit: Option<Duration>) -> Option<Vec<PendingWrite>> {
        let deadline = wait_limit.map(|limit| Instant::now() + limit);
        let mut backlog = self.backlog.lock();
        loop {
            let due = backlog.due_in();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if due == Some(Duration::ZERO) || left == Some(Duration::ZERO) {
                break;
            }
            match [due, left].into_iter().flatten().min() {
                None => self.arrived.wait(&mut backlog),
                Some(time) => drop(self.arrived.wait_for(&mut backlog, time)),
            }
        }
        if backlog.is_empty() && backlog.is_closed {
            return None;
        }
        backlog.bytes = 0;
        backlog.first_checkpoint_at = None;
        let mut drained = Vec::from(std::mem::take(&mut backlog.writes));
        for ((conversation, _), turn) in std::mem::take(&mut backlog.checkpoints) {
            drained.push(PendingWrite {
                op: WriteOp::Checkpoint(conversation, turn),
                waiter: None,
            });
        }
        Some(drained)
    }

    /// Refuses further writes. Waiting writes can still be drained.
    pub(super) fn close(&self) {
        self.backlog.lock().is_closed = true;
        self.arrived.notify_one();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::store::contract::{conversation, turn, with_text};

    fn kinds_and_texts(writes: &[PendingWrite]) -> Vec<(&'static str, String)> {
        let kind_and_text = |pending: &PendingWrite| match &pending.op {
            WriteOp::WriteTurn(_, turn) => ("turn", turn.text.clone()),
            WriteOp::Checkpoint(_, turn) => ("checkpoint", turn.text.clone()),
            other => ("other", format!("{other:?}")),
        };
        writes.iter().map(kind_and_text).collect()
    }

    fn turn_with_text(text: &str) -> TurnRecord {
        with_text(turn(1, "m", "what?"), text)
    }

    #[test]
    fn only_the_newest_checkpoint_of_a_turn_waits() {
        let queue = WriteQueue::default();
        for text in ["a", "ab", "abc"] {
            queue.push_checkpoint(conversation(1), turn_with_text(text));
        }
        assert_eq!(
            kinds_and_texts(&queue.drain(None).unwrap()),
            [("checkpoint", "abc".into())]
        );
        assert_eq!(queue.backlog.lock().bytes, 0);
    }

    #[test]
    fn write_replaces_an_earlier_checkpoint_and_precedes_a_later_one() {
        let queue = WriteQueue::default();
        queue.push_checkpoint(conversation(1), turn_with_text("a"));
        queue
            .push(WriteOp::WriteTurn(conversation(1), turn_with_text("ab")))
            .unwrap();
        queue.push_checkpoint(conversation(1), turn_with_text("abc"));
        queue
            .push(WriteOp::WriteTurn(conversation(2), turn_with_text("other")))
            .unwrap();
        let drained = kinds_and_texts(&queue.drain(None).unwrap());
        let expected = [("turn", "ab"), ("turn", "other"), ("checkpoint", "abc")];
        assert_eq!(
            drained,
            expected.map(|(kind, text)| (kind, text.to_owned()))
        );
    }

    #[test]
    fn checkpoints_are_delayed_and_drained_together_with_a_write() {
        let queue = WriteQueue::default();
        let started = Instant::now();
        queue.push_checkpoint(conversation(1), turn_with_text("a"));
        assert!(
            queue.drain(Some(Duration::ZERO)).unwrap().len() == 1,
            "an elapsed wait limit returns what there is"
        );
        queue.push_checkpoint(conversation(1), turn_with_text("ab"));
        queue.push_checkpoint(conversation(2), turn_with_text("b"));
        assert_eq!(queue.drain(None).unwrap().len(), 2);
        assert!(started.elapsed() >= CHECKPOINT_DELAY);
        queue.push_checkpoint(conversation(1), turn_with_text("abc"));
        queue
            .push(WriteOp::DeleteConversation(conversation(3)))
            .unwrap();
        assert_eq!(queue.backlog.lock().due_in(), Some(Duration::ZERO));
        assert_eq!(queue.drain(None).unwrap().len(), 2);
        assert_eq!(queue.backlog.lock().due_in(), None);
    }

    #[test]
    fn replacing_a_checkpoint_does_not_restart_its_delay() {
        let queue = WriteQueue::default();
        queue.push_checkpoint(conversation(1), turn_with_text("a"));
        let since = queue.backlog.lock().first_checkpoint_at;
        queue.push_checkpoint(conversation(1), turn_with_text("ab"));
        assert_eq!(queue.backlog.lock().first_checkpoint_at, since);
        queue
            .push(WriteOp::WriteTurn(conversation(1), turn_with_text("abc")))
            .unwrap();
        assert_eq!(
            queue.backlog.lock().first_checkpoint_at,
            None,
            "the write replaced the checkpoint"
        );
    }

    #[test]
    fn full_queue_refuses_writes_until_it_is_drained() {
        let queue = WriteQueue::default();
        let fill = |op: fn() -> WriteOp| {
            (0..=MAX_PENDING_WRITES)
                .take_while(|_| queue.push(op()).is_ok())
                .count()
        };
        assert_eq!(
            fill(|| WriteOp::DeleteConversation(conversation(1))),
            MAX_PENDING_WRITES
        );
        assert_eq!(queue.drain(None).unwrap().len(), MAX_PENDING_WRITES);
        let heavy = || {
            WriteOp::WriteTurn(
                conversation(1),
                turn_with_text(&"x".repeat(MAX_PENDING_BYTES / 8)),
            )
        };
        assert_eq!(fill(heavy), 7);
        queue.push_checkpoint(
            conversation(3),
            turn_with_text(&"x".repeat(MAX_PENDING_BYTES / 8)),
        );
        assert_eq!(queue.drain(None).unwrap().len(), 7);
        assert_eq!(fill(heavy), 7);
    }

    #[test]
    fn closed_queue_returns_waiting_writes_and_then_none() {
        let queue = WriteQueue::default();
        queue
            .push(WriteOp::DeleteConversation(conversation(1)))
            .unwrap();
        queue.close();
        assert!(
            queue
                .push(WriteOp::DeleteConversation(conversation(1)))
                .is_err()
        );
        queue.push_checkpoint(conversation(1), turn_with_text("late"));
        assert_eq!(queue.drain(None).unwrap().len(), 1);
        assert!(queue.drain(None).is_none());
    }

    #[test]
    fn drain_returns_nothing_after_its_wait_limit() {
        let drained = WriteQueue::default().drain(Some(Duration::from_millis(1)));
        assert!(drained.unwrap().is_empty());
    }
}

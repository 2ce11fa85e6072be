//! The loops of turn replication: publish local turns, read remote ones, handle messages, and
//! interrupt turns whose instance is gone.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{RemoteTurn, TurnReplication};
use crate::domain::{ConversationId, TurnId, TurnRecord, TurnState};
use crate::store::redis::client::RedisCallError;
use crate::store::redis::turn_streams::{FrameBatch, TURN_LEASE, TurnMessage};
use crate::turn::deps::TurnDeps;
use crate::turn::log::{Cancel, encode_frame};
use crate::turn::service::TurnService;

/// The interval at which frames are written to and read from Redis.
const BATCH_INTERVAL: Duration = Duration::from_millis(50);

/// The interval at which leases are renewed, and those of other instances checked.
const RENEW_INTERVAL: Duration = Duration::from_secs(1);

/// The interval at which the answering instance is told that somebody here follows its turn.
const FOLLOWED_INTERVAL: Duration = Duration::from_secs(10);

/// The time a replica is kept without followers, and its log after the end.
const REPLICA_TTL: Duration = Duration::from_secs(5);

/// The maximum number of ended turns that wait for Redis to come back.
const MAX_UNPUBLISHED: usize = 1024;

/// The number of conversations that one query covers.
const CONVERSATIONS_PER_QUERY: usize = 64;

/// Replicates turns for as long as the service runs. Returns at once without Redis.
pub async fn run(service: Arc<TurnService>) {
    let deps: &TurnDeps = &service;
    let Some(sharing) = deps.replication.clone() else {
        return;
    };
    let loops = futures_util::future::join4(
        publish_loop(&sharing),
        read_loop(&sharing),
        message_loop(deps, &sharing),
        expire_loop(deps, &sharing),
    );
    loops.await;
}

/// Writes new frames of local turns to their streams.
async fn publish_loop(sharing: &TurnReplication) -> Infallible {
    loop {
        sleep(BATCH_INTERVAL).await;
        let (batches, ends) = collect_batches(sharing);
        if batches.is_empty() {
            continue;
        }
        match sharing.streams.append(&batches).await {
            Ok(()) => {}
            // Sent again with the next batch. Frames that arrive twice do no harm.
            Err(RedisCallError::Unavailable) => continue,
            // Redis rejected the call, for example because a key has an unexpected type. Other
            // instances get no frames, and read the ended turns from the store.
            Err(RedisCallError::Rejected) => {
                sharing
                    .local_turns
                    .lock()
                    .retain(|_, turn| !turn.log.is_finished());
                continue;
            }
        }
        let mut turns = sharing.local_turns.lock();
        for (batch, end) in batches.iter().zip(ends) {
            if batch.is_last {
                turns.remove(&batch.turn);
            } else if let Some(turn) = turns.get_mut(&batch.turn) {
                turn.published_seq = end;
                turn.renewed_at = Some(Instant::now());
            }
        }
    }
}

/// Collects the new frames of local turns, and the number of each turn's last frame.
///
/// A turn without news gets an empty batch when its lease has to be renewed.
fn collect_batches(sharing: &TurnReplication) -> (Vec<FrameBatch>, Vec<u64>) {
    let is_up = sharing.streams.client().is_up();
    let mut turns = sharing.local_turns.lock();
    // Without Redis, ended turns wait for it. If there are too many, others read them from the
    // store.
    let may_wait = turns.len() <= MAX_UNPUBLISHED;
    turns.retain(|_, turn| is_up || may_wait || !turn.log.is_finished());
    let new = turns.iter().filter(|_| is_up).filter_map(|(id, turn)| {
        let batch = |frames, ended| FrameBatch {
            conversation: turn.conversation,
            turn: *id,
            frames,
            is_last: ended,
        };
        if let Some((frames, end, ended)) = turn.log.frames_since(turn.published_seq) {
            return Some((batch(frames, ended), end));
        }
        let is_due = turn
            .renewed_at
            .is_none_or(|renewed| renewed.elapsed() >= RENEW_INTERVAL);
        is_due.then(|| (batch(String::new(), false), turn.published_seq))
    });
    new.unzip()
}

/// Reads new frames of the remote turns that somebody here follows.
async fn read_loop(sharing: &TurnReplication) -> Infallible {
    let mut last_up = Instant::now();
    loop {
        sleep(BATCH_INTERVAL).await;
        if sharing.remote_turns.lock().is_empty() {
            continue;
        }
        if sharing.streams.client().is_up() {
            last_up = Instant::now();
        } else if last_up.elapsed() > TURN_LEASE {
            // Their fate is unknown, so they end here with the text received so far.
            sharing
                .remote_turns
                .lock()
                .drain()
                .for_each(|(_, turn)| release_replica(turn));
            continue;
        }
        let positions: Vec<_> = sharing
            .remote_turns
            .lock()
            .iter()
            .map(|(id, turn)| (*id, turn.stream_position.clone()))
            .collect();
        let batches = sharing.streams.read_new_frames(&positions).await;
        for (id, parts) in batches.unwrap_or_default() {
            if let Some(turn) = sharing.remote_turns.lock().get_mut(&id) {
                for (position, lines) in parts {
                    turn.replica.apply_lines(&lines);
                    turn.stream_position = position;
                }
            }
        }
        for message in collect_messages(sharing) {
            sharing.streams.publish(&message).await;
        }
    }
}

/// Collects the messages for the instances that answer remote turns: stop, or somebody follows.
/// Releases the replicas that have ended or that nobody follows.
fn collect_messages(sharing: &TurnReplication) -> Vec<TurnMessage> {
    let mut messages = Vec::new();
    let mut turns = sharing.remote_turns.lock();
    let released = turns.extract_if(|id, turn| {
        let log = turn.replica.log();
        let conversation = turn.conversation.id();
        if !turn.stop_sent && log.cancel_reason() == Some(Cancel::Stopped) {
            turn.stop_sent = true;
            messages.push(TurnMessage::StopRequested(conversation, *id));
        }
        let orphaned_for = log.orphaned_for();
        let is_due = turn
            .followed_sent_at
            .is_none_or(|last| last.elapsed() >= FOLLOWED_INTERVAL);
        if orphaned_for.is_none() && is_due {
            turn.followed_sent_at = Some(Instant::now());
            messages.push(TurnMessage::Followed(conversation, *id));
        }
        log.is_finished() || orphaned_for.is_some_and(|time| time >= REPLICA_TTL)
    });
    let released: Vec<_> = released.collect();
    drop(turns);
    released
        .into_iter()
        .for_each(|(_, turn)| release_replica(turn));
    messages
}

/// Ends a replica, and evicts its log a little later.
fn release_replica(turn: RemoteTurn) {
    let id = turn.replica.log().turn();
    drop(turn.replica);
    tokio::spawn(async move {
        sleep(REPLICA_TTL).await;
        turn.conversation.evict_log(id);
    });
}

/// Handles the messages of other instances.
async fn message_loop(deps: &TurnDeps, sharing: &TurnReplication) -> Infallible {
    let mut messages = sharing.streams.subscribe();
    let mut connection = 0;
    loop {
        let received = timeout(RENEW_INTERVAL, messages.next()).await;
        let current = sharing.streams.client().connection_number();
        // Messages may also have been lost before a new connection was made.
        let may_have_missed = matches!(received, Ok(Err(_)))
            || current != connection && sharing.streams.client().is_up();
        if may_have_missed {
            connection = current;
            for rooms in deps.conversations.all().chunks(CONVERSATIONS_PER_QUERY) {
                sharing.follow_remote_turns(rooms).await;
            }
        }
        if let Ok(Ok(message)) = received {
            handle_message(deps, sharing, message).await;
        }
    }
}

async fn handle_message(deps: &TurnDeps, sharing: &TurnReplication, message: TurnMessage) {
    let local_log = |turn: TurnId| {
        sharing
            .local_turns
            .lock()
            .get(&turn)
            .map(|turn| Arc::clone(&turn.log))
    };
    match message {
        TurnMessage::Started(conversation, turn) => {
            if let Some(room) = deps.conversations.get(conversation) {
                sharing.follow_remote(&room, turn).await;
            }
        }
        TurnMessage::StopRequested(_, turn) => {
            if let Some(log) = local_log(turn) {
                log.cancel(Cancel::Stopped);
            }
        }
        TurnMessage::Followed(_, turn) => {
            if let Some(log) = local_log(turn) {
                log.mark_followed();
            }
        }
        TurnMessage::FollowupReady(conversation, turn, late) => {
            if let Some(room) = deps.conversations.get(conversation) {
                room.publish_followup(turn, late);
            }
        }
    }
}

/// Ends the turns whose instance is gone. They are interrupted and get a follow-up.
async fn expire_loop(deps: &TurnDeps, sharing: &TurnReplication) -> Infallible {
    loop {
        sleep(RENEW_INTERVAL).await;
        for (conversation, turn) in sharing.streams.claim_expired().await.unwrap_or_default() {
            let is_local = sharing.local_turns.lock().contains_key(&turn);
            if !is_local
                && let Some(batch) = interrupt_turn(deps, sharing, conversation, turn).await
            {
                let _ = sharing.streams.append(&[batch]).await;
            }
        }
    }
}

/// Stores a turn as interrupted, unless it is known to have ended.
///
/// Returns the batch that ends it for the other instances, or `None` if the store failed. The next
/// check tries again then.
async fn interrupt_turn(
    deps: &TurnDeps,
    sharing: &TurnReplication,
    conversation: ConversationId,
    turn: TurnId,
) -> Option<FrameBatch> {
    let last_batch = |frames| FrameBatch {
        conversation,
        turn,
        frames,
        is_last: true,
    };
    let stored = deps.store.turn(conversation, turn).await.ok()?;
    let replica = sharing.load_replica(turn).await.map(|(replica, _)| replica);
    if replica
        .as_ref()
        .is_some_and(|replica| replica.log().is_finished())
    {
        return Some(last_batch(String::new()));
    }
    let done_frame = |record: &TurnRecord| {
        replica
            .as_ref()
            .map(|replica| encode_frame(&replica.done_frame(record)).to_string())
    };
    if let Some(stored) = stored
        .as_ref()
        .filter(|stored| stored.state == TurnState::Done)
    {
        // It ended while its instance could not publish the end.
        return Some(last_batch(done_frame(stored).unwrap_or_default()));
    }
    // The replica may have more text than the last checkpoint in the store.
    let replicated = replica.as_ref().map(|replica| replica.log().record());
    let Some(record) = replicated
        .or(stored.clone())
        .map(TurnRecord::into_interrupted)
    else {
        return Some(last_batch(String::new()));
    };
    let frames = done_frame(&record).unwrap_or_default();
    if stored.is_none() && has_other_turn(deps, conversation, &record).await? {
        return Some(last_batch(frames));
    }
    tracing::warn!(%turn, "instance of a running turn is gone, turn interrupted");
    let gets_followup = !record.client_msg_id.is_http_call();
    deps.store.write_turn(conversation, record).await.ok()?;
    // The follow-up is queued here before Redis learns of the end. After a crash in between, the
    // lease expires once more.
    if gets_followup {
        deps.followup_queue
            .take_over(&*deps.store, conversation, turn);
    }
    Some(last_batch(frames))
}

/// Returns `true` if the message of a turn that no disk has already has another turn.
///
/// This happens if the visitor was disconnected before the message was accepted, and sent it again
/// to an instance that did not know of this turn. It is one turn, not two. Returns `None` if the
/// store failed.
async fn has_other_turn(
    deps: &TurnDeps,
    conversation: ConversationId,
    turn: &TurnRecord,
) -> Option<bool> {
    let stored = deps
        .store
        .turn_by_message(conversation, turn.client_msg_id.clone())
        .await
        .ok()?;
    Some(stored.is_some_and(|stored| stored.turn != turn.turn))
}

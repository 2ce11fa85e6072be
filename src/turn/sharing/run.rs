//! The loops of turn replication: publish local turns, read remote ones, handle messages, and
//! interrupt turns whose instance is gone.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{Sharing, Theirs};
use crate::chat::{ConversationId, TurnId, TurnRecord, TurnState};
use crate::store::link::LinkError;
use crate::store::turns::{Batch, LEASE, Told};
use crate::turn::desk::Desk;
use crate::turn::log::{Cancel, encode};

/// The interval at which frames are written to and read from Redis.
const BATCH: Duration = Duration::from_millis(50);

/// The interval at which leases are renewed, and those of other instances checked.
const RENEW: Duration = Duration::from_secs(1);

/// The interval at which the answering instance is told that somebody here follows its turn.
const FOLLOWED: Duration = Duration::from_secs(10);

/// The time a replica is kept without followers, and its log after the end.
const STAYS: Duration = Duration::from_secs(5);

/// The maximum number of ended turns that wait for Redis to come back.
const WAITING: usize = 1024;

/// The number of conversations that one query covers.
const ROOMS: usize = 64;

/// Replicates turns for as long as the service runs. Returns at once without Redis.
pub async fn run(service: Arc<Desk>) {
    let Some(sharing) = service.sharing.clone() else {
        return;
    };
    let loops = futures_util::future::join4(
        tell(&sharing),
        read(&sharing),
        hear(&service, &sharing),
        end_lapsed(&service, &sharing),
    );
    loops.await;
}

/// Writes new frames of local turns to their streams.
async fn tell(sharing: &Sharing) -> Infallible {
    loop {
        sleep(BATCH).await;
        let (batches, ends) = batches(sharing);
        if batches.is_empty() {
            continue;
        }
        match sharing.turns.append(&batches).await {
            Ok(()) => {}
            // Sent again with the next batch. Frames that arrive twice do no harm.
            Err(LinkError::Away) => continue,
            // Redis rejected the call, for example because a key has an unexpected type. Other
            // instances get no frames, and read the ended turns from the store.
            Err(LinkError::Refused) => {
                sharing.ours().retain(|_, turn| !turn.log.ended());
                continue;
            }
        }
        let mut turns = sharing.ours();
        for (batch, end) in batches.iter().zip(ends) {
            if batch.ended {
                turns.remove(&batch.turn);
            } else if let Some(turn) = turns.get_mut(&batch.turn) {
                turn.told = end;
                turn.renewed = Some(Instant::now());
            }
        }
    }
}

/// Collects the new frames of local turns, and the number of each turn's last frame.
///
/// A turn without news gets an empty batch when its lease has to be renewed.
fn batches(sharing: &Sharing) -> (Vec<Batch>, Vec<u64>) {
    let is_up = sharing.turns.link().is_up();
    let mut turns = sharing.ours();
    // Without Redis, ended turns wait for it. If there are too many, others read them from the
    // store.
    let may_wait = turns.len() <= WAITING;
    turns.retain(|_, turn| is_up || may_wait || !turn.log.ended());
    let new = turns.iter().filter(|_| is_up).filter_map(|(id, turn)| {
        let batch = |frames, ended| Batch {
            conversation: turn.conversation,
            turn: *id,
            frames,
            ended,
        };
        if let Some((frames, end, ended)) = turn.log.news(turn.told) {
            return Some((batch(frames, ended), end));
        }
        let is_due = turn
            .renewed
            .is_none_or(|renewed| renewed.elapsed() >= RENEW);
        is_due.then(|| (batch(String::new(), false), turn.told))
    });
    new.unzip()
}

/// Reads new frames of the remote turns that somebody here follows.
async fn read(sharing: &Sharing) -> Infallible {
    let mut last_up = Instant::now();
    loop {
        sleep(BATCH).await;
        if sharing.theirs().is_empty() {
            continue;
        }
        if sharing.turns.link().is_up() {
            last_up = Instant::now();
        } else if last_up.elapsed() > LEASE {
            // Their fate is unknown, so they end here with the text received so far.
            sharing.theirs().drain().for_each(|(_, turn)| let_go(turn));
            continue;
        }
        let positions: Vec<_> = sharing
            .theirs()
            .iter()
            .map(|(id, turn)| (*id, turn.place.clone()))
            .collect();
        for (id, parts) in sharing.turns.news(&positions).await.unwrap_or_default() {
            if let Some(turn) = sharing.theirs().get_mut(&id) {
                for (position, lines) in parts {
                    turn.mirror.take(&lines);
                    turn.place = position;
                }
            }
        }
        for message in wishes(sharing) {
            sharing.turns.tell(&message).await;
        }
    }
}

/// Collects the messages for the instances that answer remote turns: stop, or somebody follows.
/// Releases the replicas that have ended or that nobody follows.
fn wishes(sharing: &Sharing) -> Vec<Told> {
    let mut messages = Vec::new();
    let mut turns = sharing.theirs();
    let released = turns.extract_if(|id, turn| {
        let log = turn.mirror.log();
        let conversation = turn.room.id();
        if !turn.stopped && log.told_to_end() == Some(Cancel::Stopped) {
            turn.stopped = true;
            messages.push(Told::Stop(conversation, *id));
        }
        let orphaned_for = log.alone_for();
        let is_due = turn.followed.is_none_or(|last| last.elapsed() >= FOLLOWED);
        if orphaned_for.is_none() && is_due {
            turn.followed = Some(Instant::now());
            messages.push(Told::Followed(conversation, *id));
        }
        log.ended() || orphaned_for.is_some_and(|time| time >= STAYS)
    });
    let released: Vec<_> = released.collect();
    drop(turns);
    released.into_iter().for_each(|(_, turn)| let_go(turn));
    messages
}

/// Ends a replica, and evicts its log a little later.
fn let_go(turn: Theirs) {
    let Theirs { room, mirror, .. } = turn;
    let turn = mirror.log().turn();
    drop(mirror);
    tokio::spawn(async move {
        sleep(STAYS).await;
        room.drop_log(turn);
    });
}

/// Handles the messages of other instances.
async fn hear(service: &Arc<Desk>, sharing: &Sharing) -> Infallible {
    let mut messages = sharing.turns.hear();
    let mut connection = 0;
    loop {
        let received = timeout(RENEW, messages.next()).await;
        let current = sharing.turns.link().connection();
        // Messages may also have been lost before a new connection was made.
        let may_have_missed =
            matches!(received, Ok(Err(_))) || current != connection && sharing.turns.link().is_up();
        if may_have_missed {
            connection = current;
            for rooms in service.rooms.all().chunks(ROOMS) {
                sharing.look(rooms).await;
            }
        }
        if let Ok(Ok(message)) = received {
            obey(service, sharing, message).await;
        }
    }
}

async fn obey(service: &Desk, sharing: &Sharing, message: Told) {
    let local_log = |turn: TurnId| sharing.ours().get(&turn).map(|turn| Arc::clone(&turn.log));
    match message {
        Told::Opened(conversation, turn) => {
            if let Some(room) = service.rooms.find(conversation) {
                sharing.follow(&room, turn).await;
            }
        }
        Told::Stop(_, turn) => {
            if let Some(log) = local_log(turn) {
                log.cancel(Cancel::Stopped);
            }
        }
        Told::Followed(_, turn) => {
            if let Some(log) = local_log(turn) {
                log.touch();
            }
        }
        Told::Late(conversation, turn, late) => {
            if let Some(room) = service.rooms.find(conversation) {
                room.follow_up(turn, late);
            }
        }
    }
}

/// Ends the turns whose instance is gone. They are interrupted and get a follow-up.
async fn end_lapsed(service: &Arc<Desk>, sharing: &Sharing) -> Infallible {
    loop {
        sleep(RENEW).await;
        for (conversation, turn) in sharing.turns.lapsed().await.unwrap_or_default() {
            let is_local = sharing.ours().contains_key(&turn);
            if !is_local && let Some(batch) = interrupt(service, sharing, conversation, turn).await
            {
                let _ = sharing.turns.append(&[batch]).await;
            }
        }
    }
}

/// Stores a turn as interrupted, unless it is known to have ended.
///
/// Returns the batch that ends it for the other instances, or `None` if the store failed. The next
/// check tries again then.
async fn interrupt(
    service: &Arc<Desk>,
    sharing: &Sharing,
    conversation: ConversationId,
    turn: TurnId,
) -> Option<Batch> {
    let last_batch = |frames| Batch {
        conversation,
        turn,
        frames,
        ended: true,
    };
    let stored = service.store.turn(conversation, turn).await.ok()?;
    let replica = sharing.mirror(turn).await.map(|(replica, _)| replica);
    if replica
        .as_ref()
        .is_some_and(|replica| replica.log().ended())
    {
        return Some(last_batch(String::new()));
    }
    let done_frame = |record: &TurnRecord| {
        replica
            .as_ref()
            .map(|replica| encode(&replica.last(record)).to_string())
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
    let Some(record) = replicated.or(stored.clone()).map(TurnRecord::interrupted) else {
        return Some(last_batch(String::new()));
    };
    let frames = done_frame(&record).unwrap_or_default();
    if stored.is_none() && is_asked_again(service, conversation, &record).await? {
        return Some(last_batch(frames));
    }
    tracing::warn!(%turn, "instance of a running turn is gone, turn interrupted");
    let gets_followup = !record.client_msg_id.is_of_call();
    service.store.write_turn(conversation, record).await.ok()?;
    // The follow-up is queued here before Redis learns of the end. After a crash in between, the
    // lease expires once more.
    if gets_followup {
        service.outbox.adopt(service, conversation, turn);
    }
    Some(last_batch(frames))
}

/// Returns `true` if the message of a turn that no disk has already has another turn.
///
/// This happens if the visitor was disconnected before the message was accepted, and sent it again
/// to an instance that did not know of this turn. It is one turn, not two. Returns `None` if the
/// store failed.
async fn is_asked_again(
    service: &Desk,
    conversation: ConversationId,
    turn: &TurnRecord,
) -> Option<bool> {
    let stored = service
        .store
        .turn_of(conversation, turn.client_msg_id.clone())
        .await
        .ok()?;
    Some(stored.is_some_and(|stored| stored.turn != turn.turn))
}

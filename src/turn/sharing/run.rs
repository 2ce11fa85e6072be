//! The loops that keep what is shared of turns: telling of ours, reading of theirs, hearing what is asked, ending what nobody ends.

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

/// How often frames are told and read.
const BATCH: Duration = Duration::from_millis(50);

/// How often leases are renewed, and those of others looked at.
const RENEW: Duration = Duration::from_secs(1);

/// How often the answerer of a turn is told that it is followed here.
const FOLLOWED: Duration = Duration::from_secs(10);

/// How long a turn of others is kept that nobody here follows, and how long one that ended.
const STAYS: Duration = Duration::from_secs(5);

/// Turns of ours that wait to be told when Redis is back.
const WAITING: usize = 1024;

/// Rooms that are looked at together.
const ROOMS: usize = 64;

/// Shares turns with other instances, for as long as the service runs.
pub async fn run(desk: Arc<Desk>) {
    let Some(sharing) = desk.sharing.clone() else {
        return;
    };
    let loops = futures_util::future::join4(
        tell(&sharing),
        read(&sharing),
        hear(&desk, &sharing),
        end_lapsed(&desk, &sharing),
    );
    loops.await;
}

/// Tells the others what is new of our turns.
async fn tell(sharing: &Sharing) -> Infallible {
    loop {
        sleep(BATCH).await;
        let (batches, told) = batches(sharing);
        if batches.is_empty() {
            continue;
        }
        match sharing.turns.append(&batches).await {
            Ok(()) => {}
            // Told again with the next batch: what was told already does no harm.
            Err(LinkError::Away) => continue,
            // Something else is under our keys: the others see no frames, and what ended is told by the store.
            Err(LinkError::Refused) => {
                sharing.ours().retain(|_, one| !one.log.ended());
                continue;
            }
        }
        let mut ours = sharing.ours();
        for (batch, told) in batches.iter().zip(told) {
            if batch.ended {
                ours.remove(&batch.turn);
            } else if let Some(one) = ours.get_mut(&batch.turn) {
                one.told = told;
                one.renewed = Some(Instant::now());
            }
        }
    }
}

/// What is new of our turns, and the last frame of each.
fn batches(sharing: &Sharing) -> (Vec<Batch>, Vec<u64>) {
    let up = sharing.turns.link().is_up();
    let mut ours = sharing.ours();
    // Alone, what ended waits to be told, but for too many; those are told by the store.
    let few = ours.len() <= WAITING;
    ours.retain(|_, one| up || few || !one.log.ended());
    let new = ours.iter().filter(|_| up).filter_map(|(turn, one)| {
        let (conversation, turn) = (one.conversation, *turn);
        if let Some((frames, told, ended)) = one.log.news(one.told) {
            return Some((
                Batch {
                    conversation,
                    turn,
                    frames,
                    ended,
                },
                told,
            ));
        }
        let due = one.renewed.is_none_or(|renewed| renewed.elapsed() >= RENEW);
        due.then(|| {
            (
                Batch {
                    conversation,
                    turn,
                    frames: String::new(),
                    ended: false,
                },
                one.told,
            )
        })
    });
    new.unzip()
}

/// Reads what is new of others' turns that somebody here follows.
async fn read(sharing: &Sharing) -> Infallible {
    let mut up = Instant::now();
    loop {
        sleep(BATCH).await;
        if sharing.theirs().is_empty() {
            continue;
        }
        if sharing.turns.link().is_up() {
            up = Instant::now();
        } else if up.elapsed() > LEASE {
            // Nobody knows what becomes of them: here they end with what was seen.
            sharing.theirs().drain().for_each(|(_, one)| let_go(one));
            continue;
        }
        let after: Vec<_> = sharing
            .theirs()
            .iter()
            .map(|(turn, one)| (*turn, one.place.clone()))
            .collect();
        for (turn, parts) in sharing.turns.news(&after).await.unwrap_or_default() {
            if let Some(one) = sharing.theirs().get_mut(&turn) {
                for (place, lines) in parts {
                    one.mirror.take(&lines);
                    one.place = place;
                }
            }
        }
        for told in wishes(sharing) {
            sharing.turns.tell(&told).await;
        }
    }
}

/// What is to be told of others' turns: that they are followed, or to be stopped. Those that ended, or that nobody follows, are let go.
fn wishes(sharing: &Sharing) -> Vec<Told> {
    let mut told = Vec::new();
    let mut theirs = sharing.theirs();
    let over = theirs.extract_if(|turn, one| {
        let (log, conversation) = (one.mirror.log(), one.room.id());
        if !one.stopped && log.told_to_end() == Some(Cancel::Stopped) {
            one.stopped = true;
            told.push(Told::Stop(conversation, *turn));
        }
        let alone = log.alone_for();
        if alone.is_none() && one.followed.is_none_or(|last| last.elapsed() >= FOLLOWED) {
            one.followed = Some(Instant::now());
            told.push(Told::Followed(conversation, *turn));
        }
        log.ended() || alone.is_some_and(|alone| alone >= STAYS)
    });
    let over: Vec<_> = over.collect();
    drop(theirs);
    over.into_iter().for_each(|(_, one)| let_go(one));
    told
}

/// A mirror ends, and its log is dropped a little later.
fn let_go(one: Theirs) {
    let Theirs { room, mirror, .. } = one;
    let turn = mirror.log().turn();
    drop(mirror);
    tokio::spawn(async move {
        sleep(STAYS).await;
        room.drop_log(turn);
    });
}

/// Does what other instances ask, and shows what they tell.
async fn hear(desk: &Arc<Desk>, sharing: &Sharing) -> Infallible {
    let mut heard = sharing.turns.hear();
    let mut connection = 0;
    loop {
        let told = timeout(RENEW, heard.next()).await;
        let present = sharing.turns.link().connection();
        // Over a new connection something may have been missed as well.
        let missed =
            matches!(told, Ok(Err(_))) || present != connection && sharing.turns.link().is_up();
        if missed {
            connection = present;
            for rooms in desk.rooms.all().chunks(ROOMS) {
                sharing.look(rooms).await;
            }
        }
        if let Ok(Ok(told)) = told {
            obey(desk, sharing, told).await;
        }
    }
}

async fn obey(desk: &Desk, sharing: &Sharing, told: Told) {
    let ours = |turn: TurnId| sharing.ours().get(&turn).map(|one| Arc::clone(&one.log));
    match told {
        Told::Opened(conversation, turn) => {
            if let Some(room) = desk.rooms.find(conversation) {
                sharing.follow(&room, turn).await;
            }
        }
        Told::Stop(_, turn) => {
            if let Some(log) = ours(turn) {
                log.cancel(Cancel::Stopped);
            }
        }
        Told::Followed(_, turn) => {
            if let Some(log) = ours(turn) {
                log.touch();
            }
        }
        Told::Late(conversation, turn, late) => {
            if let Some(room) = desk.rooms.find(conversation) {
                room.follow_up(turn, late);
            }
        }
    }
}

/// Ends the turns whose instance is gone: interrupted, with what was told of them, to be answered late.
async fn end_lapsed(desk: &Arc<Desk>, sharing: &Sharing) -> Infallible {
    loop {
        sleep(RENEW).await;
        for (conversation, turn) in sharing.turns.lapsed().await.unwrap_or_default() {
            let lives = sharing.ours().contains_key(&turn);
            if !lives && let Some(batch) = interrupt(desk, sharing, conversation, turn).await {
                let _ = sharing.turns.append(&[batch]).await;
            }
        }
    }
}

/// Writes one as interrupted, unless it is known to have ended. Gives what is to be told; none where the store does not work: later.
async fn interrupt(
    desk: &Arc<Desk>,
    sharing: &Sharing,
    conversation: ConversationId,
    turn: TurnId,
) -> Option<Batch> {
    let over = |frames| Batch {
        conversation,
        turn,
        frames,
        ended: true,
    };
    let known = desk.store.turn(conversation, turn).await.ok()?;
    let mirror = sharing.mirror(turn).await.map(|(mirror, _)| mirror);
    if mirror.as_ref().is_some_and(|mirror| mirror.log().ended()) {
        return Some(over(String::new()));
    }
    let last = |record: &TurnRecord| {
        mirror
            .as_ref()
            .map(|mirror| encode(&mirror.last(record)).to_string())
    };
    if let Some(known) = known
        .as_ref()
        .filter(|known| known.state == TurnState::Done)
    {
        // It ended while nobody could be told.
        return Some(over(last(known).unwrap_or_default()));
    }
    let told = mirror.as_ref().map(|mirror| mirror.log().record());
    let Some(record) = told.or(known.clone()).map(TurnRecord::interrupted) else {
        return Some(over(String::new()));
    };
    let frames = last(&record).unwrap_or_default();
    if known.is_none() && is_asked_again(desk, conversation, &record).await? {
        return Some(over(frames));
    }
    tracing::warn!(%turn, "the instance that answered a turn is gone; it is interrupted");
    let owed = !record.client_msg_id.is_of_call();
    desk.store.write_turn(conversation, record).await.ok()?;
    // It is here now, so it is asked for whatever becomes of Redis. A crash before this leaves the lease to lapse once more.
    if owed {
        desk.outbox.adopt(desk, conversation, turn);
    }
    Some(over(frames))
}

/// Whether the message of a turn that is on no disk has another turn: who sent it was cut off before it was accepted, and sent it again to an
/// instance that could not know of this one. It is that turn, and not two. None where the store does not work.
async fn is_asked_again(
    desk: &Desk,
    conversation: ConversationId,
    turn: &TurnRecord,
) -> Option<bool> {
    let kept = desk
        .store
        .turn_of(conversation, turn.client_msg_id.clone())
        .await
        .ok()?;
    Some(kept.is_some_and(|kept| kept.turn != turn.turn))
}

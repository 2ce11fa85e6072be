//! Conversations are kept for so long after their last turn (`chat.retention`); then they are forgotten, from the store, the saved answers and the outbox.
//!
//! The work of a step is bounded, and so is that of a day: a pass over all conversations begins at a tenth of the time that they are kept, once in ten
//! minutes at most, and goes through them a few at a time.

use std::sync::Arc;
use std::time::Duration;

use super::desk::Desk;
use super::forget::forget;
use crate::chat::{At, ConversationId};
use crate::store::Idle;

/// How many conversations are looked at in a step.
const LOOK: usize = 500;

/// The time from one step of a pass to the next.
const STEP: Duration = Duration::from_secs(1);

/// The times between two passes: short for what is kept shortly.
const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(10 * 60);

/// How long the store may take to look.
const LIMIT: Duration = Duration::from_secs(5);

/// Forgets what is old, for ever.
pub async fn retain(desk: Arc<Desk>) {
    let mut published = desk.published.clone();
    let mut after = None;
    let mut gone = 0;
    loop {
        let kept = desk.table().settings.chat.retention;
        let pause = if after.is_some() {
            STEP
        } else {
            (kept / 10).clamp(LEAST, MOST)
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // They may be kept for another time from now on.
            Ok(()) = published.changed() => continue,
        }
        let kept = desk.table().settings.chat.retention;
        let before = desk.clock.wall().minus(kept);
        let (next, forgotten) = step(&desk, before, after).await;
        (after, gone) = (next, gone + forgotten);
        if after.is_none() && gone > 0 {
            tracing::info!(
                conversations = gone,
                "conversations older than chat.retention were forgotten"
            );
            gone = 0;
        }
    }
}

/// Looks at the conversations that come next and forgets those whose last turn was before `before`. Gives where to go on, none at the end, and how
/// many were forgotten. A store that does not answer ends the pass.
async fn step(
    desk: &Desk,
    before: At,
    after: Option<ConversationId>,
) -> (Option<ConversationId>, usize) {
    let look = desk.store.idle(before, after, LOOK);
    let Ok(Ok(Idle { found, next })) = tokio::time::timeout(LIMIT, look).await else {
        return (None, 0);
    };
    let mut gone = 0;
    for id in found {
        // What was asked just now may not be in the store yet.
        let busy = desk
            .rooms
            .find(id)
            .is_some_and(|room| !room.logs().is_empty());
        if !busy && forget(desk, id).await.is_ok() {
            gone += 1;
        }
    }
    (next, gone)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::provider::paused::{Paused, pass};
    use crate::provider::scripted::says;
    use crate::store::Store as _;
    use crate::store::flaky::Trouble;
    use crate::turn::reader::Reader;
    use crate::turn::stage::{House, conversation};

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[actix_rt::test(system = "Paused")]
    async fn what_is_older_than_it_is_kept_goes_and_the_rest_stays() {
        let stage = House::following([vec![says("Hello.")]]).open();
        // Turns of 1970; and one of now, by the wall clock.
        stage.remember(3).await;
        let room = stage.desk.rooms.enter(conversation(2));
        let question = crate::turn::stage::question("m", "What is new?");
        let log = stage.desk.open(&room, question, stage.desk.usual());
        let log = log.unwrap_or_else(|_| panic!("refused"));
        assert_eq!(Reader::follow(&log).await.done().text, "Hello.");
        stage.reload(|settings| settings.chat.retention = DAY);
        stage.store.set(Trouble::Fails);
        actix::spawn(retain(Arc::clone(&stage.desk)));
        pass(MOST + STEP).await;
        stage.store.set(Trouble::None);
        let turns = async |n| {
            stage
                .store
                .turns(conversation(n), None, 9)
                .await
                .unwrap()
                .len()
        };
        assert_eq!(
            (turns(1).await, turns(2).await),
            (3, 1),
            "a store that fails loses nothing"
        );
        pass(MOST + STEP).await;
        assert_eq!((turns(1).await, turns(2).await), (0, 1));
    }

    #[actix_rt::test(system = "Paused")]
    async fn a_pass_goes_through_all_of_them_in_bounded_steps() {
        let stage = House::following([vec![]]).open();
        let all = LOOK + 7;
        for n in 0..all {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
            let turn = crate::chat::TurnId::after(None, 5, 0);
            let record = crate::chat::TurnRecord::asked(
                turn,
                "m".parse().unwrap(),
                At(5),
                "q".to_owned(),
                None,
            );
            stage
                .store
                .write_turn(ConversationId::from_random(bytes), record)
                .await
                .unwrap();
        }
        let (next, gone) = step(&stage.desk, At(6), None).await;
        assert_eq!((next.is_some(), gone), (true, LOOK));
        assert_eq!(step(&stage.desk, At(6), next).await, (None, 7));
        assert_eq!(step(&stage.desk, At(6), None).await, (None, 0));
    }
}

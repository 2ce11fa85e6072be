//! The contract for updates of ended turns and for pending follow-ups.

use super::{completed, conversation, turn, turn_id};
use crate::domain::{
    ConversationId, Feedback, Followup, Timestamp, TurnId, TurnRecord, TurnUpdate,
};
use crate::store::Store;

fn followup(text: &str) -> TurnUpdate {
    TurnUpdate::Followup(Followup {
        text: text.into(),
        provider: "p".into(),
        model: "m".into(),
        at: Timestamp(9),
    })
}

pub(super) async fn update_turn_changes_only_its_field(store: &dyn Store) {
    let id = conversation(1);
    store
        .update_turn(id, turn_id(5), followup("late"))
        .await
        .unwrap();
    store
        .update_turn(id, turn_id(5), TurnUpdate::Feedback(Feedback::Up))
        .await
        .unwrap();
    assert_eq!(
        store.turns(id, None, 9).await,
        Ok(vec![]),
        "an update creates no turn"
    );
    let ended = completed(turn(5, "m", "what?"), "that");
    // The updates apply in the order of the calls, though only the last is awaited.
    drop(store.write_turn(id, ended.clone()));
    drop(store.update_turn(id, turn_id(5), TurnUpdate::Feedback(Feedback::Up)));
    drop(store.update_turn(id, turn_id(5), followup("late")));
    store
        .update_turn(id, turn_id(5), TurnUpdate::Feedback(Feedback::Down))
        .await
        .unwrap();
    let found = store.turn(id, turn_id(5)).await.unwrap().unwrap();
    let text = found.followup.clone().unwrap().text;
    assert_eq!(
        (text.as_str(), found.feedback),
        ("late", Some(Feedback::Down))
    );
    assert_eq!(
        TurnRecord {
            followup: None,
            feedback: None,
            ..found
        },
        ended
    );
}

pub(super) async fn first_followup_wins(store: &dyn Store) {
    let id = conversation(1);
    store
        .write_turn(id, completed(turn(5, "m", "what?"), "that"))
        .await
        .unwrap();
    for text in ["first", "second"] {
        store
            .update_turn(id, turn_id(5), followup(text))
            .await
            .unwrap();
        let found = store.turn(id, turn_id(5)).await.unwrap().unwrap();
        assert_eq!(found.followup.unwrap().text, "first");
    }
}

pub(super) async fn pending_followups_are_listed_oldest_first(store: &dyn Store) {
    assert_eq!(store.pending_followups().await, Ok(vec![]));
    for (n, ms) in [(2, 7), (1, 9), (1, 5), (3, 6), (1, 5)] {
        store
            .set_followup_pending(conversation(n), turn_id(ms), true)
            .await
            .unwrap();
    }
    let pending =
        async || -> Vec<(ConversationId, TurnId)> { store.pending_followups().await.unwrap() };
    let all = [(1, 5), (3, 6), (2, 7), (1, 9)].map(|(n, ms)| (conversation(n), turn_id(ms)));
    assert_eq!(pending().await, all);
    // A mark goes with a follow-up, with an explicit reset and with the conversation.
    store
        .write_turn(conversation(1), completed(turn(5, "m", "what?"), "that"))
        .await
        .unwrap();
    store
        .update_turn(
            conversation(1),
            turn_id(5),
            TurnUpdate::Feedback(Feedback::Up),
        )
        .await
        .unwrap();
    assert_eq!(pending().await, all);
    store
        .update_turn(conversation(1), turn_id(5), followup("late"))
        .await
        .unwrap();
    assert_eq!(pending().await, all[1..]);
    store
        .set_followup_pending(conversation(3), turn_id(6), false)
        .await
        .unwrap();
    store.delete_conversation(conversation(2)).await.unwrap();
    assert_eq!(pending().await, all[3..]);
}

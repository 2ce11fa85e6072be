//! The `attempt` and `restart` frames between attempts.

use super::*;
use crate::domain::{Frame, PreviousFailure};

/// Describes each `attempt` and `restart` frame in one line.
fn transitions(reader: &ProtocolClient) -> Vec<String> {
    let lines = reader.frames.iter().filter_map(|frame| match frame {
        Frame::Attempt {
            attempt,
            provider,
            after,
            ..
        } => {
            let after = after.as_ref().map(|PreviousFailure { provider, reason }| {
                format!("{provider} {}", reason.as_str())
            });
            Some(format!(
                "{attempt} {provider} after {}",
                after.unwrap_or("nobody".to_owned())
            ))
        }
        Frame::Restart {
            attempt,
            from,
            to,
            reason,
            ..
        } => {
            let to = to.as_deref().unwrap_or("nobody");
            Some(format!(
                "restart {attempt} from {from} to {to}: {}",
                reason.as_str()
            ))
        }
        _ => None,
    });
    lines.collect()
}

#[actix_rt::test(system = "Paused")]
async fn restart_has_the_reason_of_the_failure_that_broke_the_text() {
    let scripts = [
        vec![break_after("Hello, you.", FaultKind::Reset)],
        vec![break_after("Hello", FaultKind::ServerError)],
        vec![reply("Good day.")],
    ];
    let reader = first_answer(TestServiceBuilder::with_scripts(scripts)).await;
    assert_eq!(
        transitions(&reader),
        [
            "1 a after nobody",
            "2 b after a reset",
            "3 c after b server_error",
            "restart 3 from a to c: reset",
        ]
    );
    assert_eq!(reader.drafts, [("a".into(), "Hello, you.".to_owned())]);
}

#[actix_rt::test(system = "Paused")]
async fn each_restart_has_its_own_reason() {
    let scripts = [
        vec![break_after("One.", FaultKind::Truncated)],
        vec![break_after("Two.", FaultKind::Malformed)],
        vec![break_after("Two. And more.", FaultKind::Overloaded)],
        vec![fail_with(FaultKind::Timeout)],
    ];
    let reader = first_answer(TestServiceBuilder::with_scripts(scripts)).await;
    assert_eq!(
        transitions(&reader),
        [
            "1 a after nobody",
            "2 b after a truncated",
            "restart 2 from a to b: truncated",
            "3 c after b malformed",
            "4 d after c overloaded",
            "restart 0 from c to nobody: overloaded",
        ]
    );
    let drafts: Vec<_> = reader
        .done()
        .drafts
        .iter()
        .map(|draft| (draft.attempt, &*draft.text))
        .collect();
    assert_eq!(drafts, [(1, "One."), (3, "Two. And more.")]);
    assert_fallback(&reader);
}

#[actix_rt::test(system = "Paused")]
async fn answer_shorter_than_the_shown_text_restarts() {
    let reader = first_answer(TestServiceBuilder::with_scripts([
        vec![break_after("Hello, you there", FaultKind::Reset)],
        vec![reply("Hello")],
    ]))
    .await;
    assert_eq!(transitions(&reader)[2..], ["restart 2 from a to b: reset"]);
    assert_answered(&reader, "b", "Hello");
}

#[actix_rt::test(system = "Paused")]
async fn refusal_after_shown_text_restarts() {
    let scripts = [
        vec![break_after("Hello", FaultKind::Reset)],
        vec![fail_with(FaultKind::Policy)],
    ];
    let reader = first_answer(TestServiceBuilder::with_scripts(scripts)).await;
    assert_eq!(transitions(&reader)[2..], ["restart 2 from a to b: reset"]);
    assert_eq!(
        (reader.done().finish, reader.done().provider.as_deref()),
        (FinishReason::ContentFilter, Some("b"))
    );
}

#[actix_rt::test(system = "Paused")]
async fn multibyte_characters_are_never_split() {
    let scripts = [
        vec![break_after("Füchse 狐", FaultKind::Reset)],
        vec![vec![
            say("Fü"),
            ScriptStep::Pause(ms(1)),
            say("chse 狸!"),
            end(),
        ]],
    ];
    let reader = first_answer(TestServiceBuilder::with_scripts(scripts)).await;
    assert_answered(&reader, "b", "Füchse 狸!");
}

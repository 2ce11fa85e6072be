//! The guarantees of the text that a turn shows.

use super::super::*;
use super::rules::question_messages;
use crate::domain::{AttemptSummary, Done, Frame};
use crate::provider::scripted_client::RecordedCall;
use crate::turn::attempt::CONTENT_FILTER_TEXT;

/// The shown text is always a prefix of what one attempt said, or the previous text plus a part of
/// what the current attempt said. At the end it is all that the attempt said.
pub fn check_text(reader: &ProtocolClient, done: &Done, calls: &[RecordedCall]) {
    let mut client = ProtocolClient::default();
    // The text shown when the current attempt started.
    let mut before = String::new();
    let said = |attempt: u32| {
        attempt
            .checked_sub(1)
            .map_or(FALLBACK_TEXT, |index| &*calls[index as usize].text)
    };
    let fits = |text: &str, attempt: u32, before: &str| {
        let more = text
            .strip_prefix(before)
            .filter(|more| is_continuation(calls, attempt) && said(attempt).contains(more));
        said(attempt).starts_with(text) || more.is_some() || text == CONTENT_FILTER_TEXT
    };
    for frame in &reader.frames {
        client.apply(frame.clone());
        match frame {
            Frame::Attempt { .. } => before.clone_from(&client.text),
            Frame::Token { attempt, .. } => {
                assert!(
                    fits(&client.text, *attempt, &before),
                    "mixed: {:?}",
                    client.text
                );
            }
            Frame::Snapshot { .. } => before.clone_from(&client.text),
            _ => {}
        }
    }
    // At most one attempt succeeded, but it need not be the last: it may have won a race.
    let succeeded: Vec<_> = done
        .tried
        .iter()
        .filter(|attempt| attempt.outcome.as_str() == "ok")
        .collect();
    let winner = succeeded.last().map_or(0, |attempt| attempt.attempt);
    let assert_winner = |succeeded: &[&AttemptSummary]| {
        assert!(succeeded.len() == 1 && done.provider == Some(Arc::clone(&succeeded[0].provider)));
    };
    match (done.source, done.finish) {
        (AnswerSource::Ai, FinishReason::Stop | FinishReason::Length) => {
            assert_winner(&succeeded);
            let whole = said(winner);
            let more = done.text.strip_prefix(&*before);
            let continued =
                is_continuation(calls, winner) && more.is_some_and(|more| whole.ends_with(more));
            assert!(
                done.text == whole || continued,
                "incomplete: {:?} of {whole:?}",
                done.text
            );
            assert!(!done.text.trim().is_empty());
        }
        (AnswerSource::Ai, FinishReason::ContentFilter) => assert_winner(&succeeded),
        (AnswerSource::Ai, FinishReason::Stopped | FinishReason::Interrupted) => {
            assert_eq!(winner, 0)
        }
        _ => {
            assert_fallback(reader);
            assert_eq!(winner, 0);
        }
    }
    let shown = !done.text.is_empty() && !done.degraded || !done.drafts.is_empty();
    assert_eq!(done.first_token_ms.is_some(), shown);
}

/// Returns `true` if this attempt was asked to continue the shown text.
fn is_continuation(calls: &[RecordedCall], attempt: u32) -> bool {
    attempt.checked_sub(1).is_some_and(|index| {
        question_messages(&calls[index as usize]).len()
            < calls[index as usize].request.messages.len()
    })
}

//! The timing of a streamed response's headers and comments, on a paused clock.

use std::pin::pin;

use actix_web::body;
use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::*;
use crate::domain::{ClientMsgId, Failure, FaultKind, Timestamp, TurnId, TurnState};
use crate::turn::log::LogWriter;
use crate::turn::merge::ContinuationMode;

/// Starts a turn, and returns what its response needs.
fn turn() -> (LogWriter, Arc<TurnLog>, Follower, ResponseBuilder) {
    let turn = TurnId::next_after(None, 1, 2);
    let record = TurnRecord::new(
        turn,
        ClientMsgId::for_turn(turn),
        Timestamp(5000),
        "q".into(),
        None,
    );
    let writer = LogWriter::without_frames(record, true);
    let log = Arc::clone(writer.log());
    LogWriter::release(&log, false);
    let follower = log.follow();
    let shape = ResponseBuilder::new(&log, 0, false);
    (writer, log, follower, shape)
}

fn write_text(writer: &mut LogWriter, text: &str) {
    writer.start_attempt(1, "alpha".into(), "model".into(), ContinuationMode::Restart);
    assert!(writer.push_text(text));
}

fn end(writer: LogWriter, finish: FinishReason) {
    let record = writer.final_record(|record| {
        record.state = TurnState::Done;
        record.source = Some(AnswerSource::Ai);
        record.finish = Some(finish);
    });
    writer.finish(record);
}

fn seconds_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64().round()
}

#[tokio::test(start_paused = true)]
async fn comments_are_sent_while_no_text_arrives() {
    let (mut writer, log, follower, shape) = turn();
    let mut chunks = pin!(ChunkStream::new(log, follower, shape).into_stream());
    let started = Instant::now();
    for beat in 1..=3 {
        assert_eq!(chunks.next().await.unwrap().unwrap(), ": keep-alive\n\n");
        assert_eq!(seconds_since(started), f64::from(10 * beat));
    }
    write_text(&mut writer, "Well, ");
    let chunk = String::from_utf8(chunks.next().await.unwrap().unwrap().to_vec()).unwrap();
    assert!(
        chunk.contains(r#""role":"assistant""#) && chunk.contains("Well, "),
        "{chunk}"
    );
    assert_eq!(seconds_since(started), 30.0);
    // Also between two texts.
    assert_eq!(chunks.next().await.unwrap().unwrap(), ": keep-alive\n\n");
    assert_eq!(seconds_since(started), 40.0);
    end(writer, FinishReason::Stop);
    let rest: Vec<_> = chunks
        .map(|chunk| String::from_utf8(chunk.unwrap().to_vec()).unwrap())
        .collect()
        .await;
    assert!(rest[0].contains(r#""finish_reason":"stop""#), "{rest:?}");
    assert_eq!((rest.len(), rest[1].as_str()), (2, "data: [DONE]\n\n"));
}

#[tokio::test(start_paused = true)]
async fn headers_wait_for_the_first_text_up_to_eight_seconds() {
    let (mut writer, log, follower, shape) = turn();
    let started = Instant::now();
    let first_text = async {
        tokio::time::advance(Duration::from_secs(3)).await;
        write_text(&mut writer, "Well, ");
    };
    let (response, ()) = tokio::join!(respond_stream(log, follower, shape, || None), first_text);
    assert_eq!(seconds_since(started), 3.0);
    assert_eq!(response.headers().get("x-provider").unwrap(), "alpha");

    let (_writer, log, follower, shape) = turn();
    let started = Instant::now();
    let response = respond_stream(log, follower, shape, || None).await;
    assert_eq!(
        (seconds_since(started), response.status()),
        (8.0, StatusCode::OK)
    );
    assert_eq!(
        response.headers().get("content-type").unwrap(),
        "text/event-stream; charset=utf-8"
    );
}

#[tokio::test(start_paused = true)]
async fn failure_without_text_is_a_status_before_the_headers_and_an_event_after_them() {
    let fail = |writer: &mut LogWriter| {
        writer.start_attempt(1, "alpha".into(), "model".into(), ContinuationMode::Restart);
        writer.fail_attempt(
            "alpha".into(),
            Failure::with_detail(FaultKind::BadRequest, "messages are too few"),
        );
    };
    let (mut writer, log, follower, shape) = turn();
    fail(&mut writer);
    end(writer, FinishReason::Interrupted);
    let response = respond_stream(log, follower, shape, || None).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);

    let (mut writer, log, follower, shape) = turn();
    let response = respond_stream(log, follower, shape, || None).await;
    fail(&mut writer);
    end(writer, FinishReason::Interrupted);
    let text = body::to_bytes(response.into_body()).await.ok().unwrap();
    let text = std::str::from_utf8(&text).unwrap();
    assert!(
        text.contains("messages are too few") && text.contains("invalid_request_error"),
        "{text}"
    );
    assert!(!text.contains("[DONE]"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn shutdown_is_reported_as_a_restart_of_the_service() {
    let (writer, log, follower, shape) = turn();
    log.cancel(crate::turn::log::Cancel::Interrupted);
    end(writer, FinishReason::Interrupted);
    let response = respond_stream(log, follower, shape, || None).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers().get("retry-after").unwrap(), "2");
    let text = body::to_bytes(response.into_body()).await.ok().unwrap();
    assert!(
        std::str::from_utf8(&text).unwrap().contains("restarting"),
        "{text:?}"
    );
}

//! When the head and the comments of a streamed answer go out, on a clock that stands still.

use std::pin::pin;

use actix_web::body;
use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::*;
use crate::chat::{At, ClientMsgId, Failure, Fault, TurnId, TurnState};
use crate::turn::log::LogWriter;
use crate::turn::seam::Start;

/// A turn under way, and what its answer is made of.
fn turn() -> (LogWriter, Arc<TurnLog>, Follower, Shape) {
    let turn = TurnId::after(None, 1, 2);
    let record = TurnRecord::asked(turn, ClientMsgId::of_turn(turn), At(5000), "q".into(), None);
    let writer = LogWriter::open_unframed(record, true);
    let log = Arc::clone(writer.log());
    LogWriter::confirm(&log, false);
    let (follower, shape) = (log.follow(), Shape::new(&log, 0, false));
    (writer, log, follower, shape)
}

fn says(writer: &mut LogWriter, text: &str) {
    writer.attempt(1, "alpha".into(), "model".into(), Start::Anew);
    assert!(writer.text(text));
}

fn ends(writer: LogWriter, finish: Finish) {
    let record = writer.ending(|record| {
        record.state = TurnState::Done;
        record.source = Some(Source::Ai);
        record.finish = Some(finish);
    });
    writer.done(record);
}

fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64().round()
}

#[tokio::test(start_paused = true)]
async fn silence_is_filled_with_comments() {
    let (mut writer, log, follower, shape) = turn();
    let mut chunks = pin!(Chunks::new(log, follower, shape).stream());
    let begun = Instant::now();
    for beat in 1..=3 {
        assert_eq!(chunks.next().await.unwrap().unwrap(), ": keep-alive\n\n");
        assert_eq!(seconds(begun), f64::from(10 * beat));
    }
    says(&mut writer, "Well, ");
    let chunk = String::from_utf8(chunks.next().await.unwrap().unwrap().to_vec()).unwrap();
    assert!(
        chunk.contains(r#""role":"assistant""#) && chunk.contains("Well, "),
        "{chunk}"
    );
    assert_eq!(seconds(begun), 30.0);
    // From one word to the next as well.
    assert_eq!(chunks.next().await.unwrap().unwrap(), ": keep-alive\n\n");
    assert_eq!(seconds(begun), 40.0);
    ends(writer, Finish::Stop);
    let rest: Vec<_> = chunks
        .map(|chunk| String::from_utf8(chunk.unwrap().to_vec()).unwrap())
        .collect()
        .await;
    assert!(rest[0].contains(r#""finish_reason":"stop""#), "{rest:?}");
    assert_eq!((rest.len(), rest[1].as_str()), (2, "data: [DONE]\n\n"));
}

#[tokio::test(start_paused = true)]
async fn the_head_waits_for_the_first_text_and_at_most_eight_seconds() {
    let (mut writer, log, follower, shape) = turn();
    let begun = Instant::now();
    let speaks = async {
        tokio::time::advance(Duration::from_secs(3)).await;
        says(&mut writer, "Well, ");
    };
    let (answer, ()) = tokio::join!(streamed(log, follower, shape, || None), speaks);
    assert_eq!(seconds(begun), 3.0);
    assert_eq!(answer.headers().get("x-provider").unwrap(), "alpha");

    let (_writer, log, follower, shape) = turn();
    let begun = Instant::now();
    let answer = streamed(log, follower, shape, || None).await;
    assert_eq!((seconds(begun), answer.status()), (8.0, StatusCode::OK));
    assert_eq!(
        answer.headers().get("content-type").unwrap(),
        "text/event-stream; charset=utf-8"
    );
}

#[tokio::test(start_paused = true)]
async fn an_end_without_text_is_an_error_before_the_head_and_an_object_after_it() {
    let fails = |writer: &mut LogWriter| {
        writer.attempt(1, "alpha".into(), "model".into(), Start::Anew);
        writer.failed(
            "alpha".into(),
            Failure::with(Fault::BadRequest, "messages are too few"),
        );
    };
    let (mut writer, log, follower, shape) = turn();
    fails(&mut writer);
    ends(writer, Finish::Interrupted);
    let answer = streamed(log, follower, shape, || None).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);

    let (mut writer, log, follower, shape) = turn();
    let answer = streamed(log, follower, shape, || None).await;
    fails(&mut writer);
    ends(writer, Finish::Interrupted);
    let text = body::to_bytes(answer.into_body()).await.ok().unwrap();
    let text = std::str::from_utf8(&text).unwrap();
    assert!(
        text.contains("messages are too few") && text.contains("invalid_request_error"),
        "{text}"
    );
    assert!(!text.contains("[DONE]"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_goes_down_says_so_and_blames_no_provider() {
    let (writer, log, follower, shape) = turn();
    log.cancel(crate::turn::log::Cancel::Interrupted);
    ends(writer, Finish::Interrupted);
    let answer = streamed(log, follower, shape, || None).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers().get("retry-after").unwrap(), "2");
    let text = body::to_bytes(answer.into_body()).await.ok().unwrap();
    assert!(
        std::str::from_utf8(&text).unwrap().contains("restarting"),
        "{text:?}"
    );
}

//! The client over real sockets: every way an answer can end, without ever sending a second
//! request.

mod endings;
mod plain;
mod scripted;
mod spoken;

use crate::domain::{ChatMessage, MessageRole};

use super::*;
use plain::PlainDialect;
use scripted::{ScriptedServer, ServerAction, ServerEvent, ok_response, send};

const SSE_KIND: &str = "text/event-stream";

fn question() -> ChatRequest {
    ChatRequest {
        system: "".into(),
        messages: [ChatMessage {
            role: MessageRole::User,
            text: "why?".into(),
        }]
        .into(),
        max_tokens: 10,
        ends_with_prefill: false,
        temperature: None,
        stop: Arc::default(),
    }
}

fn client(base_url: &str, dialect: PlainDialect) -> HttpProviderClient {
    let transport = Transport::new(Duration::from_secs(5)).unwrap();
    HttpProviderClient::new(base_url, Arc::new(dialect), transport, no_drills())
}

fn no_drills() -> Arc<FaultSwitch> {
    Arc::new(FaultSwitch::new(|| 0.5))
}

fn client_at(server: &ScriptedServer) -> HttpProviderClient {
    client(
        &format!("http://{}", server.address),
        PlainDialect::default(),
    )
}

/// All events of an answer. Fails after a time that no good run comes near.
async fn collect_events(upstream: &HttpProviderClient) -> Vec<Result<StreamEvent, Failure>> {
    let events = upstream.stream_chat(&question()).collect();
    tokio::time::timeout(Duration::from_secs(20), events)
        .await
        .expect("the answer does not end")
}

/// The text of the events and how they ended. The end must come last.
fn outcome(
    mut steps: Vec<Result<StreamEvent, Failure>>,
) -> (String, Result<FinishReason, Failure>) {
    let end = match steps.pop() {
        Some(Ok(StreamEvent::Finished(finish))) => Ok(finish),
        Some(Err(failure)) => Err(failure),
        other => panic!("no end, but {other:?}"),
    };
    let text = steps.into_iter().map(|step| match step {
        Ok(StreamEvent::Text(text)) => text,
        Ok(StreamEvent::Thinking) => "~".into(),
        other => panic!("{other:?} is not the last"),
    });
    (text.collect(), end)
}

#[tokio::test]
async fn chat_request_is_one_post_and_its_answer_is_streamed() {
    let body = ": ping\n\ndata: text a\n\ndata: think\n\nid: 1\n\ndata: text b\n\ndata: end\n\n";
    let mut server = ScriptedServer::start(&[&[ok_response(SSE_KIND, body)]]).await;
    let upstream = client(
        &format!("http://{}/base/", server.address),
        PlainDialect::default(),
    );
    let answer = upstream.stream_chat(&question());
    // Nothing is sent before the first poll.
    assert_eq!(server.events_so_far().await, []);
    assert_eq!(
        outcome(answer.collect().await),
        ("a~b".into(), Ok(FinishReason::Stop))
    );
    let requests = server.requests().await;
    let [request] = requests.as_slice() else {
        panic!("{requests:?}");
    };
    assert!(
        request.starts_with("POST /base/ask?x=1 HTTP/1.1\r\n"),
        "{request}"
    );
    for header in [
        "content-type: application/json",
        "accept: text/event-stream",
        "x-key: secret",
        "user-agent: failsoft/",
    ] {
        assert!(request.contains(header), "{header} in {request}");
    }
    assert!(!request.contains("accept-encoding"), "{request}");
    assert!(request.ends_with("\r\n\r\nwhy?"), "{request}");
}

#[tokio::test]
async fn json_lines_are_decoded() {
    let mut server = ScriptedServer::start(&[&[ok_response(
        "application/x-ndjson",
        "text a\ntext b\n\nend\n",
    )]])
    .await;
    let dialect = PlainDialect {
        framing: Framing::Lines,
        ..PlainDialect::default()
    };
    let upstream = client(&format!("http://{}", server.address), dialect);
    assert_eq!(
        outcome(collect_events(&upstream).await),
        ("ab".into(), Ok(FinishReason::Stop))
    );
    assert!(
        server
            .requests()
            .await
            .concat()
            .contains("accept: application/x-ndjson")
    );
}

#[tokio::test]
async fn endless_answers_are_aborted() {
    let head = ok_response(SSE_KIND, "");
    let word = format!("data: text {}\n\n", "x".repeat(50_000));
    for (flood, fault) in [
        (vec![b'x'; 64 * 1024], Some(FaultKind::Malformed)),
        (word.into_bytes(), Some(FaultKind::Malformed)),
        (b"data: rubbish\n\n".to_vec(), Some(FaultKind::Overloaded)),
        (b"data: end\n\n".to_vec(), None),
    ] {
        let mut server =
            ScriptedServer::start(&[&[head.clone(), ServerAction::Flood(flood)]]).await;
        let (text, end) = outcome(collect_events(&client_at(&server)).await);
        assert_eq!(end.err().map(|failure| failure.fault), fault);
        assert!(text.len() <= MAX_ANSWER_BYTES + 50_000);
        server.wait_for_close().await;
    }
}

#[tokio::test]
async fn answer_ends_at_its_end_mark_while_the_connection_stays_open() {
    let mut server = ScriptedServer::start(&[&[
        ok_response(SSE_KIND, "data: text a\n\ndata: end\n\n"),
        ServerAction::Hang,
    ]])
    .await;
    assert_eq!(
        outcome(collect_events(&client_at(&server)).await),
        ("a".into(), Ok(FinishReason::Stop))
    );
    server.wait_for_close().await;
}

#[tokio::test]
async fn dropping_the_events_closes_the_connection() {
    for script in [
        vec![ServerAction::Hang],
        vec![ok_response(SSE_KIND, ""), ServerAction::Hang],
        vec![
            ok_response(SSE_KIND, "data: text a\n\n"),
            ServerAction::Hang,
        ],
        vec![send("HTTP/1.1 500 No\r\n\r\n"), ServerAction::Hang],
    ] {
        let mut server = ScriptedServer::start(&[&script]).await;
        let upstream = client_at(&server);
        let mut answer = upstream.stream_chat(&question());
        let seen = tokio::select! {
            () = async { while answer.next().await.is_some_and(|step| step.is_ok()) {} } => panic!("an end"),
            seen = async { (server.next_event().await, server.next_event().await) } => seen,
        };
        assert!(
            matches!(seen, (ServerEvent::Connected, ServerEvent::Request(_))),
            "{seen:?}"
        );
        drop(answer);
        assert_eq!(server.next_event().await, ServerEvent::Closed);
    }
}

#[tokio::test]
async fn complete_answer_returns_its_connection_to_the_pool() {
    let body = "d\r\ndata: text a\n\r\n1\r\n\n\r\nb\r\ndata: end\n\n\r\n0\r\n\r\n";
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut server =
        ScriptedServer::start(&[&[send(&format!("{head}{body}")), ServerAction::NextRequest]])
            .await;
    let upstream = client_at(&server);
    for _ in 0..3 {
        assert_eq!(
            outcome(collect_events(&upstream).await),
            ("a".into(), Ok(FinishReason::Stop))
        );
    }
    let seen = server.events_so_far().await;
    assert_eq!(
        seen.iter()
            .filter(|seen| **seen == ServerEvent::Connected)
            .count(),
        1,
        "{seen:?}"
    );
}

#[tokio::test]
async fn remapped_request_is_sent_again_but_not_for_ever() {
    let refusal = [send("HTTP/1.1 400 No\r\ncontent-length: 0\r\n\r\n")];
    let answer = [ok_response(SSE_KIND, "data: end\n\n")];
    let adapting = || PlainDialect {
        adapts: true,
        ..PlainDialect::default()
    };
    let mut server = ScriptedServer::start(&[&refusal, &answer]).await;
    let adapting_client = client(&format!("http://{}", server.address), adapting());
    assert_eq!(
        outcome(collect_events(&adapting_client).await).1,
        Ok(FinishReason::Stop)
    );
    let requests = server.requests().await;
    assert!(
        matches!(requests.as_slice(), [first, second] if first.ends_with("why?") && second.ends_with("why? adapted"))
    );
    let mut server = ScriptedServer::start(&[&refusal]).await;
    let adapting_client = client(&format!("http://{}", server.address), adapting());
    assert_eq!(
        outcome(collect_events(&adapting_client).await)
            .1
            .unwrap_err()
            .fault,
        FaultKind::BadRequest
    );
    assert_eq!(server.requests().await.len(), 1 + MAX_REMAPPINGS as usize);
    // An unchanged request is not sent again.
    let mut server = ScriptedServer::start(&[&refusal]).await;
    assert_eq!(
        outcome(collect_events(&client_at(&server)).await)
            .1
            .unwrap_err()
            .fault,
        FaultKind::BadRequest
    );
    assert_eq!(server.requests().await.len(), 1);
}

#[tokio::test]
async fn listing_is_one_get() {
    let mut server = ScriptedServer::start(&[
        &[ok_response("application/json", "{}")],
        &[ok_response("text/html", "<p>")],
        &[send("HTTP/1.1 401 No\r\ncontent-length: 2\r\n\r\n{}")],
    ])
    .await;
    let upstream = client_at(&server);
    assert_eq!(upstream.list_models().await, Ok(()));
    assert_eq!(
        upstream.list_models().await.unwrap_err().fault,
        FaultKind::Malformed
    );
    let failure = upstream.list_models().await.unwrap_err();
    assert_eq!(
        (failure.fault, failure.status),
        (FaultKind::Unauthorized, Some(401))
    );
    let requests = server.requests().await;
    assert_eq!(requests.len(), 3);
    assert!(requests.concat().starts_with("GET /list HTTP/1.1\r\n"));
    assert!(
        requests
            .iter()
            .all(|request| request.contains("x-key: secret"))
    );
}

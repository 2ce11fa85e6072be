mod plain;
mod scripted;

use std::sync::atomic::AtomicBool;

use crate::chat::{Message, Role};

use super::*;
use plain::Plain;
use scripted::{Act, Scripted, Seen, ok, send};

const SSE_KIND: &str = "text/event-stream";

fn question() -> Ask {
    Ask {
        system: "".into(),
        messages: [Message {
            role: Role::User,
            text: "why?".into(),
        }]
        .into(),
        max_tokens: 10,
    }
}

fn upstream(base_url: &str, dialect: Plain) -> HttpUpstream {
    let transport = Transport::new(Duration::from_secs(5)).unwrap();
    HttpUpstream::new(base_url, Arc::new(dialect), transport)
}

fn at(server: &Scripted) -> HttpUpstream {
    upstream(&format!("http://{}", server.address), Plain::default())
}

/// All steps of an answer, within a time that no good run comes near.
async fn steps(upstream: &HttpUpstream) -> Vec<Result<Step, Failure>> {
    let all = upstream.ask(&question()).collect();
    tokio::time::timeout(Duration::from_secs(20), all)
        .await
        .expect("an answer without end")
}

/// The text of the steps, and how they ended: one end, and it is the last.
fn outcome(mut steps: Vec<Result<Step, Failure>>) -> (String, Result<Finish, Failure>) {
    let end = match steps.pop() {
        Some(Ok(Step::End(finish))) => Ok(finish),
        Some(Err(failure)) => Err(failure),
        other => panic!("no end but {other:?}"),
    };
    let text = steps.into_iter().map(|step| match step {
        Ok(Step::Text(text)) => text,
        Ok(Step::Thinking) => "~".into(),
        other => panic!("{other:?} is not the last"),
    });
    (text.collect(), end)
}

/// What comes of one question to a server that plays this; it must have been asked once.
async fn played(script: &[Act]) -> (String, Result<Finish, Failure>) {
    let mut server = Scripted::start(&[script]).await;
    let outcome = outcome(steps(&at(&server)).await);
    let requests = server.requests().await;
    assert_eq!(requests.len(), 1, "{requests:?}");
    outcome
}

async fn fault(script: &[Act]) -> Fault {
    played(script).await.1.unwrap_err().fault
}

#[tokio::test]
async fn a_question_is_one_post_and_its_answer_comes_in_steps() {
    let body = ": ping\n\ndata: text a\n\ndata: think\n\nid: 1\n\ndata: text b\n\ndata: end\n\n";
    let mut server = Scripted::start(&[&[ok(SSE_KIND, body)]]).await;
    let upstream = upstream(
        &format!("http://{}/base/", server.address),
        Plain::default(),
    );
    let answer = upstream.ask(&question());
    // Nothing is sent before it is polled.
    assert_eq!(server.so_far().await, []);
    assert_eq!(
        outcome(answer.collect().await),
        ("a~b".into(), Ok(Finish::Stop))
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
async fn an_end_without_the_end_mark_is_no_answer() {
    let cut = played(&[ok(SSE_KIND, "data: text a\n\n")]).await;
    assert_eq!(cut, ("a".into(), Err(Failure::of(Fault::Truncated))));
    assert_eq!(fault(&[ok(SSE_KIND, "")]).await, Fault::Empty);
    assert_eq!(
        fault(&[ok(SSE_KIND, ": ping\n\n: ping\n\n")]).await,
        Fault::Empty
    );
    assert_eq!(
        fault(&[send("HTTP/1.1 204 No Content\r\n\r\n")]).await,
        Fault::Empty
    );
    let unfinished = played(&[ok(SSE_KIND, "data: text a\n\ndata: end")]).await;
    assert_eq!(unfinished, ("a".into(), Ok(Finish::Stop)));
}

#[tokio::test]
async fn a_broken_connection_is_a_reset() {
    let chunked = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\ne\r\ndata: text a\n\n\r\n";
    let sized = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 99\r\n\r\ndata: text a\n\n";
    for script in [[send(chunked)], [send(sized)]] {
        let (text, end) = played(&script).await;
        assert_eq!((text.as_str(), end.unwrap_err().fault), ("a", Fault::Reset));
    }
    assert_eq!(
        fault(&[ok(SSE_KIND, "data: text a\n\n"), Act::Reset]).await,
        Fault::Reset
    );
    assert_eq!(fault(&[Act::Reset]).await, Fault::Reset);
    assert_eq!(fault(&[]).await, Fault::Reset);
}

#[tokio::test]
async fn what_is_not_of_the_protocol_is_malformed() {
    let bad_chunk = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\nrubbish\r\n";
    for script in [
        send(bad_chunk),
        send("SSH-2.0-server\r\n"),
        ok("text/html", "<p>data: text a\n\ndata: end\n\n"),
        ok("text/plain", "data: text a\n\ndata: end\n\n"),
        ok("text/event-stream\r\ncontent-encoding: gzip", "rubbish"),
    ] {
        let (text, end) = played(&[script]).await;
        assert_eq!(
            (text.as_str(), end.unwrap_err().fault),
            ("", Fault::Malformed)
        );
    }
}

#[tokio::test]
async fn an_error_status_is_the_dialects_to_judge() {
    let refusal = "HTTP/1.1 429 Slow\r\nRetry-After: 7\r\ncontent-length: 5\r\n\r\nerror";
    let failure = played(&[send(refusal)]).await.1.unwrap_err();
    assert_eq!(
        (failure.fault, failure.status),
        (Fault::RateLimited, Some(429))
    );
    assert_eq!(
        (failure.retry_after, failure.detail.as_str()),
        (Some(Duration::from_secs(7)), "5 bytes")
    );
    let mut server = Scripted::start(&[&[
        send("HTTP/1.1 500 No\r\n\r\n"),
        Act::Flood(vec![b'x'; 9000]),
    ]])
    .await;
    let failure = outcome(steps(&at(&server)).await).1.unwrap_err();
    assert_eq!(
        (failure.fault, failure.detail.as_str()),
        (Fault::ServerError, "16384 bytes")
    );
    server.closed().await;
}

#[tokio::test]
async fn the_key_never_follows_a_redirect() {
    let mut other = Scripted::start(&[&[ok(SSE_KIND, "data: end\n\n")]]).await;
    for status in [301, 302, 303, 307, 308] {
        let redirect = format!(
            "HTTP/1.1 {status} There\r\nlocation: http://{}/\r\ncontent-length: 0\r\n\r\n",
            other.address
        );
        let failure = played(&[send(&redirect)]).await.1.unwrap_err();
        assert_eq!(
            (failure.fault, failure.status),
            (Fault::Misconfigured, Some(status))
        );
        let server = Scripted::start(&[&[send(&redirect)]]).await;
        assert_eq!(
            at(&server).list().await.unwrap_err().fault,
            Fault::Misconfigured
        );
    }
    assert_eq!(other.so_far().await, []);
}

#[tokio::test]
async fn json_instead_of_a_stream_is_one_event() {
    let whole = played(&[ok("application/json", "{\"whole\":true}")]).await;
    assert_eq!(whole, ("whole".into(), Ok(Finish::Stop)));
    let error = played(&[ok("application/json", "{\"error\":\n1}")])
        .await
        .1
        .unwrap_err();
    assert_eq!(
        (error.fault, error.detail.as_str()),
        (Fault::Overloaded, "{\"error\": 1}")
    );
    let appended = played(&[ok(SSE_KIND, "data: text a\n\n{\n\"error\": 1\n}\n")]).await;
    assert_eq!(
        (appended.0.as_str(), appended.1.unwrap_err().fault),
        ("a", Fault::Overloaded)
    );
}

#[tokio::test]
async fn lines_are_events_too() {
    let mut server =
        Scripted::start(&[&[ok("application/x-ndjson", "text a\ntext b\n\nend\n")]]).await;
    let dialect = Plain {
        framing: Framing::Lines,
        ..Plain::default()
    };
    let upstream = upstream(&format!("http://{}", server.address), dialect);
    assert_eq!(
        outcome(steps(&upstream).await),
        ("ab".into(), Ok(Finish::Stop))
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
async fn what_has_no_end_is_left() {
    let head = ok(SSE_KIND, "");
    let word = format!("data: text {}\n\n", "x".repeat(50_000));
    for (flood, fault) in [
        (vec![b'x'; 64 * 1024], Some(Fault::Malformed)),
        (word.into_bytes(), Some(Fault::Malformed)),
        (b"data: rubbish\n\n".to_vec(), Some(Fault::Overloaded)),
        (b"data: end\n\n".to_vec(), None),
    ] {
        let mut server = Scripted::start(&[&[head.clone(), Act::Flood(flood)]]).await;
        let (text, end) = outcome(steps(&at(&server)).await);
        assert_eq!(end.err().map(|failure| failure.fault), fault);
        assert!(text.len() <= ANSWER_BYTES + 50_000);
        server.closed().await;
    }
}

#[tokio::test]
async fn an_answer_ends_at_its_end_mark_though_the_server_stays() {
    let mut server =
        Scripted::start(&[&[ok(SSE_KIND, "data: text a\n\ndata: end\n\n"), Act::Wait]]).await;
    assert_eq!(
        outcome(steps(&at(&server)).await),
        ("a".into(), Ok(Finish::Stop))
    );
    server.closed().await;
}

#[tokio::test]
async fn dropping_the_steps_closes_the_connection() {
    for script in [
        vec![Act::Wait],
        vec![ok(SSE_KIND, ""), Act::Wait],
        vec![ok(SSE_KIND, "data: text a\n\n"), Act::Wait],
        vec![send("HTTP/1.1 500 No\r\n\r\n"), Act::Wait],
    ] {
        let mut server = Scripted::start(&[&script]).await;
        let upstream = at(&server);
        let mut answer = upstream.ask(&question());
        let asked = tokio::select! {
            () = async { while answer.next().await.is_some_and(|step| step.is_ok()) {} } => panic!("an end"),
            asked = async { (server.next().await, server.next().await) } => asked,
        };
        assert!(matches!(asked, (Seen::Opened, Seen::Asked(_))), "{asked:?}");
        drop(answer);
        assert_eq!(server.next().await, Seen::Closed);
    }
}

#[tokio::test]
async fn a_whole_answer_gives_its_connection_back() {
    let body = "d\r\ndata: text a\n\r\n1\r\n\n\r\nb\r\ndata: end\n\n\r\n0\r\n\r\n";
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut server = Scripted::start(&[&[send(&format!("{head}{body}")), Act::Again]]).await;
    let upstream = at(&server);
    for _ in 0..3 {
        assert_eq!(
            outcome(steps(&upstream).await),
            ("a".into(), Ok(Finish::Stop))
        );
    }
    let seen = server.so_far().await;
    assert_eq!(
        seen.iter().filter(|seen| **seen == Seen::Opened).count(),
        1,
        "{seen:?}"
    );
}

#[tokio::test]
async fn a_mapping_at_fault_is_asked_once_more_and_no_oftener() {
    let refusal = [send("HTTP/1.1 400 No\r\ncontent-length: 0\r\n\r\n")];
    let answer = [ok(SSE_KIND, "data: end\n\n")];
    let adapting = || Plain {
        adapts: true,
        adapted: AtomicBool::new(false),
        ..Plain::default()
    };
    let mut server = Scripted::start(&[&refusal, &answer]).await;
    let asked = upstream(&format!("http://{}", server.address), adapting());
    assert_eq!(outcome(steps(&asked).await).1, Ok(Finish::Stop));
    let requests = server.requests().await;
    assert!(
        matches!(requests.as_slice(), [first, second] if first.ends_with("why?") && second.ends_with("why? adapted"))
    );
    let mut server = Scripted::start(&[&refusal]).await;
    let asked = upstream(&format!("http://{}", server.address), adapting());
    assert_eq!(
        outcome(steps(&asked).await).1.unwrap_err().fault,
        Fault::BadRequest
    );
    assert_eq!(server.requests().await.len(), 2);
}

#[tokio::test]
async fn no_connection_is_told_from_a_slow_one() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let refused = upstream(&format!("http://{closed}"), Plain::default());
    assert_eq!(
        outcome(steps(&refused).await).1.unwrap_err().fault,
        Fault::Unreachable
    );
    assert_eq!(refused.list().await.unwrap_err().fault, Fault::Unreachable);
    // A server that speaks no TLS, and one that never gets on with it.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let transport = Transport::new(Duration::from_millis(50)).unwrap();
    let stalled = HttpUpstream::new(&address, Arc::new(Plain::default()), transport);
    assert_eq!(
        outcome(steps(&stalled).await).1.unwrap_err().fault,
        Fault::Timeout
    );
    let plain = upstream(&address, Plain::default());
    let (answer, ()) = tokio::join!(steps(&plain), async {
        use tokio::io::AsyncWriteExt as _;
        // The stalled one's connection came first.
        let _ = listener.accept().await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
    });
    assert_eq!(outcome(answer).1.unwrap_err().fault, Fault::Unreachable);
}

#[tokio::test]
async fn an_impossible_request_is_the_configurations_fault() {
    let transport = Transport::new(Duration::from_secs(5)).unwrap();
    for (base_url, key) in [
        ("not an address", "k"),
        ("ftp://127.0.0.1", "k"),
        ("http://127.0.0.1:1", "se\ncret"),
    ] {
        let dialect = Plain {
            key,
            ..Plain::default()
        };
        let upstream = HttpUpstream::new(base_url, Arc::new(dialect), transport.clone());
        for failure in [
            outcome(steps(&upstream).await).1.unwrap_err(),
            upstream.list().await.unwrap_err(),
        ] {
            assert_eq!(failure.fault, Fault::Misconfigured, "{base_url}");
            assert!(!failure.to_string().contains("cret"), "{failure}");
        }
    }
}

#[tokio::test]
async fn a_listing_is_one_get() {
    let mut server = Scripted::start(&[
        &[ok("application/json", "{}")],
        &[ok("text/html", "<p>")],
        &[send("HTTP/1.1 401 No\r\ncontent-length: 2\r\n\r\n{}")],
    ])
    .await;
    let upstream = at(&server);
    assert_eq!(upstream.list().await, Ok(()));
    assert_eq!(upstream.list().await.unwrap_err().fault, Fault::Malformed);
    let failure = upstream.list().await.unwrap_err();
    assert_eq!(
        (failure.fault, failure.status),
        (Fault::Unauthorized, Some(401))
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

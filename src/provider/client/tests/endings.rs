//! Each way an answer can fail, with exactly one request each.

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::*;

/// The outcome of one chat request to a server with this script. It must be sent exactly once.
async fn outcome_of(script: &[ServerAction]) -> (String, Result<FinishReason, Failure>) {
    let mut server = ScriptedServer::start(&[script]).await;
    let outcome = outcome(collect_events(&client_at(&server)).await);
    let requests = server.requests().await;
    assert_eq!(requests.len(), 1, "{requests:?}");
    outcome
}

async fn fault(script: &[ServerAction]) -> FaultKind {
    outcome_of(script).await.1.unwrap_err().fault
}

#[tokio::test]
async fn stream_without_end_mark_is_truncated_or_empty() {
    let cut = outcome_of(&[ok_response(SSE_KIND, "data: text a\n\n")]).await;
    assert_eq!(cut, ("a".into(), Err(Failure::new(FaultKind::Truncated))));
    assert_eq!(fault(&[ok_response(SSE_KIND, "")]).await, FaultKind::Empty);
    assert_eq!(
        fault(&[ok_response(SSE_KIND, ": ping\n\n: ping\n\n")]).await,
        FaultKind::Empty
    );
    assert_eq!(
        fault(&[send("HTTP/1.1 204 No Content\r\n\r\n")]).await,
        FaultKind::Empty
    );
    let unfinished = outcome_of(&[ok_response(SSE_KIND, "data: text a\n\ndata: end")]).await;
    assert_eq!(unfinished, ("a".into(), Ok(FinishReason::Stop)));
}

#[tokio::test]
async fn broken_connection_is_a_reset() {
    let chunked = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\ne\r\ndata: text a\n\n\r\n";
    let sized = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 99\r\n\r\ndata: text a\n\n";
    for script in [[send(chunked)], [send(sized)]] {
        let (text, end) = outcome_of(&script).await;
        assert_eq!(
            (text.as_str(), end.unwrap_err().fault),
            ("a", FaultKind::Reset)
        );
    }
    assert_eq!(
        fault(&[
            ok_response(SSE_KIND, "data: text a\n\n"),
            ServerAction::Reset
        ])
        .await,
        FaultKind::Reset
    );
    assert_eq!(fault(&[ServerAction::Reset]).await, FaultKind::Reset);
    assert_eq!(fault(&[]).await, FaultKind::Reset);
}

#[tokio::test]
async fn invalid_protocol_is_malformed() {
    let bad_chunk = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\nrubbish\r\n";
    for script in [
        send(bad_chunk),
        send("SSH-2.0-server\r\n"),
        ok_response("text/html", "<p>data: text a\n\ndata: end\n\n"),
        ok_response("text/plain", "data: text a\n\ndata: end\n\n"),
        ok_response("text/event-stream\r\ncontent-encoding: gzip", "rubbish"),
    ] {
        let (text, end) = outcome_of(&[script]).await;
        assert_eq!(
            (text.as_str(), end.unwrap_err().fault),
            ("", FaultKind::Malformed)
        );
    }
}

#[tokio::test]
async fn error_status_is_classified_by_the_dialect() {
    let refusal = "HTTP/1.1 429 Slow\r\nRetry-After: 7\r\ncontent-length: 5\r\n\r\nerror";
    let failure = outcome_of(&[send(refusal)]).await.1.unwrap_err();
    assert_eq!(
        (failure.fault, failure.status),
        (FaultKind::RateLimited, Some(429))
    );
    assert_eq!(
        (failure.retry_after, failure.detail.as_str()),
        (Some(Duration::from_secs(7)), "5 bytes")
    );
    let mut server = ScriptedServer::start(&[&[
        send("HTTP/1.1 500 No\r\n\r\n"),
        ServerAction::Flood(vec![b'x'; 9000]),
    ]])
    .await;
    let failure = outcome(collect_events(&client_at(&server)).await)
        .1
        .unwrap_err();
    assert_eq!(
        (failure.fault, failure.detail.as_str()),
        (FaultKind::ServerError, "16384 bytes")
    );
    server.wait_for_close().await;
}

#[tokio::test]
async fn key_never_follows_a_redirect() {
    let mut other = ScriptedServer::start(&[&[ok_response(SSE_KIND, "data: end\n\n")]]).await;
    for status in [301, 302, 303, 307, 308] {
        let redirect = format!(
            "HTTP/1.1 {status} There\r\nlocation: http://{}/\r\ncontent-length: 0\r\n\r\n",
            other.address
        );
        let failure = outcome_of(&[send(&redirect)]).await.1.unwrap_err();
        assert_eq!(
            (failure.fault, failure.status),
            (FaultKind::Misconfigured, Some(status))
        );
        let server = ScriptedServer::start(&[&[send(&redirect)]]).await;
        assert_eq!(
            client_at(&server).list_models().await.unwrap_err().fault,
            FaultKind::Misconfigured
        );
    }
    assert_eq!(other.events_so_far().await, []);
}

#[tokio::test]
async fn json_instead_of_a_stream_is_one_event() {
    let whole = outcome_of(&[ok_response("application/json", "{\"whole\":true}")]).await;
    assert_eq!(whole, ("whole".into(), Ok(FinishReason::Stop)));
    let error = outcome_of(&[ok_response("application/json", "{\"error\":\n1}")])
        .await
        .1
        .unwrap_err();
    assert_eq!(
        (error.fault, error.detail.as_str()),
        (FaultKind::Overloaded, "{\"error\": 1}")
    );
    let appended = outcome_of(&[ok_response(
        SSE_KIND,
        "data: text a\n\n{\n\"error\": 1\n}\n",
    )])
    .await;
    assert_eq!(
        (appended.0.as_str(), appended.1.unwrap_err().fault),
        ("a", FaultKind::Overloaded)
    );
}

#[tokio::test]
async fn unreachable_is_distinguished_from_timeout() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let refused = client(&format!("http://{closed}"), PlainDialect::default());
    assert_eq!(
        outcome(collect_events(&refused).await).1.unwrap_err().fault,
        FaultKind::Unreachable
    );
    assert_eq!(
        refused.list_models().await.unwrap_err().fault,
        FaultKind::Unreachable
    );
    // A server that never continues the TLS handshake, and one that does not speak TLS.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", silent.local_addr().unwrap());
    let transport = Transport::new(Duration::from_millis(50)).unwrap();
    let stalled = HttpProviderClient::new(
        &address,
        Arc::new(PlainDialect::default()),
        transport,
        no_drills(),
    );
    assert_eq!(
        outcome(collect_events(&stalled).await).1.unwrap_err().fault,
        FaultKind::Timeout
    );
    let plaintext = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(
        &format!("https://{}", plaintext.local_addr().unwrap()),
        PlainDialect::default(),
    );
    let (answer, ()) = tokio::join!(collect_events(&client), async {
        let (mut stream, _) = plaintext.accept().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
    });
    assert_eq!(outcome(answer).1.unwrap_err().fault, FaultKind::Unreachable);
}

#[tokio::test]
async fn impossible_request_is_misconfigured() {
    let transport = Transport::new(Duration::from_secs(5)).unwrap();
    for (base_url, key) in [
        ("not an address", "k"),
        ("ftp://127.0.0.1", "k"),
        ("http://127.0.0.1:1", "se\ncret"),
    ] {
        let dialect = PlainDialect {
            key,
            ..PlainDialect::default()
        };
        let upstream =
            HttpProviderClient::new(base_url, Arc::new(dialect), transport.clone(), no_drills());
        for failure in [
            outcome(collect_events(&upstream).await).1.unwrap_err(),
            upstream.list_models().await.unwrap_err(),
        ] {
            assert_eq!(failure.fault, FaultKind::Misconfigured, "{base_url}");
            assert!(!failure.to_string().contains("cret"), "{failure}");
        }
    }
}

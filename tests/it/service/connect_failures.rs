//! Connections to a provider that fail or must not be used: the next provider answers within the
//! connect timeout, no other turn is delayed, and the key is not revealed.

use std::io::{self, Read as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

use crate::harness::{
    CompletionStream, ScriptedProvider, TestApp, WsClient, error_response, eventually,
    question_body, streaming_body, test_settings,
};

const WHOLE: &str = "The whole answer of the second provider.";

/// A connect timeout that no test waits for.
const NEVER: Duration = Duration::from_secs(60);

/// A connect timeout that tests wait for.
const SHORT: Duration = Duration::from_millis(400);

/// The behaviour of a [`Peer`].
#[derive(Clone, Copy, Debug, PartialEq)]
enum Behaviour {
    /// Drops SYN packets, because its queue of connections is full.
    DropSyn,
    /// Accepts and resets.
    Reset,
    /// Accepts and stays silent.
    Stall,
    /// Answers in plain HTTP.
    PlainHttp,
    /// Speaks TLS with a self-signed certificate.
    SelfSigned,
}

/// A listener on the loopback interface with a given behaviour.
struct Peer {
    port: u16,
    /// The bytes received on each connection.
    received: Arc<Mutex<Vec<Vec<u8>>>>,
    /// The number of connections that have ended.
    ended: watch::Receiver<usize>,
    /// The connection that fills the queue.
    _queue: Vec<TcpStream>,
}

impl Peer {
    async fn start(behaviour: Behaviour) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        // A backlog of zero still queues one connection.
        let listener = socket
            .listen(if behaviour == Behaviour::DropSyn {
                0
            } else {
                64
            })
            .unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let (ended_sender, ended) = watch::channel(0);
        let mut queue = Vec::new();
        if behaviour == Behaviour::DropSyn {
            queue.push(TcpStream::connect(address).await.unwrap());
        }
        let all_received = Arc::clone(&received);
        tokio::spawn(async move {
            if behaviour == Behaviour::DropSyn {
                // The task owns the listener, which accepts nothing.
                std::future::pending::<()>().await;
            }
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let all_received = Arc::clone(&all_received);
                let ended_sender = ended_sender.clone();
                tokio::spawn(async move {
                    let bytes = handle(stream, behaviour).await;
                    all_received.lock().unwrap().push(bytes);
                    ended_sender.send_modify(|ended| *ended += 1);
                });
            }
        });
        Self {
            port: address.port(),
            received,
            ended,
            _queue: queue,
        }
    }

    /// Waits until `count` connections have ended, and returns the bytes received on each.
    async fn ended(&self, count: usize) -> Vec<Vec<u8>> {
        let mut ended = self.ended.clone();
        eventually("its connections to end", async move {
            drop(ended.wait_for(|ended| *ended >= count).await)
        })
        .await;
        self.received.lock().unwrap().clone()
    }
}

/// Handles a connection to its end and returns the received bytes.
async fn handle(mut stream: TcpStream, behaviour: Behaviour) -> Vec<u8> {
    let mut received = Vec::new();
    match behaviour {
        Behaviour::DropSyn => unreachable!("it accepts nothing"),
        Behaviour::Reset => socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap(),
        Behaviour::Stall => drop(stream.read_to_end(&mut received).await),
        Behaviour::PlainHttp => {
            drop(stream.read_buf(&mut received).await);
            drop(
                stream
                    .write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
                    .await,
            );
            drop(stream.read_to_end(&mut received).await);
        }
        Behaviour::SelfSigned => {
            let stream = stream.into_std().unwrap();
            stream.set_nonblocking(false).unwrap();
            return tokio::task::spawn_blocking(move || receive_over_tls(stream))
                .await
                .unwrap();
        }
    }
    received
}

/// Accepts a TLS handshake and returns the decrypted bytes.
fn receive_over_tls(mut stream: std::net::TcpStream) -> Vec<u8> {
    // A self-signed certificate for localhost and 127.0.0.1, valid for a hundred years. Its key
    // protects nothing.
    let certificate =
        CertificateDer::from(&include_bytes!("../../fixtures/self_signed.crt.der")[..]);
    let key =
        PrivateKeyDer::try_from(&include_bytes!("../../fixtures/self_signed.key.der")[..]).unwrap();
    failsoft::provider::http::install_tls();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![certificate], key).unwrap();
    let mut tls = rustls::ServerConnection::new(Arc::new(config)).unwrap();
    let mut received = Vec::new();
    // The client rejects the certificate with an alert, which ends the read with an error.
    let _: io::Result<usize> =
        rustls::Stream::new(&mut tls, &mut stream).read_to_end(&mut received);
    received
}

/// A service whose first provider has this address and connect timeout, and no relevant other
/// limit.
async fn service(base_url: &str, connect: Duration) -> (ScriptedProvider, TestApp) {
    let beta = ScriptedProvider::answering(WHOLE).await;
    let mut settings = test_settings(&[("alpha", &beta), ("beta", &beta)]);
    settings.server.workers = 1;
    let alpha = &mut settings.providers[0];
    base_url.clone_into(&mut alpha.base_url);
    alpha.timeouts.connect = connect;
    alpha.timeouts.first_token = vec![NEVER];
    (beta, TestApp::start(settings).await)
}

/// Asks over the socket and the API. Asserts that the next provider answers because the first one
/// failed for one of `reasons`. Returns the duration of the failed attempt in milliseconds.
async fn assert_next_answers(base_url: &str, reasons: &[&str]) -> u64 {
    let (beta, app) = service(base_url, SHORT).await;
    let mut client = WsClient::open(&app).await;
    let shown = client.ask_and_wait("What?").await;
    assert_eq!(shown.text, WHOLE, "{:?}", shown.done);
    let (last, reason) = shown.provider_path().pop().unwrap();
    assert!(
        last == "beta" && reasons.contains(&reason.as_str()),
        "{:?}",
        shown.done
    );
    let ms = shown.done.as_ref().unwrap()["tried"][0]["ms"]
        .as_u64()
        .unwrap();
    let answer = app.stream_answer("What?").await.read_to_end().await;
    assert_eq!((answer.text().as_str(), answer.error), (WHOLE, None));
    assert_eq!(beta.question_count(), 2);
    app.wait_until_idle().await;
    let provider_status = app.provider_status("alpha").await;
    assert!(
        reasons.contains(&provider_status["reason"].as_str().unwrap()),
        "{provider_status}"
    );
    ms
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_dropped_syn_times_out_and_fails_over() {
    let peer = Peer::start(Behaviour::DropSyn).await;
    let ms = assert_next_answers(&format!("http://127.0.0.1:{}/v1", peer.port), &["timeout"]).await;
    assert!(
        u128::from(ms) >= SHORT.as_millis(),
        "given up after {ms} ms"
    );
}

#[tokio::test]
async fn an_unresolvable_name_fails_over() {
    for scheme in ["http", "https"] {
        assert_next_answers(&format!("{scheme}://provider.invalid/v1"), &["refused"]).await;
    }
}

#[tokio::test]
async fn a_connection_reset_after_accept_fails_over() {
    let peer = Peer::start(Behaviour::Reset).await;
    // The reset comes before the connection is used or after it.
    assert_next_answers(
        &format!("http://127.0.0.1:{}/v1", peer.port),
        &["reset", "refused"],
    )
    .await;
    // A reset within the TLS handshake counts as a failed connect.
    assert_next_answers(&format!("https://127.0.0.1:{}/v1", peer.port), &["refused"]).await;
}

/// Returns `true` if the bytes start a TLS handshake and contain nothing of a request.
fn is_tls_hello(received: &[u8]) -> bool {
    let text = String::from_utf8_lossy(received);
    received.first() == Some(&0x16) && !text.contains("POST") && !text.contains("canary")
}

#[tokio::test]
async fn tls_to_a_plain_http_server_fails_over_without_a_plain_retry() {
    let peer = Peer::start(Behaviour::PlainHttp).await;
    assert_next_answers(&format!("https://127.0.0.1:{}/v1", peer.port), &["refused"]).await;
    let received = peer.ended(2).await;
    assert!(
        received.iter().all(|received| is_tls_hello(received)),
        "the request was retried without TLS"
    );
}

#[tokio::test]
async fn a_self_signed_certificate_fails_over_without_sending_data() {
    let peer = Peer::start(Behaviour::SelfSigned).await;
    assert_next_answers(&format!("https://localhost:{}/v1", peer.port), &["refused"]).await;
    let received = peer.ended(2).await;
    assert!(
        received.iter().all(Vec::is_empty),
        "data was sent to an untrusted peer"
    );
}

#[tokio::test]
async fn a_stalled_tls_handshake_times_out_and_fails_over() {
    let peer = Peer::start(Behaviour::Stall).await;
    let ms =
        assert_next_answers(&format!("https://127.0.0.1:{}/v1", peer.port), &["timeout"]).await;
    assert!(
        u128::from(ms) >= SHORT.as_millis(),
        "given up after {ms} ms"
    );
    let received = peer.ended(2).await;
    assert!(
        received.iter().all(|received| is_tls_hello(received)),
        "the request was retried without TLS"
    );
}

/// While one turn waits for a connect, others on the same thread are served, and it can be stopped.
async fn assert_others_are_served(scheme: &str, behaviour: Behaviour) {
    let peer = Peer::start(behaviour).await;
    let (_beta, app) = service(&format!("{scheme}://127.0.0.1:{}/v1", peer.port), NEVER).await;
    let mut waiting = WsClient::open(&app).await;
    let turn = waiting.ask("What?").await;
    waiting
        .wait_for_turn(&turn, |shown| shown.attempts.len() == 1)
        .await;
    for _ in 0..3 {
        let mut body = streaming_body("What?");
        body["model"] = "beta".into();
        let answer = CompletionStream::open(app.completion_request(&body))
            .await
            .read_to_end()
            .await;
        assert_eq!(answer.text(), WHOLE);
        body = question_body("What?");
        body["model"] = "beta".into();
        let answer = app.completion_request(&body).send().await;
        assert_eq!(answer.json()["choices"][0]["message"]["content"], WHOLE);
        assert_eq!(WsClient::open(&app).await.welcome["protocol"], 1);
    }
    // The first turn's connect is still pending.
    waiting.assert_no_pending_frame().await;
    waiting
        .send_frame(&json!({ "type": "stop", "turn": turn }))
        .await;
    let shown = waiting.wait_for_done(&turn).await;
    assert_eq!(shown.done.as_ref().unwrap()["finish"], "stopped");
    app.wait_until_idle().await;
    if behaviour == Behaviour::Stall {
        peer.ended(1).await;
    }
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn others_are_served_during_a_pending_connect() {
    assert_others_are_served("http", Behaviour::DropSyn).await;
}

#[tokio::test]
async fn others_are_served_during_a_stalled_tls_handshake() {
    assert_others_are_served("https", Behaviour::Stall).await;
}

/// Returns `true` if no connection waits in the listener's queue.
fn is_untouched(listener: &TcpListener) -> bool {
    listener.accept().now_or_never().is_none()
}

#[tokio::test]
async fn redirects_are_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = elsewhere.local_addr().unwrap().port();
        for target in [
            format!("http://localhost:{port}/v1/chat/completions"),
            format!("//127.0.0.1:{port}/"),
        ] {
            let headers = format!("location: {target}\r\n");
            let alpha = ScriptedProvider::start(vec![error_response(status, &headers, "")]).await;
            let beta = ScriptedProvider::answering(WHOLE).await;
            let mut settings = test_settings(&[("alpha", &alpha), ("beta", &beta)]);
            settings.providers[0].breaker.consecutive_failures = 2;
            let app = TestApp::start(settings).await;
            let mut client = WsClient::open(&app).await;
            let shown = client.ask_and_wait("What?").await;
            assert_eq!(
                (shown.text.as_str(), shown.attempts.len()),
                (WHOLE, 2),
                "{status}"
            );
            let answer = app.stream_answer("What?").await.read_to_end().await;
            assert_eq!(answer.text(), WHOLE, "{status}");
            // Probes of the open breaker do not follow it either.
            alpha
                .wait_for(|counts| counts.probes > 0 && counts.in_flight == 0)
                .await;
            app.wait_until_idle().await;
            assert_eq!(
                (
                    alpha.question_count(),
                    app.provider_status("alpha").await["reason"].as_str()
                ),
                (2, Some("refused"))
            );
            assert!(
                is_untouched(&elsewhere),
                "{status} to {target} was followed"
            );
        }
    }
}

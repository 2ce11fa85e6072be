//! No connection to a provider comes about, or one that must not be used: the next one answers within the time for connects, nobody else
//! waits for it, and the key does not leave.

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
    Completion, ScriptedProvider, TestApp, WsClient, question, refusal, settings, soon, streaming,
};

const WHOLE: &str = "The whole answer of the second provider.";

/// The time for connects where nobody waits for its end.
const LONG: Duration = Duration::from_secs(60);

/// And where the next one is waited for.
const SHORT: Duration = Duration::from_millis(400);

/// What an address does to those who connect.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    /// Swallows the first packet: its queue of connections is full.
    Swallow,
    /// Accepts and resets.
    Reset,
    /// Accepts and says nothing.
    Stall,
    /// Answers whatever it is told in plain HTTP.
    Plain,
    /// Speaks TLS with a certificate of its own making.
    SelfSigned,
}

/// An address of loopback where somebody has this manner.
struct Peer {
    port: u16,
    /// What each of its connections said, as it came.
    said: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Connections that ended.
    ended: watch::Receiver<usize>,
    /// What fills its queue.
    _queue: Vec<TcpStream>,
}

impl Peer {
    async fn start(manner: Manner) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        // A queue of none takes one.
        let listener = socket
            .listen(if manner == Manner::Swallow { 0 } else { 64 })
            .unwrap();
        let address = listener.local_addr().unwrap();
        let said = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let (tell, ended) = watch::channel(0);
        let mut queue = Vec::new();
        if manner == Manner::Swallow {
            queue.push(TcpStream::connect(address).await.unwrap());
        }
        let heard = Arc::clone(&said);
        tokio::spawn(async move {
            if manner == Manner::Swallow {
                // The listener is kept, and accepts nothing.
                std::future::pending::<()>().await;
            }
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (heard, tell) = (Arc::clone(&heard), tell.clone());
                tokio::spawn(async move {
                    let bytes = treat(stream, manner).await;
                    heard.lock().unwrap().push(bytes);
                    tell.send_modify(|ended| *ended += 1);
                });
            }
        });
        Self {
            port: address.port(),
            said,
            ended,
            _queue: queue,
        }
    }

    /// Waits until so many of its connections have ended; gives what they said.
    async fn ended(&self, count: usize) -> Vec<Vec<u8>> {
        let mut ended = self.ended.clone();
        soon("its connections to end", async move {
            drop(ended.wait_for(|ended| *ended >= count).await)
        })
        .await;
        self.said.lock().unwrap().clone()
    }
}

/// Treats a connection to its end. Gives what came over it.
async fn treat(mut stream: TcpStream, manner: Manner) -> Vec<u8> {
    let mut said = Vec::new();
    match manner {
        Manner::Swallow => unreachable!("it accepts nothing"),
        Manner::Reset => socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap(),
        Manner::Stall => drop(stream.read_to_end(&mut said).await),
        Manner::Plain => {
            drop(stream.read_buf(&mut said).await);
            drop(
                stream
                    .write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
                    .await,
            );
            drop(stream.read_to_end(&mut said).await);
        }
        Manner::SelfSigned => {
            let stream = stream.into_std().unwrap();
            stream.set_nonblocking(false).unwrap();
            return tokio::task::spawn_blocking(move || secretly(stream))
                .await
                .unwrap();
        }
    }
    said
}

/// Shakes hands by TLS and gives what was then said in secret.
fn secretly(mut stream: std::net::TcpStream) -> Vec<u8> {
    // For localhost and 127.0.0.1, signed by itself, good for a hundred years. Its key protects nothing.
    let certificate =
        CertificateDer::from(&include_bytes!("../../fixtures/self_signed.crt.der")[..]);
    let key =
        PrivateKeyDer::try_from(&include_bytes!("../../fixtures/self_signed.key.der")[..]).unwrap();
    failsoft::provider::http::install_tls();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![certificate], key).unwrap();
    let mut tls = rustls::ServerConnection::new(Arc::new(config)).unwrap();
    let mut said = Vec::new();
    // An error is the client's alert, and the end.
    let _: io::Result<usize> = rustls::Stream::new(&mut tls, &mut stream).read_to_end(&mut said);
    said
}

/// A service whose first provider has this address and this time for connects, and so much time for first tokens that no test waits for it.
async fn service(base_url: &str, connect: Duration) -> (ScriptedProvider, TestApp) {
    let beta = ScriptedProvider::answering(WHOLE).await;
    let mut settings = settings(&[("alpha", &beta), ("beta", &beta)]);
    settings.server.workers = 1;
    let alpha = &mut settings.providers[0];
    base_url.clone_into(&mut alpha.base_url);
    alpha.timeouts.connect = connect;
    alpha.timeouts.first_token = vec![LONG];
    (beta, TestApp::start(settings).await)
}

/// Asks at both doors; the next one answers, as the first failed for one of these reasons. How long that took, in milliseconds.
async fn next_answers(base_url: &str, reasons: &[&str]) -> u64 {
    let (beta, app) = service(base_url, SHORT).await;
    let mut client = WsClient::open(&app).await;
    let shown = client.answered("What?").await;
    assert_eq!(shown.text, WHOLE, "{:?}", shown.done);
    let (last, reason) = shown.path().pop().unwrap();
    assert!(
        last == "beta" && reasons.contains(&reason.as_str()),
        "{:?}",
        shown.done
    );
    let ms = shown.done.as_ref().unwrap()["tried"][0]["ms"]
        .as_u64()
        .unwrap();
    let answer = app.stream("What?").await.ended().await;
    assert_eq!((answer.text().as_str(), answer.error), (WHOLE, None));
    assert_eq!(beta.asked(), 2);
    app.at_rest().await;
    let vitals = app.provider("alpha").await;
    assert!(
        reasons.contains(&vitals["reason"].as_str().unwrap()),
        "{vitals}"
    );
    ms
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_lost_first_packet() {
    let peer = Peer::start(Manner::Swallow).await;
    let ms = next_answers(&format!("http://127.0.0.1:{}/v1", peer.port), &["timeout"]).await;
    assert!(
        u128::from(ms) >= SHORT.as_millis(),
        "given up after {ms} ms"
    );
}

#[tokio::test]
async fn a_name_that_does_not_exist() {
    for scheme in ["http", "https"] {
        next_answers(&format!("{scheme}://provider.invalid/v1"), &["refused"]).await;
    }
}

#[tokio::test]
async fn accepted_and_reset() {
    let peer = Peer::start(Manner::Reset).await;
    // It may come before the connection is used, or after.
    next_answers(
        &format!("http://127.0.0.1:{}/v1", peer.port),
        &["reset", "refused"],
    )
    .await;
    // Within the handshake it is no connection at all.
    next_answers(&format!("https://127.0.0.1:{}/v1", peer.port), &["refused"]).await;
}

/// Whether these bytes are a greeting in TLS and nothing of what a request has.
fn secret(said: &[u8]) -> bool {
    let clear = String::from_utf8_lossy(said);
    said.first() == Some(&0x16) && !clear.contains("POST") && !clear.contains("canary")
}

#[tokio::test]
async fn tls_to_who_does_not_speak_it() {
    let peer = Peer::start(Manner::Plain).await;
    next_answers(&format!("https://127.0.0.1:{}/v1", peer.port), &["refused"]).await;
    let said = peer.ended(2).await;
    assert!(
        said.iter().all(|said| secret(said)),
        "it was retried in the clear"
    );
}

#[tokio::test]
async fn tls_with_a_certificate_of_nobody() {
    let peer = Peer::start(Manner::SelfSigned).await;
    next_answers(&format!("https://localhost:{}/v1", peer.port), &["refused"]).await;
    let said = peer.ended(2).await;
    assert!(said.iter().all(Vec::is_empty), "it was told something");
}

#[tokio::test]
async fn tls_that_does_not_get_on() {
    let peer = Peer::start(Manner::Stall).await;
    let ms = next_answers(&format!("https://127.0.0.1:{}/v1", peer.port), &["timeout"]).await;
    assert!(
        u128::from(ms) >= SHORT.as_millis(),
        "given up after {ms} ms"
    );
    let said = peer.ended(2).await;
    assert!(
        said.iter().all(|said| secret(said)),
        "it was retried in the clear"
    );
}

/// One turn waits for a connection that does not come about. Everybody else on the same thread is served, and it can be stopped.
async fn others_are_served(scheme: &str, manner: Manner) {
    let peer = Peer::start(manner).await;
    let (_beta, app) = service(&format!("{scheme}://127.0.0.1:{}/v1", peer.port), LONG).await;
    let mut waiting = WsClient::open(&app).await;
    let turn = waiting.ask("What?").await;
    waiting
        .shows(&turn, |shown| shown.attempts.len() == 1)
        .await;
    for _ in 0..3 {
        let mut body = streaming("What?");
        body["model"] = "beta".into();
        let answer = Completion::open(app.completion(&body)).await.ended().await;
        assert_eq!(answer.text(), WHOLE);
        body = question("What?");
        body["model"] = "beta".into();
        let answer = app.completion(&body).send().await;
        assert_eq!(answer.json()["choices"][0]["message"]["content"], WHOLE);
        assert_eq!(WsClient::open(&app).await.welcome["protocol"], 1);
    }
    // The first one's connect still is under way: its page was told nothing more.
    waiting.quiet().await;
    waiting.say(&json!({ "type": "stop", "turn": turn })).await;
    let shown = waiting.done(&turn).await;
    assert_eq!(shown.done.as_ref().unwrap()["finish"], "stopped");
    app.at_rest().await;
    if manner == Manner::Stall {
        peer.ended(1).await;
    }
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn others_are_served_while_a_first_packet_is_lost() {
    others_are_served("http", Manner::Swallow).await;
}

#[tokio::test]
async fn others_are_served_while_a_handshake_does_not_get_on() {
    others_are_served("https", Manner::Stall).await;
}

/// Whether nobody ever connected: whoever did would be in its queue, or was seen there.
fn untouched(listener: &TcpListener) -> bool {
    listener.accept().now_or_never().is_none()
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = elsewhere.local_addr().unwrap().port();
        for target in [
            format!("http://localhost:{port}/v1/chat/completions"),
            format!("//127.0.0.1:{port}/"),
        ] {
            let headers = format!("location: {target}\r\n");
            let alpha = ScriptedProvider::start(vec![refusal(status, &headers, "")]).await;
            let beta = ScriptedProvider::answering(WHOLE).await;
            let mut settings = settings(&[("alpha", &alpha), ("beta", &beta)]);
            settings.providers[0].breaker.consecutive_failures = 2;
            let app = TestApp::start(settings).await;
            let mut client = WsClient::open(&app).await;
            let shown = client.answered("What?").await;
            assert_eq!(
                (shown.text.as_str(), shown.attempts.len()),
                (WHOLE, 2),
                "{status}"
            );
            let answer = app.stream("What?").await.ended().await;
            assert_eq!(answer.text(), WHOLE, "{status}");
            // Nor by our own question, now that the breaker is open.
            alpha
                .until(|counts| counts.probes > 0 && counts.open == 0)
                .await;
            app.at_rest().await;
            assert_eq!(
                (
                    alpha.asked(),
                    app.provider("alpha").await["reason"].as_str()
                ),
                (2, Some("refused"))
            );
            assert!(untouched(&elsewhere), "{status} to {target} was followed");
        }
    }
}

//! Providers over TLS: one with a trusted certificate is questions, one without gets no data.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use super::service::{Service, failsoft};
use super::ws_client::Visitor;
use crate::harness::TestCertificates;

const ANSWER: &str = "This was said behind a lock.";

/// A provider that speaks TLS, and the questions it received.
struct TlsProvider {
    port: u16,
    questions: Arc<Mutex<Vec<String>>>,
}

impl TlsProvider {
    fn start(certificates: &TestCertificates) -> Self {
        let chain = CertificateDer::pem_file_iter(certificates.path("server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(certificates.path("server.key")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth();
        let mut config = config
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        config.alpn_protocols = vec![b"http/1.1".into()];
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let questions = Arc::<Mutex<Vec<_>>>::default();
        let received = Arc::clone(&questions);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = BufReader::new(StreamOwned::new(connection, stream));
                // A client that does not trust the certificate closes the connection.
                let Ok(question) = read_body(&mut stream) else {
                    continue;
                };
                received.lock().unwrap().push(question);
                let _ = write_answer(stream.get_mut());
            }
        });
        Self { port, questions }
    }
}

/// Reads the body of a request.
fn read_body(
    stream: &mut BufReader<StreamOwned<ServerConnection, TcpStream>>,
) -> io::Result<String> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(String::from_utf8(body).unwrap())
}

fn write_answer(stream: &mut StreamOwned<ServerConnection, TcpStream>) -> io::Result<()> {
    let chunk = |delta: &str, finish: &str| {
        format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
        )
    };
    let text = chunk(&format!("{{\"content\":\"{ANSWER}\"}}"), "null");
    let body = format!("{text}{}data: [DONE]\n\n", chunk("{}", "\"stop\""));
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )?;
    stream.conn.send_close_notify();
    stream.flush()
}

#[tokio::test]
async fn providers_with_untrusted_certificates_receive_no_data() {
    let certificates = TestCertificates::generate();
    let provider = TlsProvider::start(&certificates);
    let ca = certificates.path("ca.pem");
    for trusts in [true, false] {
        let folder = TempDir::new().unwrap();
        let config = format!(
            "degradation = {{ outbox = false }}\n[[providers]]\nname = \"locked\"\ndialect = \"openai\"\nmodel = \"m\"\n\
             api_key = \"k\"\nbase_url = \"https://127.0.0.1:{}/v1\"\nhealth = {{ probe = \"off\" }}\n",
            provider.port
        );
        std::fs::write(folder.path().join("failsoft.toml"), config).unwrap();
        let mut command = failsoft(folder.path(), &["--listen", "127.0.0.1:0"]);
        if trusts {
            command.env("SSL_CERT_FILE", &ca);
        }
        let service = Service::of(command).await;
        provider.questions.lock().unwrap().clear();
        let shown = Visitor::new(service.port)
            .await
            .ask("What is behind it?")
            .await;
        assert_eq!(shown.text == ANSWER, trusts, "{}", shown.text);
        let questions = provider.questions.lock().unwrap().join("\n");
        assert_eq!(
            questions.contains("What is behind it?"),
            trusts,
            "{questions}"
        );
        service.kill().await;
    }
}

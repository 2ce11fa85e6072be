//! Redis over TLS: trusted and untrusted certificates, and a wrong password.

use std::net::TcpListener;
use std::path::Path;

use tempfile::TempDir;

use super::config;
use crate::binary::provider::{Behavior, Provider};
use crate::binary::service::{Service, failsoft};
use crate::binary::ws_client::Visitor;
use crate::harness::{RedisServer, TestCertificates};

/// Returns `false` if the installed Redis was built without TLS, and lacks the setting.
fn speaks_tls() -> bool {
    RedisServer::start(&[])
        .command(&["CONFIG", "GET", "tls-port"])
        .contains("tls-port")
}

/// Starts a Redis with TLS and this password. Returns it with its TLS port.
fn secured(certificates: &TestCertificates, password: &str) -> (RedisServer, u16) {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let path = |name: &str| certificates.path(name).display().to_string();
    let certificate = path("server.pem");
    let key = path("server.key");
    let tls = [
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
    ];
    let more = [
        "--tls-ca-cert-file",
        &path("ca.pem"),
        "--tls-auth-clients",
        "no",
        "--requirepass",
        password,
    ];
    (RedisServer::start(&[&tls[..], &more[..]].concat()), port)
}

/// Starts an instance in this folder, with the CA `trusts` in its environment.
async fn start(folder: &Path, provider: &Provider, url: &str, trusts: Option<&Path>) -> Service {
    std::fs::write(folder.join("failsoft.toml"), config(provider, url)).unwrap();
    let mut command = failsoft(folder, &["--listen", "127.0.0.1:0"]);
    if let Some(ca) = trusts {
        command.env("SSL_CERT_FILE", ca);
    }
    Service::of(command).await
}

#[tokio::test]
async fn untrusted_redis_certificates_and_wrong_passwords_are_reported() {
    if !speaks_tls() {
        println!("skipped: this redis-server was built without TLS");
        return;
    }
    let certificates = TestCertificates::generate();
    let provider = Provider::start(Behavior::Answer).await;
    let (redis, port) = secured(&certificates, "canary-server");
    let url = |password: &str| format!("rediss://:{password}@127.0.0.1:{port}");
    let ca = certificates.path("ca.pem");
    for (password, trusts, problem, named) in [
        ("canary-server", None, Some("SSL_CERT_FILE"), "Untrusted"),
        ("canary-mine", Some(&*ca), Some("password"), "Unauthorized"),
        ("canary-server", Some(&*ca), None, "joined redis"),
    ] {
        let folder = TempDir::new().unwrap();
        let instance = start(folder.path(), &provider, &url(password), trusts).await;
        let status = instance.wait_for_status("the status to report on Redis", |status| {
            let problems = status["problems"].to_string();
            problem.map_or(!problems.contains("Redis"), |problem| {
                problems.contains(problem)
            })
        });
        let status = status.await.to_string();
        assert_eq!(
            *Visitor::new(instance.port)
                .await
                .ask("Still?")
                .await
                .done_field("source"),
            "ai"
        );
        let logged = instance.kill().await;
        assert!(logged.contains(named), "{named}: {logged}");
        assert!(
            !status.contains("canary") && !logged.contains("canary"),
            "{status}\n{logged}"
        );
    }
    drop(redis);
}

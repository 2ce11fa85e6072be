//! Redis over TLS: whose certificate is trusted, what is told of one that is not, and of a password that is wrong behind it.

use std::net::TcpListener;
use std::path::Path;

use tempfile::TempDir;

use super::config;
use crate::binary::provider::{Manner, Provider};
use crate::binary::service::{Service, failsoft};
use crate::binary::ws_client::Visitor;
use crate::harness::{Certificates, Redis};

/// Whether the installed Redis speaks TLS at all: one that was built without it does not know the setting.
fn speaks_tls() -> bool {
    Redis::start(&[])
        .tell(&["CONFIG", "GET", "tls-port"])
        .contains("tls-port")
}

/// A Redis that takes this password over TLS, and the port where it does.
fn secured(certificates: &Certificates, password: &str) -> (Redis, u16) {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let path = |name: &str| certificates.path(name).display().to_string();
    let (certificate, key) = (path("server.pem"), path("server.key"));
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
    (Redis::start(&[&tls[..], &more[..]].concat()), port)
}

/// An instance in this folder; `trusts`: the CA that its environment names.
async fn start(folder: &Path, provider: &Provider, url: &str, trusts: Option<&Path>) -> Service {
    std::fs::write(folder.join("failsoft.toml"), config(provider, url)).unwrap();
    let mut command = failsoft(folder, &["--listen", "127.0.0.1:0"]);
    if let Some(ca) = trusts {
        command.env("SSL_CERT_FILE", ca);
    }
    Service::of(command).await
}

#[tokio::test]
async fn a_certificate_is_trusted_by_its_ca_and_what_is_wrong_is_told_for_what_it_is() {
    if !speaks_tls() {
        println!("skipped: this redis-server was built without TLS");
        return;
    }
    let (certificates, provider) = (Certificates::make(), Provider::start(Manner::Answer).await);
    let (redis, port) = secured(&certificates, "canary-server");
    let url = |password: &str| format!("rediss://:{password}@127.0.0.1:{port}");
    let ca = certificates.path("ca.pem");
    for (password, trusts, told, named) in [
        ("canary-server", None, Some("SSL_CERT_FILE"), "Untrusted"),
        ("canary-mine", Some(&*ca), Some("password"), "Unauthorized"),
        ("canary-server", Some(&*ca), None, "joined redis"),
    ] {
        let folder = TempDir::new().unwrap();
        let one = start(folder.path(), &provider, &url(password), trusts).await;
        let status = one.status_when("the status to tell of Redis", |status| {
            let problems = status["problems"].to_string();
            told.map_or(!problems.contains("Redis"), |told| problems.contains(told))
        });
        let status = status.await.to_string();
        assert_eq!(
            *Visitor::new(one.port)
                .await
                .ask("Still?")
                .await
                .end("source"),
            "ai"
        );
        let logged = one.kill().await;
        assert!(logged.contains(named), "{named}: {logged}");
        assert!(
            !status.contains("canary") && !logged.contains("canary"),
            "{status}\n{logged}"
        );
    }
    drop(redis);
}

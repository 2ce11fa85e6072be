//! Redis over TLS: whose certificate is trusted, what is told of one that is not, and of a password that is wrong behind it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::config;
use crate::harness::Redis;
use crate::process::provider::{Manner, Provider};
use crate::process::service::{Service, failsoft};
use crate::process::visitor::Visitor;

/// A CA, and a certificate of it for this machine, in a folder.
struct Certificates {
    folder: TempDir,
}

impl Certificates {
    fn make() -> Self {
        let folder = TempDir::new().unwrap();
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        let of = |name: &str| [format!("{name}.key"), format!("{name}.pem"), format!("/CN={name}")];
        let (ca, server) = (of("ca"), of("server"));
        openssl(folder.path(), &[&key[..], &["-keyout", &ca[0], "-out", &ca[1], "-subj", &ca[2]]].concat());
        let signed =
            ["-keyout", &server[0], "-out", &server[1], "-subj", &server[2], "-CA", &ca[1], "-CAkey", &ca[0]];
        let names =
            ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"];
        openssl(folder.path(), &[&key[..], &signed[..], &names[..]].concat());
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn openssl(folder: &Path, arguments: &[&str]) {
    let made = Command::new("openssl").current_dir(folder).args(["req", "-x509"]).args(arguments).output();
    let made = made.expect("openssl is there, for certificates");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Whether the installed Redis speaks TLS at all: one that was built without it does not know the setting.
fn speaks_tls() -> bool {
    Redis::start(&[]).tell(&["CONFIG", "GET", "tls-port"]).contains("tls-port")
}

/// A Redis that takes this password over TLS, and the port where it does.
fn secured(certificates: &Certificates, password: &str) -> (Redis, u16) {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let path = |name: &str| certificates.path(name).display().to_string();
    let (certificate, key) = (path("server.pem"), path("server.key"));
    let tls = ["--tls-port", &port.to_string(), "--tls-cert-file", &certificate, "--tls-key-file", &key];
    let more = ["--tls-ca-cert-file", &path("ca.pem"), "--tls-auth-clients", "no", "--requirepass", password];
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
        assert_eq!(*Visitor::new(one.port).await.ask("Still?").await.end("source"), "ai");
        let logged = one.kill().await;
        assert!(logged.contains(named), "{named}: {logged}");
        assert!(!status.contains("canary") && !logged.contains("canary"), "{status}\n{logged}");
    }
    drop(redis);
}

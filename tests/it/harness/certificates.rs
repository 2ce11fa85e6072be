//! Certificates for servers of TLS.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A CA, and a certificate of it for this machine, in a folder.
pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// Makes them.
    pub fn make() -> Self {
        let folder = TempDir::new().unwrap();
        let key = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ];
        let of = |name: &str| {
            [
                format!("{name}.key"),
                format!("{name}.pem"),
                format!("/CN={name}"),
            ]
        };
        let (ca, server) = (of("ca"), of("server"));
        openssl(
            folder.path(),
            &[
                &key[..],
                &["-keyout", &ca[0], "-out", &ca[1], "-subj", &ca[2]],
            ]
            .concat(),
        );
        let signed = [
            "-keyout", &server[0], "-out", &server[1], "-subj", &server[2], "-CA", &ca[1],
            "-CAkey", &ca[0],
        ];
        let names = [
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ];
        openssl(folder.path(), &[&key[..], &signed[..], &names[..]].concat());
        Self { folder }
    }

    /// Where `ca.pem`, `server.pem` or `server.key` lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn openssl(folder: &Path, arguments: &[&str]) {
    let made = Command::new("openssl")
        .current_dir(folder)
        .args(["req", "-x509"])
        .args(arguments)
        .output();
    let made = made.expect("openssl is there, for certificates");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
}

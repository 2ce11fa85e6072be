//! Certificates for TLS servers.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A CA and a server certificate signed by it for 127.0.0.1, in a folder.
pub struct TestCertificates {
    folder: TempDir,
}

impl TestCertificates {
    /// Creates both with `openssl`.
    pub fn generate() -> Self {
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
        let files_and_subject = |name: &str| {
            [
                format!("{name}.key"),
                format!("{name}.pem"),
                format!("/CN={name}"),
            ]
        };
        let ca = files_and_subject("ca");
        let server = files_and_subject("server");
        run_openssl(
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
        run_openssl(folder.path(), &[&key[..], &signed[..], &names[..]].concat());
        Self { folder }
    }

    /// Returns the path of `ca.pem`, `server.pem` or `server.key`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn run_openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl")
        .current_dir(folder)
        .args(["req", "-x509"])
        .args(arguments)
        .output();
    let output = output.expect("openssl is installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

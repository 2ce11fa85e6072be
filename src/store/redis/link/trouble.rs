//! The reasons for an outage of Redis, their status sentences, and the classification of errors.

use std::error::Error;
use std::io;
use std::sync::Arc;

use ::redis::{ErrorKind, RedisError, ServerErrorKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Redis is down, late or accepts no writes. The call may have taken effect all the same.
    #[error("Redis is unavailable")]
    Away,
    /// Redis is up but cannot execute the call.
    #[error("Redis rejected the command")]
    Refused,
}

/// The reason why Redis is not used, or only in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It has not been reached since the start.
    Joining,
    /// It cannot be reached, or does not answer in time.
    Unreachable,
    /// Its certificate is untrusted, for another name, or out of date.
    Untrusted,
    /// It answers, but later than hot paths wait.
    Slow,
    /// It requires another user or password.
    Unauthorized,
    /// It accepts no writes: a replica, too few replicas, or a failing disk.
    ReadOnly,
    Full,
    Loading,
    /// It is not Redis, or a version that is too old.
    Unknown,
}

impl Trouble {
    /// Returns a sentence for the public status page.
    pub fn sentence(self) -> &'static str {
        match self {
            Trouble::Joining | Trouble::Unreachable => {
                "Redis cannot be reached: this instance goes on alone and hands over when it is back."
            }
            Trouble::Untrusted => {
                "Redis cannot be joined, its certificate is not trusted: SSL_CERT_FILE must name its CA, store.redis_url the host that it is for, and it must be in date. This instance goes on alone."
            }
            Trouble::Slow => {
                "Redis takes longer than 50 ms to answer: this instance goes on alone and hands over behind the scenes."
            }
            Trouble::Unauthorized => {
                "Redis refuses the user or the password in store.redis_url: this instance goes on alone."
            }
            Trouble::ReadOnly => {
                "Redis takes no writes: this instance goes on alone and hands over when it does."
            }
            Trouble::Full => {
                "Redis has no memory left: this instance goes on alone and hands over when it has."
            }
            Trouble::Loading => {
                "Redis is reading its data: this instance goes on alone and hands over when it is ready."
            }
            Trouble::Unknown => {
                "Redis answers with errors; version 6.2 or later is needed: this instance goes on alone."
            }
        }
    }

    pub(super) fn of(error: &RedisError) -> Self {
        match error.kind() {
            ErrorKind::AuthenticationFailed => Trouble::Unauthorized,
            ErrorKind::Io if is_of_the_certificate(error) => Trouble::Untrusted,
            ErrorKind::Io => Trouble::Unreachable,
            ErrorKind::Server(ServerErrorKind::BusyLoading) => Trouble::Loading,
            ErrorKind::Server(ServerErrorKind::NoPerm) => Trouble::Unauthorized,
            ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown) => {
                Trouble::ReadOnly
            }
            _ => match error.code() {
                Some("NOAUTH" | "WRONGPASS") => Trouble::Unauthorized,
                Some("NOREPLICAS" | "MISCONF") => Trouble::ReadOnly,
                Some("OOM") => Trouble::Full,
                _ => Trouble::Unknown,
            },
        }
    }
}

/// `true` if the TLS handshake failed because of the server's certificate.
///
/// The client wraps the socket's error in an `Arc`, and that wraps the TLS error.
fn is_of_the_certificate(error: &RedisError) -> bool {
    let client = error
        .source()
        .and_then(|source| source.downcast_ref::<Arc<dyn Error + Send + Sync>>());
    let socket = client.and_then(|client| client.downcast_ref::<io::Error>());
    let tls = socket
        .and_then(io::Error::get_ref)
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
}

/// `true` if a command failed because of the connection or the server rather than by itself.
///
/// A reply of an unexpected type counts as the command's own failure. If the server sends garbage,
/// the monitor notices.
pub(super) fn is_of_the_link(error: &RedisError) -> bool {
    let is_own = matches!(
        error.kind(),
        ErrorKind::UnexpectedReturnType | ErrorKind::Parse
    );
    !is_own && (Trouble::of(error) != Trouble::Unknown || error.is_unrecoverable_error())
}

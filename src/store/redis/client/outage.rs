//! The reasons for an outage of Redis, their status sentences, and the classification of errors.

use std::error::Error;
use std::io;
use std::sync::Arc;

use ::redis::{ErrorKind, RedisError, ServerErrorKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisCallError {
    /// Redis is down, late or accepts no writes. The call may have taken effect all the same.
    #[error("Redis is unavailable")]
    Unavailable,
    /// Redis is up but cannot execute the call.
    #[error("Redis rejected the command")]
    Rejected,
}

pub type CallResult<T> = Result<T, RedisCallError>;

/// The reason why Redis is not used, or only in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutageReason {
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

impl OutageReason {
    /// Returns a sentence for the public status page.
    pub fn describe(self) -> &'static str {
        match self {
            OutageReason::Joining | OutageReason::Unreachable => {
                "Redis cannot be reached: this instance goes on alone and hands over when it is back."
            }
            OutageReason::Untrusted => {
                "Redis cannot be joined, its certificate is not trusted: SSL_CERT_FILE must name its CA, store.redis_url the host that it is for, and it must be in date. This instance goes on alone."
            }
            OutageReason::Slow => {
                "Redis takes longer than 50 ms to answer: this instance goes on alone and hands over behind the scenes."
            }
            OutageReason::Unauthorized => {
                "Redis refuses the user or the password in store.redis_url: this instance goes on alone."
            }
            OutageReason::ReadOnly => {
                "Redis takes no writes: this instance goes on alone and hands over when it does."
            }
            OutageReason::Full => {
                "Redis has no memory left: this instance goes on alone and hands over when it has."
            }
            OutageReason::Loading => {
                "Redis is reading its data: this instance goes on alone and hands over when it is ready."
            }
            OutageReason::Unknown => {
                "Redis answers with errors; version 6.2 or later is needed: this instance goes on alone."
            }
        }
    }

    pub(super) fn from_error(error: &RedisError) -> Self {
        match error.kind() {
            ErrorKind::AuthenticationFailed => OutageReason::Unauthorized,
            ErrorKind::Io if is_certificate_error(error) => OutageReason::Untrusted,
            ErrorKind::Io => OutageReason::Unreachable,
            ErrorKind::Server(ServerErrorKind::BusyLoading) => OutageReason::Loading,
            ErrorKind::Server(ServerErrorKind::NoPerm) => OutageReason::Unauthorized,
            ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown) => {
                OutageReason::ReadOnly
            }
            _ => match error.code() {
                Some("NOAUTH" | "WRONGPASS") => OutageReason::Unauthorized,
                Some("NOREPLICAS" | "MISCONF") => OutageReason::ReadOnly,
                Some("OOM") => OutageReason::Full,
                _ => OutageReason::Unknown,
            },
        }
    }
}

/// `true` if the TLS handshake failed because of the server's certificate.
///
/// The client wraps the socket's error in an `Arc`, and that wraps the TLS error.
fn is_certificate_error(error: &RedisError) -> bool {
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
pub(super) fn is_connection_failure(error: &RedisError) -> bool {
    let is_own = matches!(
        error.kind(),
        ErrorKind::UnexpectedReturnType | ErrorKind::Parse
    );
    !is_own
        && (OutageReason::from_error(error) != OutageReason::Unknown
            || error.is_unrecoverable_error())
}

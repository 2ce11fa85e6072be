//! What keeps Redis away, in words for the public status; which failures mean that it is.

use std::error::Error;
use std::io;
use std::sync::Arc;

use ::redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why Redis did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It is not there, late, or takes no writes. What was asked may have taken effect all the same.
    #[error("the shared store is away")]
    Away,
    /// It is there, and cannot do this.
    #[error("the shared store refuses it")]
    Refused,
}

/// What keeps Redis away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It was not reached yet since the start.
    Joining,
    /// It cannot be reached, or does not answer in time.
    Unreachable,
    /// Its certificate is of no CA that is trusted, for another name, or out of date.
    Untrusted,
    /// It answers later than a visitor is made to wait for it.
    Slow,
    /// It wants another user or password.
    Unauthorized,
    /// It takes no writes: a replica, one that lost its replicas, or one whose disk fails.
    ReadOnly,
    /// Its memory is full.
    Full,
    /// It is reading its data.
    Loading,
    /// It is no Redis, or one that is too old.
    Unknown,
}

impl Trouble {
    /// In a sentence for everyone.
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

    /// What this failure of the keeper's own sign of life means.
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

/// Whether the connection was given up for the server's certificate. The client shares the failure of its socket, which holds that of TLS.
fn is_of_the_certificate(error: &RedisError) -> bool {
    let shared = error
        .source()
        .and_then(|source| source.downcast_ref::<Arc<dyn Error + Send + Sync>>());
    let socket = shared.and_then(|shared| shared.downcast_ref::<io::Error>());
    let tls = socket
        .and_then(io::Error::get_ref)
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
}

/// Whether a command's failure is the link's or the server's as a whole, rather than this command's own. An answer of another type than was
/// asked for is the command's own; a server that talks nonsense is found by the keeper.
pub(super) fn is_of_the_link(error: &RedisError) -> bool {
    let own = matches!(
        error.kind(),
        ErrorKind::UnexpectedReturnType | ErrorKind::Parse
    );
    !own && (Trouble::of(error) != Trouble::Unknown || error.is_unrecoverable_error())
}

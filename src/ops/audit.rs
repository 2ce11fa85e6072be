//! The audit log: admin requests, accepted or refused. Each one is a log line with target `audit`,
//! and the most recent ones are kept in memory.
//!
//! Entries contain no secrets: the caller is identified by the kind of its address only, and the
//! subject by a configured name. Entries that must outlive the process come from the log.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::chat::At;

/// The number of entries kept of authorized callers, and again of refused ones, so that a caller
/// without a token cannot push out what operators did.
pub const KEPT: usize = 200;

/// One request to the admin API, or a signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub at: At,
    pub action: &'static str,
    /// A configured name, a word of the protocol, or a hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    pub outcome: Outcome,
    pub peer: Peer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done,
    /// The caller is not authorized.
    Refused,
    /// The request was malformed, or named something that does not exist.
    Invalid,
    Failed,
}

impl Outcome {
    pub const fn of_status(status: u16) -> Self {
        match status {
            ..400 => Self::Done,
            401 | 403 => Self::Refused,
            400..500 => Self::Invalid,
            500.. => Self::Failed,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Invalid => "invalid",
            Self::Failed => "failed",
        }
    }
}

/// The kind of network that a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Peer {
    Loopback,
    Private,
    Public,
    /// A signal to the process; there is no address.
    Signal,
}

impl Peer {
    pub fn of(address: IpAddr) -> Self {
        let private = match address.to_canonical() {
            IpAddr::V4(v4) => v4.is_private() || v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
        };
        match address.to_canonical() {
            address if address.is_loopback() => Self::Loopback,
            _ if private => Self::Private,
            _ => Self::Public,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::Public => "public",
            Self::Signal => "signal",
        }
    }
}

#[derive(Debug, Default)]
struct Kept {
    /// Entries of authorized callers, also if the request failed.
    orders: VecDeque<Entry>,
    refused: VecDeque<Entry>,
}

#[derive(Debug, Default)]
pub struct Audit(Mutex<Kept>);

impl Audit {
    pub fn note(&self, entry: Entry) {
        let Entry {
            action,
            outcome,
            peer,
            ..
        } = entry;
        let outcome_name = outcome.name();
        let peer_name = peer.name();
        let subject = entry.subject.as_deref();
        // `tracing` levels are static, so each level needs its own call.
        if outcome == Outcome::Done {
            tracing::info!(target: "audit", action, subject, outcome = outcome_name, peer = peer_name, "admin request");
        } else {
            tracing::warn!(target: "audit", action, subject, outcome = outcome_name, peer = peer_name, "admin request");
        }
        let mut kept = self.kept();
        let list = if outcome == Outcome::Refused {
            &mut kept.refused
        } else {
            &mut kept.orders
        };
        if list.len() >= KEPT {
            list.pop_front();
        }
        list.push_back(entry);
    }

    /// All kept entries, newest first. Entries of the same millisecond are in no particular order.
    pub fn newest_first(&self) -> Vec<Entry> {
        let kept = self.kept();
        let mut entries: Vec<_> = kept
            .orders
            .iter()
            .chain(&kept.refused)
            .cloned()
            .rev()
            .collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.at));
        entries
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(ms: u64, outcome: Outcome) -> Entry {
        Entry {
            at: At(ms),
            action: "reload",
            subject: None,
            outcome,
            peer: Peer::Loopback,
        }
    }

    #[test]
    fn refused_requests_do_not_push_out_authorized_ones() {
        let audit = Audit::default();
        audit.note(entry(1, Outcome::Done));
        for ms in 0..1_000 {
            audit.note(entry(2 + ms, Outcome::Refused));
        }
        let kept = audit.newest_first();
        assert_eq!(
            (kept.len(), kept.last().cloned()),
            (KEPT + 1, Some(entry(1, Outcome::Done)))
        );
        assert_eq!(kept.first(), Some(&entry(1_001, Outcome::Refused)));
        for ms in 0..1_000 {
            audit.note(entry(2_000 + ms, Outcome::Invalid));
        }
        assert_eq!(audit.newest_first().len(), 2 * KEPT);
    }

    #[test]
    fn addresses_are_classified() {
        for (address, peer) in [
            ("127.0.0.1", Peer::Loopback),
            ("::1", Peer::Loopback),
            ("::ffff:127.0.0.1", Peer::Loopback),
            ("10.1.2.3", Peer::Private),
            ("::ffff:192.168.1.1", Peer::Private),
            ("fd00::1", Peer::Private),
            ("fe80::1", Peer::Private),
            ("198.51.100.7", Peer::Public),
            ("2001:db8::1", Peer::Public),
        ] {
            assert_eq!(Peer::of(address.parse().unwrap()), peer, "{address}");
        }
    }

    #[test]
    fn status_codes_map_to_outcomes() {
        for (status, outcome) in [
            (200, Outcome::Done),
            (202, Outcome::Done),
            (400, Outcome::Invalid),
            (401, Outcome::Refused),
            (403, Outcome::Refused),
            (404, Outcome::Invalid),
            (422, Outcome::Invalid),
            (503, Outcome::Failed),
        ] {
            assert_eq!(Outcome::of_status(status), outcome, "{status}");
        }
    }
}

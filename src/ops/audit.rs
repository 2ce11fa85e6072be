//! The audit log: admin requests, accepted or refused. Each one is a log line with target `audit`,
//! and the most recent ones are kept in memory.
//!
//! Entries contain no secrets: the caller is identified by the kind of its address only, and the
//! subject by a configured name. Entries that must outlive the process come from the log.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::net::IpAddr;

use serde::Serialize;

use crate::domain::Timestamp;

/// The number of entries kept of authorized callers, and again of refused ones, so that a caller
/// without a token cannot push out what operators did.
pub const MAX_RETAINED: usize = 200;

/// One request to the admin API, or a signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditEntry {
    pub at: Timestamp,
    pub action: &'static str,
    /// A configured name, a word of the protocol, or a hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    pub outcome: AuditOutcome,
    pub peer: PeerKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditOutcome {
    Done,
    /// The caller is not authorized.
    Refused,
    /// The request was malformed, or named something that does not exist.
    Invalid,
    Failed,
}

impl AuditOutcome {
    pub const fn from_status(status: u16) -> Self {
        match status {
            ..400 => Self::Done,
            401 | 403 => Self::Refused,
            400..500 => Self::Invalid,
            500.. => Self::Failed,
        }
    }

    const fn as_str(self) -> &'static str {
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
pub enum PeerKind {
    Loopback,
    Private,
    Public,
    /// A signal to the process; there is no address.
    Signal,
}

impl PeerKind {
    pub fn from_address(address: IpAddr) -> Self {
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

    const fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::Public => "public",
            Self::Signal => "signal",
        }
    }
}

#[derive(Debug, Default)]
struct AuditEntries {
    /// Entries of authorized callers, also if the request failed.
    authorized: VecDeque<AuditEntry>,
    refused: VecDeque<AuditEntry>,
}

#[derive(Debug, Default)]
pub struct AuditLog(Mutex<AuditEntries>);

impl AuditLog {
    pub fn record(&self, entry: AuditEntry) {
        let action = entry.action;
        let outcome = entry.outcome.as_str();
        let peer = entry.peer.as_str();
        let subject = entry.subject.as_deref();
        // `tracing` levels are static, so each level needs its own call.
        if entry.outcome == AuditOutcome::Done {
            tracing::info!(target: "audit", action, subject, outcome, peer, "admin request");
        } else {
            tracing::warn!(target: "audit", action, subject, outcome, peer, "admin request");
        }
        let mut kept = self.0.lock();
        let list = if entry.outcome == AuditOutcome::Refused {
            &mut kept.refused
        } else {
            &mut kept.authorized
        };
        if list.len() >= MAX_RETAINED {
            list.pop_front();
        }
        list.push_back(entry);
    }

    /// All kept entries, newest first. Entries of the same millisecond are in no particular order.
    pub fn recent(&self) -> Vec<AuditEntry> {
        let kept = self.0.lock();
        let mut entries: Vec<_> = kept
            .authorized
            .iter()
            .chain(&kept.refused)
            .cloned()
            .rev()
            .collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.at));
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(ms: u64, outcome: AuditOutcome) -> AuditEntry {
        AuditEntry {
            at: Timestamp(ms),
            action: "reload",
            subject: None,
            outcome,
            peer: PeerKind::Loopback,
        }
    }

    #[test]
    fn refused_requests_do_not_push_out_authorized_ones() {
        let audit = AuditLog::default();
        audit.record(entry(1, AuditOutcome::Done));
        for ms in 0..1_000 {
            audit.record(entry(2 + ms, AuditOutcome::Refused));
        }
        let kept = audit.recent();
        assert_eq!(
            (kept.len(), kept.last().cloned()),
            (MAX_RETAINED + 1, Some(entry(1, AuditOutcome::Done)))
        );
        assert_eq!(kept.first(), Some(&entry(1_001, AuditOutcome::Refused)));
        for ms in 0..1_000 {
            audit.record(entry(2_000 + ms, AuditOutcome::Invalid));
        }
        assert_eq!(audit.recent().len(), 2 * MAX_RETAINED);
    }

    #[test]
    fn addresses_are_classified() {
        for (address, peer) in [
            ("127.0.0.1", PeerKind::Loopback),
            ("::1", PeerKind::Loopback),
            ("::ffff:127.0.0.1", PeerKind::Loopback),
            ("10.1.2.3", PeerKind::Private),
            ("::ffff:192.168.1.1", PeerKind::Private),
            ("fd00::1", PeerKind::Private),
            ("fe80::1", PeerKind::Private),
            ("198.51.100.7", PeerKind::Public),
            ("2001:db8::1", PeerKind::Public),
        ] {
            assert_eq!(
                PeerKind::from_address(address.parse().unwrap()),
                peer,
                "{address}"
            );
        }
    }

    #[test]
    fn status_codes_map_to_outcomes() {
        for (status, outcome) in [
            (200, AuditOutcome::Done),
            (202, AuditOutcome::Done),
            (400, AuditOutcome::Invalid),
            (401, AuditOutcome::Refused),
            (403, AuditOutcome::Refused),
            (404, AuditOutcome::Invalid),
            (422, AuditOutcome::Invalid),
            (503, AuditOutcome::Failed),
        ] {
            assert_eq!(AuditOutcome::from_status(status), outcome, "{status}");
        }
    }
}

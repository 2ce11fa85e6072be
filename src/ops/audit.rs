//! What operators did, and what was refused to who is none: a line in the log each, target `audit`, and the last of them at hand.
//!
//! No secret is in it: who gave an order is told by the kind of their address alone, and what it was about by names that are configured. The list is in memory; what
//! is to outlive the process is the log.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::chat::At;

/// How many are kept of those that came from an operator, and as many of those that did not: who has no token cannot push out what operators did.
pub const KEPT: usize = 200;

/// Something that was asked of the admin API, or by a signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When.
    pub at: At,
    /// What was asked for.
    pub action: &'static str,
    /// Of what: a configured name, a word of the protocol, or a hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What came of it.
    pub outcome: Outcome,
    /// Where it came from.
    pub peer: Peer,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was carried out.
    Done,
    /// It came from who may give no orders.
    Refused,
    /// It was no order that can be carried out.
    Invalid,
    /// It could not be carried out.
    Failed,
}

impl Outcome {
    /// What an answer with this status says.
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

/// The kind of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Peer {
    /// This machine.
    Loopback,
    /// A network that is nobody else's.
    Private,
    /// Anywhere else.
    Public,
    /// A signal to the process, and no address.
    Signal,
}

impl Peer {
    /// The kind of this address.
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
    orders: VecDeque<Entry>,
    refused: VecDeque<Entry>,
}

/// The last of what operators did.
#[derive(Debug, Default)]
pub struct Audit(Mutex<Kept>);

impl Audit {
    /// Takes down one more.
    pub fn note(&self, entry: Entry) {
        let Entry {
            action,
            outcome,
            peer,
            ..
        } = entry;
        let (outcome_name, peer_name, subject) =
            (outcome.name(), peer.name(), entry.subject.as_deref());
        if outcome == Outcome::Done {
            tracing::info!(target: "audit", action, subject, outcome = outcome_name, peer = peer_name, "an operator's order");
        } else {
            tracing::warn!(target: "audit", action, subject, outcome = outcome_name, peer = peer_name, "an operator's order");
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

    /// Those that are kept, the newest first; those of one millisecond in no certain order.
    pub fn newest_first(&self) -> Vec<Entry> {
        let kept = self.kept();
        let mut all: Vec<_> = kept
            .orders
            .iter()
            .chain(&kept.refused)
            .cloned()
            .rev()
            .collect();
        all.sort_by_key(|entry| std::cmp::Reverse(entry.at));
        all
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
    fn a_flood_of_refused_ones_pushes_out_no_order() {
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
    fn addresses_are_told_by_their_kind() {
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
    fn a_status_says_what_came_of_it() {
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

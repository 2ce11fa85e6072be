//! What a server was found not to take: parameters that it refused and that are left out, or said otherwise, from then on.

use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::Value;

use super::complaint::Complaint;
use super::{Call, Refused};

/// At most eight optional parameters of one provider, and which of them it refused. Forgotten with the process: a server learns too.
pub(super) struct Learned {
    names: &'static [&'static str],
    refused: AtomicU8,
}

impl Learned {
    /// Nothing refused yet of these parameters, which are top-level members of the request.
    pub(super) const fn new(names: &'static [&'static str]) -> Self {
        Self { names, refused: AtomicU8::new(0) }
    }

    fn bit(&self, name: &str) -> u8 {
        let place = self.names.iter().position(|known| *known == name);
        place.map_or(0, |place| 1 << (place % 8))
    }

    /// Whether the server takes this parameter, as far as is known.
    pub(super) fn takes(&self, name: &str) -> bool {
        self.refused.load(Ordering::Relaxed) & self.bit(name) == 0
    }

    /// The parameter of `sent` that the answer refuses, from now on remembered; none where it refuses something else.
    pub(super) fn learn(&self, sent: &Call, answer: &Refused<'_>) -> Option<&'static str> {
        if !matches!(answer.status, 400 | 422) {
            return None;
        }
        let complaint = Complaint::of(answer.body);
        if !complaint.recognised || complaint.overflow() {
            return None;
        }
        // Another turn may have learned it meanwhile: what counts is that this request still had it.
        let body: Value = serde_json::from_str(&sent.body).ok()?;
        let sent = self.names.iter().copied().filter(|name| body.get(name).is_some());
        let name = named(&complaint, sent)?;
        self.refused.fetch_or(self.bit(name), Ordering::Relaxed);
        Some(name)
    }
}

/// Which of `names` the complaint refuses as such, not merely its value's size.
fn named(complaint: &Complaint, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    const CODES: [&str; 3] = ["unsupported_parameter", "unsupported_value", "unknown_parameter"];
    const PHRASES: [&str; 10] = [
        "unsupported",
        "not supported",
        "not support",
        "unrecognized",
        "unknown",
        "unexpected",
        "not permitted",
        "not allowed",
        "deprecated",
        "removed",
    ];
    let lower = complaint.lower();
    let refuses =
        CODES.contains(&complaint.code.as_str()) || PHRASES.iter().any(|phrase| lower.contains(phrase));
    if !refuses {
        return None;
    }
    let mut names = names;
    if complaint.param.is_empty() {
        // A message may propose another name after the one that it refuses.
        let placed = names.filter_map(|name| Some((lower.find(name)?, name)));
        placed.min().map(|(_, name)| name)
    } else {
        names.find(|name| complaint.param == *name)
    }
}

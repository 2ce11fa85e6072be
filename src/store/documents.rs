//! Small documents of the service, by kind and key.

use futures_util::future::ready;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};

use super::StoreFuture;
use super::codec::{decode, encode};
use crate::domain::{FaultKind, Incident, ServiceLifetime, Timestamp};

/// The number of incidents kept. The oldest is deleted first.
pub const MAX_INCIDENTS: usize = 500;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BreakerRecord {
    pub provider: String,
    /// The provider rejected its key or quota, so the breaker is blocked rather than open.
    #[serde(rename = "blocked")]
    pub is_blocked: bool,
    #[serde(rename = "strikes")]
    pub failed_probes: u32,
    #[serde(rename = "until")]
    pub retry_at: Timestamp,
    /// The reason in the wire protocol's words. Several faults share one reason.
    pub reason: String,
    /// The exact fault. `None` if the writer did not record it or this version does not know it.
    #[serde(default, deserialize_with = "deserialize_known_fault")]
    pub fault: Option<FaultKind>,
}

/// Reads a fault, mapping one that this version does not know to `None`.
fn deserialize_known_fault<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<FaultKind>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum MaybeKnown {
        Known(FaultKind),
        Other(IgnoredAny),
    }
    Ok(match Option::deserialize(from)? {
        Some(MaybeKnown::Known(fault)) => Some(fault),
        Some(MaybeKnown::Other(IgnoredAny)) | None => None,
    })
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DailySpendRecord {
    pub provider: String,
    /// Days since 1970-01-01, UTC.
    #[serde(rename = "day")]
    pub utc_day: u64,
    pub usd: f64,
    #[serde(rename = "estimated")]
    pub is_estimated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DocumentKind {
    /// The state of a breaker that is not closed, by provider.
    Breaker,
    /// A provider's spend on the last day written, by provider.
    DailySpend,
    /// An incident, by start and id. Limited to [`MAX_INCIDENTS`].
    Incident,
    /// The service's lifetime. Its only key is empty.
    Lifetime,
    /// Text that another part of the service keeps, by name.
    Note,
}

impl DocumentKind {
    /// The letter that names the kind in keys.
    pub(super) fn letter(self) -> char {
        match self {
            DocumentKind::Breaker => 'b',
            DocumentKind::DailySpend => 's',
            DocumentKind::Incident => 'i',
            DocumentKind::Lifetime => 'l',
            DocumentKind::Note => 'n',
        }
    }

    /// The name in the log.
    pub(super) fn name(self) -> &'static str {
        match self {
            DocumentKind::Breaker => "breaker",
            DocumentKind::DailySpend => "daily spend",
            DocumentKind::Incident => "incident",
            DocumentKind::Lifetime => "service lifetime",
            DocumentKind::Note => "document",
        }
    }

    /// `true` if instances that share a store share the documents.
    pub(super) fn is_shared(self) -> bool {
        matches!(self, DocumentKind::Incident | DocumentKind::Lifetime)
    }

    /// The number of documents kept. The one with the lowest key is deleted first.
    pub(super) fn max_count(self) -> usize {
        match self {
            DocumentKind::Incident => MAX_INCIDENTS,
            _ => usize::MAX,
        }
    }
}

pub(super) fn incident_key(incident: &Incident) -> String {
    format!("{:020}-{}", incident.started.0, incident.id)
}

/// Storage of small documents in their encoded form, with typed access to each kind.
///
/// Callers use a few fixed keys and a few kilobytes per document; the store enforces neither.
pub trait DocumentStore: Send + Sync {
    fn get(&self, kind: DocumentKind, key: String) -> StoreFuture<'_, Option<Vec<u8>>>;

    /// Returns all documents of a kind with their keys, in the order of the keys.
    fn list(&self, kind: DocumentKind) -> StoreFuture<'_, Vec<(String, Vec<u8>)>>;

    /// Replaces a document, or deletes it if `None`.
    fn put(&self, kind: DocumentKind, key: String, document: Option<Vec<u8>>) -> StoreFuture<'_>;

    /// Returns the state of the breakers that are not closed.
    fn breakers(&self) -> StoreFuture<'_, Vec<BreakerRecord>> {
        list_decoded(self, DocumentKind::Breaker)
    }

    /// Writes a breaker's state. `None` stands for a closed breaker.
    fn write_breaker(&self, provider: String, record: Option<BreakerRecord>) -> StoreFuture<'_> {
        match record {
            Some(record) => put_encoded(self, DocumentKind::Breaker, provider, &record),
            None => self.put(DocumentKind::Breaker, provider, None),
        }
    }

    /// Returns each provider's spend on the last day written, one record per provider.
    fn daily_spend(&self) -> StoreFuture<'_, Vec<DailySpendRecord>> {
        list_decoded(self, DocumentKind::DailySpend)
    }

    /// Replaces the provider's spend record, whatever day that was for.
    fn save_daily_spend(&self, record: DailySpendRecord) -> StoreFuture<'_> {
        put_encoded(
            self,
            DocumentKind::DailySpend,
            record.provider.clone(),
            &record,
        )
    }

    /// Returns the last [`MAX_INCIDENTS`] incidents, oldest first.
    fn incidents(&self) -> StoreFuture<'_, Vec<Incident>> {
        list_decoded(self, DocumentKind::Incident)
    }

    /// Inserts or replaces an incident, identified by its start and id.
    fn write_incident(&self, incident: Incident) -> StoreFuture<'_> {
        put_encoded(
            self,
            DocumentKind::Incident,
            incident_key(&incident),
            &incident,
        )
    }

    fn service_lifetime(&self) -> StoreFuture<'_, Option<ServiceLifetime>> {
        get_decoded(self, DocumentKind::Lifetime, String::new())
    }

    fn save_service_lifetime(&self, life: ServiceLifetime) -> StoreFuture<'_> {
        put_encoded(self, DocumentKind::Lifetime, String::new(), &life)
    }

    /// Returns the note last stored under `name`. Instances that share a store have separate notes.
    fn note(&self, name: String) -> StoreFuture<'_, Option<String>> {
        get_decoded(self, DocumentKind::Note, name)
    }

    fn write_note(&self, name: String, text: String) -> StoreFuture<'_> {
        put_encoded(self, DocumentKind::Note, name, &text)
    }
}

fn get_decoded<S: DocumentStore + ?Sized, T: DeserializeOwned>(
    store: &S,
    kind: DocumentKind,
    key: String,
) -> StoreFuture<'_, Option<T>> {
    let document = store.get(kind, key);
    Box::pin(async move {
        Ok(document
            .await?
            .and_then(|bytes| decode(kind.name(), &bytes)))
    })
}

fn list_decoded<S: DocumentStore + ?Sized, T: DeserializeOwned>(
    store: &S,
    kind: DocumentKind,
) -> StoreFuture<'_, Vec<T>> {
    let documents = store.list(kind);
    Box::pin(async move {
        let documents = documents.await?;
        let decoded = documents
            .iter()
            .filter_map(|(_, bytes)| decode(kind.name(), bytes));
        Ok(decoded.collect())
    })
}

fn put_encoded<'s, S: DocumentStore + ?Sized>(
    store: &'s S,
    kind: DocumentKind,
    key: String,
    value: &impl Serialize,
) -> StoreFuture<'s> {
    match encode(value) {
        Ok(bytes) => store.put(kind, key, Some(bytes)),
        Err(error) => Box::pin(ready(Err(error))),
    }
}

//! What the `DegradationActor` publishes: the fallback chain, and its problems beside it.

use std::sync::Arc;

use tokio::sync::watch;

use super::fallback_chain::FallbackChain;
use super::knowledge::folder::FolderChange;
use super::replies::Replies;
use crate::config::{ConfigErrors, Problem};

/// Documents with problems that are listed one by one; the log lists all of them.
const MAX_LISTED_PROBLEMS: usize = 10;

/// The watch channels of the fallback chain and its problems.
///
/// Clones share the channels. A rebuilt actor gets a clone, so receivers stay connected.
#[derive(Clone, Debug)]
pub struct FallbackWatch {
    chain: watch::Sender<Arc<FallbackChain>>,
    /// The problems of the last attempt to read the reply rules. Empty if it succeeded.
    pub(super) reply_problems: watch::Sender<Arc<[Problem]>>,
    pub(super) knowledge_problems: watch::Sender<Arc<[Problem]>>,
    failed_checks: watch::Sender<Arc<[String]>>,
}

impl FallbackWatch {
    /// Starts with the built-in replies and this fixed text, so that an answer exists at once.
    pub fn new(fallback: &str) -> Self {
        let chain = FallbackChain::new(Replies::built_in(), fallback);
        Self {
            chain: watch::Sender::new(Arc::new(chain)),
            reply_problems: watch::Sender::default(),
            knowledge_problems: watch::Sender::default(),
            failed_checks: watch::Sender::default(),
        }
    }

    /// The current chain. A turn clones the `Arc` and keeps that chain to its end.
    pub fn chain(&self) -> watch::Receiver<Arc<FallbackChain>> {
        self.chain.subscribe()
    }

    /// All problems as messages for the status: in English, without paths.
    pub fn problem_messages(&self) -> Vec<String> {
        let mut messages = Vec::new();
        if !self.reply_problems.borrow().is_empty() {
            let message =
                "The reply rules have problems and were not taken over; the log names them.";
            messages.push(message.to_owned());
        }
        let knowledge = Arc::clone(&self.knowledge_problems.borrow());
        let listed = knowledge.iter().take(MAX_LISTED_PROBLEMS);
        messages.extend(listed.map(|problem| format!("Knowledge: {problem}.")));
        let more = knowledge.len().saturating_sub(MAX_LISTED_PROBLEMS);
        if more > 0 {
            messages.push(format!(
                "Knowledge: {more} more problems; the log names them."
            ));
        }
        messages.extend(self.failed_checks.borrow().iter().cloned());
        messages
    }

    /// Publishes a new chain, with the knowledge of the old one; or the problems, if there are any.
    pub(super) fn publish_chain(
        &self,
        read: Result<FallbackChain, ConfigErrors>,
    ) -> Result<(), ConfigErrors> {
        match read {
            Ok(chain) => {
                let knowledge = Arc::clone(self.chain.borrow().knowledge());
                let chain = chain.with_knowledge(knowledge);
                self.chain.send_replace(Arc::new(chain));
                self.reply_problems.send_replace(Arc::default());
                tracing::info!("reply rules read");
                Ok(())
            }
            Err(problems) => {
                let first = problems.0.first().map(tracing::field::display);
                tracing::warn!(problems = problems.0.len(), first, "reply rules rejected");
                let published = problems.0.as_slice().into();
                self.reply_problems.send_replace(published);
                Err(problems)
            }
        }
    }

    pub(super) fn publish_knowledge(&self, change: FolderChange) {
        let passages = change.index.as_ref().map(|index| index.passages().len());
        tracing::info!(passages, problems = change.problems.len(), "knowledge read");
        for problem in &change.problems {
            tracing::warn!(%problem, "knowledge document skipped");
        }
        // Problems first: whoever sees the new index also sees what it lacks.
        self.knowledge_problems.send_replace(change.problems.into());
        if let Some(index) = change.index {
            self.chain.send_modify(|chain| {
                *chain = Arc::new(FallbackChain::clone(chain).with_knowledge(index))
            });
        }
    }

    /// Publishes the failures of a self-check and logs them if they changed.
    pub(super) fn publish_failed_checks(&self, failures: Vec<String>) {
        self.failed_checks.send_if_modified(|before| {
            let is_changed = **before != *failures;
            for failure in failures.iter().filter(|_| is_changed) {
                tracing::error!(failure, "self-check failed");
            }
            *before = failures.into();
            is_changed
        });
    }
}

//! What is wrong with the answers that no provider gives, in sentences for the status.

use std::sync::Arc;

use tokio::sync::watch;

use crate::settings::Problem;

/// The most documents that are named one by one; the log names them all.
const NAMED: usize = 10;

/// A view of what is wrong, as it now is.
#[derive(Clone, Debug)]
pub struct Health {
    rules: watch::Receiver<Arc<[Problem]>>,
    knowledge: watch::Receiver<Arc<[Problem]>>,
    broken: watch::Receiver<Arc<[String]>>,
}

impl Health {
    /// Of the rules' problems, those of the knowledge folder, and what the last self-check found.
    pub(super) fn new(
        rules: watch::Receiver<Arc<[Problem]>>,
        knowledge: watch::Receiver<Arc<[Problem]>>,
        broken: watch::Receiver<Arc<[String]>>,
    ) -> Self {
        Self {
            rules,
            knowledge,
            broken,
        }
    }

    /// All of it, without paths; empty while all is well.
    pub fn sentences(&self) -> Vec<String> {
        let mut told = Vec::new();
        if !self.rules.borrow().is_empty() {
            told.push(
                "The reply rules have problems and were not taken over; the log names them."
                    .to_owned(),
            );
        }
        let knowledge = Arc::clone(&self.knowledge.borrow());
        told.extend(
            knowledge
                .iter()
                .take(NAMED)
                .map(|problem| format!("Knowledge: {problem}.")),
        );
        if let Some(more) = knowledge.len().checked_sub(NAMED).filter(|more| *more > 0) {
            told.push(format!(
                "Knowledge: {more} more problems; the log names them."
            ));
        }
        told.extend(self.broken.borrow().iter().cloned());
        told
    }
}

#[cfg(test)]
impl Health {
    /// Waits until the knowledge has so many problems.
    pub(super) async fn changed_knowledge(&mut self, problems: usize) {
        let limit = std::time::Duration::from_secs(20);
        let there = self.knowledge.wait_for(|found| found.len() == problems);
        assert!(
            tokio::time::timeout(limit, there).await.is_ok(),
            "never {problems} problems"
        );
    }
}

//! The problems of the fallback answers, as messages for the status.

use std::sync::Arc;

use tokio::sync::watch;

use crate::settings::Problem;

/// Documents with problems that are listed one by one; the log lists all of them.
const NAMED: usize = 10;

/// The current problems.
#[derive(Clone, Debug)]
pub struct Health {
    rules: watch::Receiver<Arc<[Problem]>>,
    knowledge: watch::Receiver<Arc<[Problem]>>,
    broken: watch::Receiver<Arc<[String]>>,
}

impl Health {
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

    /// All problems in English, without paths.
    pub fn sentences(&self) -> Vec<String> {
        let mut messages = Vec::new();
        if !self.rules.borrow().is_empty() {
            messages.push(
                "The reply rules have problems and were not taken over; the log names them."
                    .to_owned(),
            );
        }
        let knowledge = Arc::clone(&self.knowledge.borrow());
        messages.extend(
            knowledge
                .iter()
                .take(NAMED)
                .map(|problem| format!("Knowledge: {problem}.")),
        );
        if let Some(more) = knowledge.len().checked_sub(NAMED).filter(|more| *more > 0) {
            messages.push(format!(
                "Knowledge: {more} more problems; the log names them."
            ));
        }
        messages.extend(self.broken.borrow().iter().cloned());
        messages
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

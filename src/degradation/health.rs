//! The problems of the fallback answers, as messages for the status.

use std::sync::Arc;

use tokio::sync::watch;

use crate::config::Problem;

/// Documents with problems that are listed one by one; the log lists all of them.
const MAX_LISTED_PROBLEMS: usize = 10;

/// A live view of the problems of the fallback answers.
#[derive(Clone, Debug)]
pub struct FallbackHealth {
    reply_problems: watch::Receiver<Arc<[Problem]>>,
    knowledge_problems: watch::Receiver<Arc<[Problem]>>,
    failed_checks: watch::Receiver<Arc<[String]>>,
}

impl FallbackHealth {
    pub(super) fn new(
        reply_problems: watch::Receiver<Arc<[Problem]>>,
        knowledge_problems: watch::Receiver<Arc<[Problem]>>,
        failed_checks: watch::Receiver<Arc<[String]>>,
    ) -> Self {
        Self {
            reply_problems,
            knowledge_problems,
            failed_checks,
        }
    }

    /// All problems in English, without paths.
    pub fn messages(&self) -> Vec<String> {
        let mut messages = Vec::new();
        if !self.reply_problems.borrow().is_empty() {
            messages.push(
                "The reply rules have problems and were not taken over; the log names them."
                    .to_owned(),
            );
        }
        let knowledge = Arc::clone(&self.knowledge_problems.borrow());
        messages.extend(
            knowledge
                .iter()
                .take(MAX_LISTED_PROBLEMS)
                .map(|problem| format!("Knowledge: {problem}.")),
        );
        if let Some(more) = knowledge
            .len()
            .checked_sub(MAX_LISTED_PROBLEMS)
            .filter(|more| *more > 0)
        {
            messages.push(format!(
                "Knowledge: {more} more problems; the log names them."
            ));
        }
        messages.extend(self.failed_checks.borrow().iter().cloned());
        messages
    }
}

#[cfg(test)]
impl FallbackHealth {
    /// Waits until the knowledge has so many problems.
    pub(super) async fn wait_for_knowledge_problems(&mut self, problems: usize) {
        let limit = std::time::Duration::from_secs(20);
        let there = self
            .knowledge_problems
            .wait_for(|found| found.len() == problems);
        assert!(
            tokio::time::timeout(limit, there).await.is_ok(),
            "never {problems} problems"
        );
    }
}

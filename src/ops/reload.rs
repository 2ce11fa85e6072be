//! The requesting side of a configuration reload. `app` carries it out.

use std::time::Duration;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::config::{ConfigErrors, Problem};

const MAX_WAITING: usize = 8;

/// Longer than the timeouts of all steps of a reload together.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReloadResult {
    pub providers: ProviderChanges,
    /// Changed keys that take effect after a restart only.
    pub needs_restart: Vec<&'static str>,
    /// Problems that do not prevent the reload.
    pub warnings: Vec<ConfigProblem>,
}

/// Names of the providers that a reload changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProviderChanges {
    pub added: Vec<String>,
    pub changed: Vec<String>,
    pub removed: Vec<String>,
}

/// A problem of the configuration, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigProblem {
    pub file: String,
    pub line: Option<usize>,
    pub key: String,
    /// A sentence that says what is wrong, and what would be right.
    pub what: String,
}

impl From<&Problem> for ConfigProblem {
    fn from(problem: &Problem) -> Self {
        let name = std::path::Path::new(&problem.file).file_name();
        Self {
            file: name
                .map_or(problem.file.as_str().into(), |name| name.to_string_lossy())
                .into_owned(),
            line: problem.line,
            key: problem.key.clone(),
            what: problem.message.clone(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadError {
    /// The configuration, or a file that it names, is invalid. Nothing has changed.
    InvalidConfig(Vec<ConfigProblem>),
    /// The reload could not be carried out. The text is for the operator.
    Failed(&'static str),
}

impl From<ConfigErrors> for ReloadError {
    fn from(ConfigErrors(problems): ConfigErrors) -> Self {
        Self::InvalidConfig(problems.iter().map(ConfigProblem::from).collect())
    }
}

pub type ReloadRequest = oneshot::Sender<Result<ReloadResult, ReloadError>>;

/// Requests reloads, which run one after the other.
#[derive(Clone, Debug)]
pub struct ReloadHandle(mpsc::Sender<ReloadRequest>);

impl ReloadHandle {
    /// Returns the handle, and the receiver for the worker that carries the requests out.
    pub fn new() -> (Self, mpsc::Receiver<ReloadRequest>) {
        let (sender, requests) = mpsc::channel(MAX_WAITING);
        (Self(sender), requests)
    }

    pub async fn reload(&self) -> Result<ReloadResult, ReloadError> {
        let (reply, result) = oneshot::channel();
        if self.0.try_send(reply).is_err() {
            return Err(ReloadError::Failed(
                "too many reloads are waiting; try again when one has finished",
            ));
        }
        match tokio::time::timeout(RELOAD_TIMEOUT, result).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(ReloadError::Failed("the service is shutting down")),
            Err(_) => Err(ReloadError::Failed(
                "the reload did not finish in time; see the log for its result",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_show_the_file_without_its_folder() {
        for (file, shown) in [
            ("etc/failsoft/failsoft.toml", "failsoft.toml"),
            ("environment", "environment"),
            ("", ""),
        ] {
            let problem = Problem {
                file: file.into(),
                line: Some(3),
                key: "chat.title".into(),
                message: "no".into(),
            };
            assert_eq!(ConfigProblem::from(&problem).file, shown);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn reload_fails_when_too_many_wait_or_one_does_not_finish() {
        let (reloads, mut requests) = ReloadHandle::new();
        let callers: Vec<_> = (0..MAX_WAITING)
            .map(|_| {
                let reloads = reloads.clone();
                tokio::spawn(async move { reloads.reload().await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(
            matches!(reloads.reload().await, Err(ReloadError::Failed(why)) if why.contains("too many"))
        );
        let first = requests.recv().await.unwrap();
        first.send(Ok(ReloadResult::default())).unwrap();
        let mut results = Vec::new();
        for caller in callers {
            results.push(caller.await.unwrap());
        }
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        assert_eq!(
            results
                .iter()
                .filter(|result| matches!(result, Err(ReloadError::Failed(_))))
                .count(),
            MAX_WAITING - 1
        );
        drop(requests);
        assert!(reloads.reload().await.is_err());
    }
}

//! Reading the configuration again: who may ask for it, and what they are told. Carrying it out is the app's business, which knows all that there is.

use std::time::Duration;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::settings::{Problem, Problems};

/// Reloads that wait for the one under way.
const WAITING: usize = 8;

/// How long one is waited for: longer than the limits of all its parts.
const LIMIT: Duration = Duration::from_secs(20);

/// What has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// Providers, by name.
    pub providers: Changed,
    /// Keys whose new values count after a restart only; until then the old ones do.
    pub needs_restart: Vec<&'static str>,
    /// What is odd about the configuration, but no reason to refuse it.
    pub warnings: Vec<Told>,
}

/// Providers by what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// New ones.
    pub added: Vec<String>,
    /// Those that go by other settings now.
    pub changed: Vec<String>,
    /// Those that are asked no more.
    pub removed: Vec<String>,
}

/// A problem, as operators are told it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// The file's name, without its folder.
    pub file: String,
    /// The line, where it has one.
    pub line: Option<usize>,
    /// The key, where it is about one.
    pub key: String,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl From<&Problem> for Told {
    fn from(problem: &Problem) -> Self {
        let Problem {
            file,
            line,
            key,
            what,
        } = problem;
        let name = std::path::Path::new(file).file_name();
        let file = name.map_or_else(|| file.clone(), |name| name.to_string_lossy().into_owned());
        Self {
            file,
            line: *line,
            key: key.clone(),
            what: what.clone(),
        }
    }
}

/// Why nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotReloaded {
    /// The configuration, or a file that it names, is wrong in these ways.
    Wrong(Vec<Told>),
    /// It could not be done now: in words for the operator.
    Failed(&'static str),
}

impl From<Problems> for NotReloaded {
    fn from(Problems(problems): Problems) -> Self {
        Self::Wrong(problems.iter().map(Told::from).collect())
    }
}

/// Someone who waits for the end of a reload.
pub type Asked = oneshot::Sender<Result<Reloaded, NotReloaded>>;

/// Asks for reloads. They are carried out one after the other.
#[derive(Clone, Debug)]
pub struct Reloads(mpsc::Sender<Asked>);

impl Reloads {
    /// What asks, and what has to be read by who carries it out.
    pub fn new() -> (Self, mpsc::Receiver<Asked>) {
        let (ask, asked) = mpsc::channel(WAITING);
        (Self(ask), asked)
    }

    /// Asks for one and waits for its end.
    ///
    /// # Errors
    /// See [`NotReloaded`]; nothing has changed then.
    pub async fn reload(&self) -> Result<Reloaded, NotReloaded> {
        let (tell, told) = oneshot::channel();
        if self.0.try_send(tell).is_err() {
            return Err(NotReloaded::Failed(
                "too many reloads wait; try again when one has ended",
            ));
        }
        match tokio::time::timeout(LIMIT, told).await {
            Ok(Ok(end)) => end,
            Ok(Err(_)) => Err(NotReloaded::Failed("the service goes down")),
            Err(_) => Err(NotReloaded::Failed(
                "the reload is not over in time; look at the log for its end",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_without_the_folder_of_its_file() {
        for (file, told) in [
            ("etc/failsoft/failsoft.toml", "failsoft.toml"),
            ("environment", "environment"),
            ("", ""),
        ] {
            let problem = Problem {
                file: file.into(),
                line: Some(3),
                key: "chat.title".into(),
                what: "no".into(),
            };
            assert_eq!(Told::from(&problem).file, told);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_at_once_and_one_that_does_not_end_are_told() {
        let (reloads, mut asked) = Reloads::new();
        let waiting: Vec<_> = (0..WAITING)
            .map(|_| {
                let reloads = reloads.clone();
                tokio::spawn(async move { reloads.reload().await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(
            matches!(reloads.reload().await, Err(NotReloaded::Failed(why)) if why.contains("too many"))
        );
        let first = asked.recv().await.unwrap();
        first.send(Ok(Reloaded::default())).unwrap();
        let mut ends = Vec::new();
        for one in waiting {
            ends.push(one.await.unwrap());
        }
        assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 1);
        assert_eq!(
            ends.iter()
                .filter(|end| matches!(end, Err(NotReloaded::Failed(_))))
                .count(),
            WAITING - 1
        );
        drop(asked);
        assert!(reloads.reload().await.is_err());
    }
}

//! A provider without sockets: it follows a script, on a clock that tests pause, and notes who asked and who has not left yet.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream;
use tokio::time::Instant;

use super::upstream::{Step, Steps, Upstream};
use crate::chat::{Ask, Failure, Fault, Finish, Role, Usage};

/// One thing that a scripted provider does.
#[derive(Clone, Debug)]
pub enum Act {
    /// Says this.
    Say(String),
    /// Thinks.
    Think,
    /// Tells what it used: tokens in, tokens out.
    Used(u64, u64),
    /// Is silent for so long.
    Wait(Duration),
    /// Says this again and again, each time after so long, and never ends.
    Forever(String, Duration),
    /// Is silent from now on.
    Hang,
    /// Proves that the answer is whole.
    End(Finish),
    /// Fails.
    Fail(Failure),
    /// Is read by code that panics.
    Panic,
}

/// What a scripted provider does when it is asked. One that ends without a verdict breaks the promise of [`Steps`].
pub type Script = Vec<Act>;

/// An answer: this text, then its proof.
pub fn says(text: &str) -> Script {
    vec![Act::Say(text.to_owned()), Act::End(Finish::Stop)]
}

/// An answer in two parts with `pause` between them.
pub fn says_slowly(first: &str, pause: Duration, rest: &str) -> Script {
    vec![
        Act::Say(first.to_owned()),
        Act::Wait(pause),
        Act::Say(rest.to_owned()),
        Act::End(Finish::Stop),
    ]
}

/// A failure before any text.
pub fn fails(fault: Fault) -> Script {
    vec![Act::Fail(Failure::of(fault))]
}

/// A rate limit that ends after so long.
pub fn limited(retry_after: Duration) -> Script {
    vec![Act::Fail(Failure {
        retry_after: Some(retry_after),
        ..Failure::of(Fault::RateLimited)
    })]
}

/// This much text, then a failure.
pub fn breaks(text: &str, fault: Fault) -> Script {
    vec![Act::Say(text.to_owned()), Act::Fail(Failure::of(fault))]
}

/// Nothing, for ever.
pub fn silent() -> Script {
    vec![Act::Hang]
}

/// One call as the provider saw it.
#[derive(Clone, Debug)]
pub struct Call {
    /// When it was asked.
    pub at: Instant,
    /// What.
    pub ask: Ask,
    /// All that it said.
    pub said: String,
    /// How it failed, where it said so itself.
    pub failure: Option<Failure>,
}

#[derive(Default)]
struct Scripts {
    scripts: VecDeque<Script>,
    calls: Vec<Call>,
}

impl Scripts {
    /// The next script; the last one is followed again and again.
    fn next(&mut self, ask: &Ask, obliging: bool) -> (usize, Script) {
        self.calls.push(Call {
            at: Instant::now(),
            ask: ask.clone(),
            said: String::new(),
            failure: None,
        });
        let script = match self.scripts.len() {
            0 => says("Hello."),
            1 => self.scripts.front().cloned().unwrap_or_default(),
            _ => self.scripts.pop_front().unwrap_or_default(),
        };
        let script = if obliging { go_on(ask, script) } else { script };
        (self.calls.len() - 1, script)
    }
}

/// What a model would say that means to say `script`, where it is asked to go on with what it would have said: the rest, after a repeat of
/// what stands where it was told to repeat.
fn go_on(ask: &Ask, script: Script) -> Script {
    let own: String = script.iter().filter_map(said).collect();
    let begun = ask
        .messages
        .iter()
        .rev()
        .take(2)
        .find(|message| message.role == Role::Assistant);
    let begun = match begun.map(|message| &*message.text) {
        Some(begun) if !begun.is_empty() && own.starts_with(begun) => begun,
        _ => return script,
    };
    let repeat = ask
        .messages
        .last()
        .map_or("", |told| told.text.lines().last().unwrap_or_default());
    let repeat = if ask.goes_on || !begun.ends_with(repeat) {
        ""
    } else {
        repeat
    };
    let mut skip = begun.len() - repeat.len();
    let rest = script.into_iter().filter_map(|act| {
        let Act::Say(text) = act else {
            return Some(act);
        };
        let skipped = skip.min(text.len());
        skip -= skipped;
        let rest = text.get(skipped..).unwrap_or_default();
        (!rest.is_empty()).then(|| Act::Say(rest.to_owned()))
    });
    rest.collect()
}

fn said(act: &Act) -> Option<&str> {
    match act {
        Act::Say(text) => Some(text),
        _ => None,
    }
}

/// Calls of one kind.
#[derive(Default)]
struct Line {
    scripts: Mutex<Scripts>,
    open: AtomicUsize,
    most_open: AtomicUsize,
}

/// A provider that follows one script a call: for turns, and others for the probes of its breaker.
#[derive(Default)]
pub struct Scripted {
    turns: Arc<Line>,
    probes: Arc<Line>,
    listings: Mutex<(VecDeque<Script>, usize)>,
    obliging: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scripted {
    /// Follows these scripts from now on, one a call; the last again and again.
    pub fn follow(&self, scripts: impl IntoIterator<Item = Script>) {
        lock(&self.turns.scripts).scripts = scripts.into_iter().collect();
    }

    /// The same for probes.
    pub fn follow_when_probed(&self, scripts: impl IntoIterator<Item = Script>) {
        lock(&self.probes.scripts).scripts = scripts.into_iter().collect();
    }

    /// Whether it goes on with what another began, where its script begins alike.
    pub fn oblige(&self, obliging: bool) {
        self.obliging.store(obliging, Ordering::SeqCst);
    }

    /// The same for listings: one goes well unless its script fails or hangs.
    pub fn follow_when_listed(&self, scripts: impl IntoIterator<Item = Script>) {
        lock(&self.listings).0 = scripts.into_iter().collect();
    }

    /// How many listings were made so far.
    pub fn listings(&self) -> usize {
        lock(&self.listings).1
    }

    /// The calls of turns so far.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.turns.scripts).calls.clone()
    }

    /// The probes so far.
    pub fn probes(&self) -> Vec<Call> {
        lock(&self.probes.scripts).calls.clone()
    }

    /// Connections of turns that nobody has closed yet.
    pub fn open(&self) -> usize {
        self.turns.open.load(Ordering::SeqCst)
    }

    /// The most probes that were under way at once.
    pub fn most_probes(&self) -> usize {
        self.probes.most_open.load(Ordering::SeqCst)
    }
}

/// Closed when dropped.
struct Connection(Arc<Line>);

impl Connection {
    fn open(line: &Arc<Line>) -> Self {
        let open = line.open.fetch_add(1, Ordering::SeqCst) + 1;
        line.most_open.fetch_max(open, Ordering::SeqCst);
        Self(Arc::clone(line))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Upstream for Scripted {
    fn ask(&self, ask: &Ask) -> Steps {
        let probe = ask.max_tokens == 1;
        let line = Arc::clone(if probe { &self.probes } else { &self.turns });
        let (number, script) = lock(&line.scripts).next(ask, self.obliging.load(Ordering::SeqCst));
        let connection = Connection::open(&line);
        let note = move |step: &Result<Step, Failure>| {
            if let Some(call) = lock(&line.scripts).calls.get_mut(number) {
                match step {
                    Ok(Step::Text(text)) => call.said.push_str(text),
                    Ok(_) => {}
                    Err(failure) => call.failure = Some(failure.clone()),
                }
            }
        };
        let begin = (VecDeque::from(script), note, connection);
        Box::pin(stream::unfold(
            begin,
            |(mut script, note, connection)| async move {
                loop {
                    let step = match script.pop_front()? {
                        Act::Wait(pause) => {
                            tokio::time::sleep(pause).await;
                            continue;
                        }
                        Act::Forever(text, pause) => {
                            tokio::time::sleep(pause).await;
                            script.push_front(Act::Forever(text.clone(), pause));
                            Ok(Step::Text(text))
                        }
                        Act::Hang => std::future::pending().await,
                        // As a panic, but for the report.
                        Act::Panic => std::panic::resume_unwind(Box::new("the script says so")),
                        Act::Say(text) => Ok(Step::Text(text)),
                        Act::Think => Ok(Step::Thinking),
                        Act::Used(input_tokens, output_tokens) => Ok(Step::Usage(Usage {
                            input_tokens,
                            output_tokens,
                            estimated: false,
                        })),
                        Act::End(finish) => Ok(Step::End(finish)),
                        Act::Fail(failure) => Err(failure),
                    };
                    note(&step);
                    return Some((step, (script, note, connection)));
                }
            },
        ))
    }

    fn list(&self) -> BoxFuture<'static, Result<(), Failure>> {
        let mut listings = lock(&self.listings);
        listings.1 += 1;
        let script = if listings.0.len() > 1 {
            listings.0.pop_front()
        } else {
            listings.0.front().cloned()
        };
        Box::pin(async move {
            for act in script.unwrap_or_default() {
                match act {
                    Act::Fail(failure) => return Err(failure),
                    Act::Wait(pause) => tokio::time::sleep(pause).await,
                    Act::Hang => std::future::pending().await,
                    _ => {}
                }
            }
            Ok(())
        })
    }
}

//! A provider client without sockets for tests. It follows a script on a paused clock and records
//! its calls and open connections.

use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream;
use tokio::time::Instant;

use super::stream_event::{EventStream, ProviderClient, StreamEvent};
use crate::domain::{ChatRequest, Failure, FaultKind, FinishReason, MessageRole, TokenUsage};

#[derive(Clone, Debug)]
pub enum ScriptStep {
    Say(String),
    Think,
    /// Reports token usage: input tokens, output tokens.
    ReportUsage(u64, u64),
    Pause(Duration),
    /// Sends this text again and again, each time after a pause, without end.
    RepeatForever(String, Duration),
    Hang,
    Finish(FinishReason),
    Fail(Failure),
    /// Panics in the code that reads the answer.
    Panic,
}

/// The steps of one call. A script without a final `FinishReason` or `Fail` violates the contract of
/// [`EventStream`].
pub type Script = Vec<ScriptStep>;

pub fn reply(text: &str) -> Script {
    vec![
        ScriptStep::Say(text.to_owned()),
        ScriptStep::Finish(FinishReason::Stop),
    ]
}

pub fn reply_slowly(first: &str, pause: Duration, rest: &str) -> Script {
    vec![
        ScriptStep::Say(first.to_owned()),
        ScriptStep::Pause(pause),
        ScriptStep::Say(rest.to_owned()),
        ScriptStep::Finish(FinishReason::Stop),
    ]
}

pub fn fail_with(fault: FaultKind) -> Script {
    vec![ScriptStep::Fail(Failure::new(fault))]
}

pub fn rate_limited(retry_after: Duration) -> Script {
    vec![ScriptStep::Fail(Failure {
        retry_after: Some(retry_after),
        ..Failure::new(FaultKind::RateLimited)
    })]
}

pub fn break_after(text: &str, fault: FaultKind) -> Script {
    vec![
        ScriptStep::Say(text.to_owned()),
        ScriptStep::Fail(Failure::new(fault)),
    ]
}

pub fn hang() -> Script {
    vec![ScriptStep::Hang]
}

#[derive(Clone, Debug)]
pub struct RecordedCall {
    pub started_at: Instant,
    pub request: ChatRequest,
    /// All text sent so far.
    pub text: String,
    pub failure: Option<Failure>,
}

#[derive(Default)]
struct ScriptQueue {
    scripts: VecDeque<Script>,
    calls: Vec<RecordedCall>,
}

impl ScriptQueue {
    /// Records a call and returns its index and script. The last script is repeated.
    fn next_script(&mut self, ask: &ChatRequest, obliging: bool) -> (usize, Script) {
        self.calls.push(RecordedCall {
            started_at: Instant::now(),
            request: ask.clone(),
            text: String::new(),
            failure: None,
        });
        let script = match self.scripts.len() {
            0 => reply("Hello."),
            1 => self.scripts.front().cloned().unwrap_or_default(),
            _ => self.scripts.pop_front().unwrap_or_default(),
        };
        let script = if obliging {
            continue_script(ask, script)
        } else {
            script
        };
        (self.calls.len() - 1, script)
    }
}

/// Adapts a script to a request that continues a partial answer: only the missing rest is sent. If
/// the last line of the last message is the end of the partial answer, the rest repeats it first.
fn continue_script(ask: &ChatRequest, script: Script) -> Script {
    let full_text: String = script.iter().filter_map(text_of).collect();
    let partial = ask
        .messages
        .iter()
        .rev()
        .take(2)
        .find(|message| message.role == MessageRole::Assistant);
    let partial = match partial.map(|message| &*message.text) {
        Some(partial) if !partial.is_empty() && full_text.starts_with(partial) => partial,
        _ => return script,
    };
    let repeat = ask.messages.last().map_or("", |message| {
        message.text.lines().last().unwrap_or_default()
    });
    let repeat = if ask.ends_with_prefill || !partial.ends_with(repeat) {
        ""
    } else {
        repeat
    };
    let mut skip = partial.len() - repeat.len();
    let rest = script.into_iter().filter_map(|act| {
        let ScriptStep::Say(text) = act else {
            return Some(act);
        };
        let skipped = skip.min(text.len());
        skip -= skipped;
        let rest = text.get(skipped..).unwrap_or_default();
        (!rest.is_empty()).then(|| ScriptStep::Say(rest.to_owned()))
    });
    rest.collect()
}

fn text_of(act: &ScriptStep) -> Option<&str> {
    match act {
        ScriptStep::Say(text) => Some(text),
        _ => None,
    }
}

/// The scripts and calls of one kind: turns or probes.
#[derive(Default)]
struct CallLane {
    scripts: Mutex<ScriptQueue>,
    open_connections: AtomicUsize,
    max_open_connections: AtomicUsize,
}

/// A provider client that follows one script per call. Turns and breaker probes have their own
/// scripts.
#[derive(Default)]
pub struct ScriptedClient {
    turns: Arc<CallLane>,
    probes: Arc<CallLane>,
    /// The scripts of listings, and the number of listings so far.
    listing_scripts: Mutex<(VecDeque<Script>, usize)>,
    continues_answers: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

impl ScriptedClient {
    /// Sets the scripts of turns, one per call. The last one is repeated.
    pub fn set_scripts(&self, scripts: impl IntoIterator<Item = Script>) {
        lock(&self.turns.scripts).scripts = scripts.into_iter().collect();
    }

    pub fn set_probe_scripts(&self, scripts: impl IntoIterator<Item = Script>) {
        lock(&self.probes.scripts).scripts = scripts.into_iter().collect();
    }

    /// Makes it continue partial answers that are the start of its own script.
    pub fn set_continues_answers(&self, obliging: bool) {
        self.continues_answers.store(obliging, Ordering::SeqCst);
    }

    /// Sets the scripts of listings. A listing succeeds unless its script fails or hangs.
    pub fn set_listing_scripts(&self, scripts: impl IntoIterator<Item = Script>) {
        lock(&self.listing_scripts).0 = scripts.into_iter().collect();
    }

    pub fn listing_count(&self) -> usize {
        lock(&self.listing_scripts).1
    }

    pub fn calls(&self) -> Vec<RecordedCall> {
        lock(&self.turns.scripts).calls.clone()
    }

    pub fn probes(&self) -> Vec<RecordedCall> {
        lock(&self.probes.scripts).calls.clone()
    }

    pub fn open_connections(&self) -> usize {
        self.turns.open_connections.load(Ordering::SeqCst)
    }

    pub fn max_concurrent_probes(&self) -> usize {
        self.probes.max_open_connections.load(Ordering::SeqCst)
    }
}

struct OpenConnection(Arc<CallLane>);

impl OpenConnection {
    fn open(line: &Arc<CallLane>) -> Self {
        let open = line.open_connections.fetch_add(1, Ordering::SeqCst) + 1;
        line.max_open_connections.fetch_max(open, Ordering::SeqCst);
        Self(Arc::clone(line))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open_connections.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ProviderClient for ScriptedClient {
    fn stream_chat(&self, ask: &ChatRequest) -> EventStream {
        let is_probe = ask.max_tokens == 1;
        let lane = Arc::clone(if is_probe { &self.probes } else { &self.turns });
        let (index, script) =
            lock(&lane.scripts).next_script(ask, self.continues_answers.load(Ordering::SeqCst));
        let connection = OpenConnection::open(&lane);
        let record = move |event: &Result<StreamEvent, Failure>| {
            if let Some(call) = lock(&lane.scripts).calls.get_mut(index) {
                match event {
                    Ok(StreamEvent::Text(text)) => call.text.push_str(text),
                    Ok(_) => {}
                    Err(failure) => call.failure = Some(failure.clone()),
                }
            }
        };
        let initial_state = (VecDeque::from(script), record, connection);
        Box::pin(stream::unfold(
            initial_state,
            |(mut script, record, connection)| async move {
                loop {
                    let event = match script.pop_front()? {
                        ScriptStep::Pause(pause) => {
                            tokio::time::sleep(pause).await;
                            continue;
                        }
                        ScriptStep::RepeatForever(text, pause) => {
                            tokio::time::sleep(pause).await;
                            script.push_front(ScriptStep::RepeatForever(text.clone(), pause));
                            Ok(StreamEvent::Text(text))
                        }
                        ScriptStep::Hang => std::future::pending().await,
                        // Panics without running the panic hook.
                        ScriptStep::Panic => std::panic::resume_unwind(Box::new("scripted panic")),
                        ScriptStep::Say(text) => Ok(StreamEvent::Text(text)),
                        ScriptStep::Think => Ok(StreamEvent::Thinking),
                        ScriptStep::ReportUsage(input_tokens, output_tokens) => {
                            Ok(StreamEvent::Usage(TokenUsage {
                                input_tokens,
                                output_tokens,
                                estimated: false,
                            }))
                        }
                        ScriptStep::Finish(finish) => Ok(StreamEvent::Finished(finish)),
                        ScriptStep::Fail(failure) => Err(failure),
                    };
                    record(&event);
                    return Some((event, (script, record, connection)));
                }
            },
        ))
    }

    fn list_models(&self) -> BoxFuture<'static, Result<(), Failure>> {
        let mut listings = lock(&self.listing_scripts);
        listings.1 += 1;
        let script = if listings.0.len() > 1 {
            listings.0.pop_front()
        } else {
            listings.0.front().cloned()
        };
        Box::pin(async move {
            for act in script.unwrap_or_default() {
                match act {
                    ScriptStep::Fail(failure) => return Err(failure),
                    ScriptStep::Pause(pause) => tokio::time::sleep(pause).await,
                    ScriptStep::Hang => std::future::pending().await,
                    _ => {}
                }
            }
            Ok(())
        })
    }
}

//! The actor on a paused clock, with a scripted provider.

mod budgets;
mod checks;

use std::sync::Arc;
use std::time::Duration;

use super::{Refusal, Reset};
use crate::chat::{At, Fault, ProviderState, Usage};
use crate::provider::backend::{Clock, Vitals};
use crate::provider::breaker::Verdict;
use crate::provider::paused::{Paused, pass};
use crate::provider::scripted::{Act, fails, says, silent};
use crate::provider::stand::{Plan, Stand};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

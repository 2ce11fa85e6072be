//! What is published on the channels that somebody hears.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::redis::{Msg, PushInfo, PushKind};
use tokio::sync::broadcast;

use super::PREFIX;

/// What waits for a listener; one that is further behind is told that it missed something.
const BEHIND: usize = 512;

/// The longest message that is passed on, in bytes. Nobody of ours publishes a longer one.
const LONGEST: usize = 256 * 1024;

/// The channels that somebody hears.
#[derive(Default)]
pub(super) struct Channels {
    heard: Mutex<BTreeMap<String, broadcast::Sender<Arc<[u8]>>>>,
}

impl Channels {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, broadcast::Sender<Arc<[u8]>>>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears a channel from now on.
    pub(super) fn hear(&self, channel: &str) -> broadcast::Receiver<Arc<[u8]>> {
        let mut heard = self.lock();
        let channel = heard.entry(format!("{PREFIX}{channel}"));
        channel
            .or_insert_with(|| broadcast::Sender::new(BEHIND))
            .subscribe()
    }

    /// The names of all, with the prefix.
    pub(super) fn names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Passes on what came. Says whether it tells that the connection is lost.
    pub(super) fn pass_on(&self, push: PushInfo) -> bool {
        let lost = push.kind == PushKind::Disconnection;
        if let Some(message) = Msg::from_push_info(push)
            && message.get_payload_bytes().len() <= LONGEST
            && let Some(channel) = self.lock().get(message.get_channel_name())
        {
            // Nobody may listen just now.
            let _ = channel.send(message.get_payload_bytes().into());
        }
        lost
    }
}

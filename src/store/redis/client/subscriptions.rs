//! Channel subscriptions and the messages received for them.

use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::sync::Arc;

use ::redis::{Msg, PushInfo, PushKind};
use tokio::sync::broadcast;

use super::PREFIX;

/// Messages buffered per receiver. One that is further behind gets a `Lagged` error.
const MAX_LAG: usize = 512;

/// Longer messages are dropped. No instance publishes any.
const MAX_MESSAGE_BYTES: usize = 256 * 1024;

#[derive(Default)]
pub(super) struct Subscriptions {
    channels: Mutex<BTreeMap<String, broadcast::Sender<Arc<[u8]>>>>,
}

impl Subscriptions {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, broadcast::Sender<Arc<[u8]>>>> {
        self.channels.lock()
    }

    pub(super) fn subscribe(&self, channel: &str) -> broadcast::Receiver<Arc<[u8]>> {
        let mut channels = self.lock();
        channels
            .entry(format!("{PREFIX}{channel}"))
            .or_insert_with(|| broadcast::Sender::new(MAX_LAG))
            .subscribe()
    }

    /// Returns all channel names, including [`PREFIX`].
    pub(super) fn channel_names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Dispatches a push from Redis. Returns `true` if it reports that the connection was lost.
    pub(super) fn dispatch(&self, push: PushInfo) -> bool {
        let disconnected = push.kind == PushKind::Disconnection;
        if let Some(message) = Msg::from_push_info(push)
            && message.get_payload_bytes().len() <= MAX_MESSAGE_BYTES
            && let Some(channel) = self.lock().get(message.get_channel_name())
        {
            // An error means that the channel has no receivers at the moment.
            let _ = channel.send(message.get_payload_bytes().into());
        }
        disconnected
    }
}

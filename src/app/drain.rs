//! Going down: readiness goes, new turns are refused, running ones finish, sessions are told, and only then the sockets close.

use std::time::Duration;

use tokio::sync::watch;

use crate::session::lobby::Lobby;
use crate::turn::desk::Phase;
use crate::web::Connections;

/// How long turns that are cut off at the end of the drain have to say so and be stored.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long sessions have to deliver what ended turns still say, and their Close; no longer than until the last has.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long the server's connections may take to end after that.
const CLOSING: Duration = Duration::from_secs(2);

/// Drains; returns when every turn has ended, or was interrupted because `limit` is over, and sessions have had their time to say so.
pub async fn drain(
    lobby: &Lobby,
    connections: &Connections,
    phase: &watch::Sender<Phase>,
    limit: Duration,
) {
    let places = &lobby.desk.places;
    phase.send_replace(Phase::Draining);
    // What comes after is part of the drain too.
    let reserve = (LAST_WORDS + FAREWELL + CLOSING).min(limit / 3);
    if tokio::time::timeout(limit - reserve, places.none_taken())
        .await
        .is_err()
    {
        tracing::warn!(
            running = places.taken(),
            "the drain is over; running answers are interrupted"
        );
        phase.send_replace(Phase::Cutting);
        drop(tokio::time::timeout(LAST_WORDS, places.none_taken()).await);
    }
    phase.send_replace(Phase::Closing);
    // Who does not take in what it is sent is not waited for any longer.
    drop(tokio::time::timeout(FAREWELL, connections.none_left()).await);
    lobby.desk.store.handed_over().await;
}

//! Graceful shutdown: readiness turns false, new turns are rejected, running turns finish, sessions
//! deliver the last frames, and then the sockets close.

use std::time::Duration;

use tokio::sync::watch;

use crate::session::lobby::Lobby;
use crate::turn::desk::Phase;
use crate::web::Connections;

/// The time for interrupted turns to send their end and be stored.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The time for sessions to deliver the last frames and close their sockets.
const FAREWELL: Duration = Duration::from_secs(2);

/// The time for the remaining HTTP connections to end.
const CLOSING: Duration = Duration::from_secs(2);

/// Shuts down within `limit`. Turns that are still running near the end are interrupted.
pub async fn drain(
    lobby: &Lobby,
    connections: &Connections,
    phase: &watch::Sender<Phase>,
    limit: Duration,
) {
    let turn_limit = &lobby.desk.places;
    phase.send_replace(Phase::Draining);
    // The later phases must also fit into the limit.
    let reserve = (LAST_WORDS + FAREWELL + CLOSING).min(limit / 3);
    if tokio::time::timeout(limit - reserve, turn_limit.none_taken())
        .await
        .is_err()
    {
        tracing::warn!(
            running = turn_limit.taken(),
            "drain timeout: interrupting running turns"
        );
        phase.send_replace(Phase::Cutting);
        drop(tokio::time::timeout(LAST_WORDS, turn_limit.none_taken()).await);
    }
    phase.send_replace(Phase::Closing);
    // Clients that stop reading are not waited for.
    drop(tokio::time::timeout(FAREWELL, connections.none_left()).await);
    lobby.desk.store.handed_over().await;
}

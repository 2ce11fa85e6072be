//! Graceful shutdown: readiness turns false, new turns are rejected, running turns finish, sessions
//! deliver the last frames, and then the sockets close.

use std::time::Duration;

use tokio::sync::watch;

use crate::session::service::ChatService;
use crate::turn::deps::ShutdownPhase;
use crate::web::ConnectionLimiter;

/// The time for interrupted turns to send their end and be stored.
const ABORT_TIMEOUT: Duration = Duration::from_secs(2);

/// The time for sessions to deliver the last frames and close their sockets.
const SESSION_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The time for the remaining HTTP connections to end.
const SERVER_STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Shuts down within `limit`. Turns that are still running near the end are interrupted.
pub async fn graceful_shutdown(
    chat_service: &ChatService,
    connections: &ConnectionLimiter,
    phase: &watch::Sender<ShutdownPhase>,
    limit: Duration,
) {
    let turn_limit = &chat_service.turns.turn_limit;
    phase.send_replace(ShutdownPhase::Draining);
    // The later phases must also fit into the limit.
    let reserve = (ABORT_TIMEOUT + SESSION_CLOSE_TIMEOUT + SERVER_STOP_TIMEOUT).min(limit / 3);
    if tokio::time::timeout(limit - reserve, turn_limit.wait_idle())
        .await
        .is_err()
    {
        tracing::warn!(
            running = turn_limit.in_use(),
            "drain timeout: interrupting running turns"
        );
        phase.send_replace(ShutdownPhase::Aborting);
        drop(tokio::time::timeout(ABORT_TIMEOUT, turn_limit.wait_idle()).await);
    }
    phase.send_replace(ShutdownPhase::Closing);
    // Clients that stop reading are not waited for.
    drop(tokio::time::timeout(SESSION_CLOSE_TIMEOUT, connections.wait_empty()).await);
    chat_service.turns.store.flush_replication().await;
}

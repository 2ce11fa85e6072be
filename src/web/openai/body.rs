//! The body of a request: so much of it, within so much time.

use std::time::Duration;

use actix_web::web::{Bytes, Payload};

use super::errors::Problem;
use crate::web::BODY;

/// How long a body may take.
const BODY_LIMIT: Duration = Duration::from_secs(30);

/// Reads a body.
///
/// # Errors
/// It is too big, too slow or cut.
pub async fn read(body: Payload) -> Result<Bytes, Problem> {
    match tokio::time::timeout(BODY_LIMIT, body.to_bytes_limited(BODY)).await {
        Ok(Ok(Ok(bytes))) => Ok(bytes),
        Ok(Ok(Err(_))) => Err(Problem::body("the body was cut off, or is not encoded as its headers say")),
        Ok(Err(_)) => Err(Problem::too_big(BODY)),
        Err(_) => Err(Problem::too_slow(BODY_LIMIT.as_secs())),
    }
}

//! Classification of provider errors, as far as the dialects agree: by status, by code or type, and
//! by message.

use crate::domain::{Failure, FaultKind, Timestamp};

use super::body::ProviderErrorBody;
use super::retry_after::retry_after_hint;
use crate::provider::dialect::ErrorResponse;
use crate::provider::dialect::config::ModelConfig;

/// A dialect's own rules. The status is `None` if the HTTP status was a success: then code and
/// message decide.
pub(crate) type Classifier = fn(Option<u16>, &ProviderErrorBody, &ModelConfig) -> FaultKind;

pub(crate) fn http_error(
    response: &ErrorResponse<'_>,
    model: &ModelConfig,
    judge: Classifier,
) -> Failure {
    let error_body = ProviderErrorBody::from_body(response.body);
    let fault = match response.status {
        300.. => judge(Some(response.status), &error_body, model),
        _ if error_body.is_structured => judge(error_body.http_status(), &error_body, model),
        _ => {
            // Possibly a proxy's page, or an answer whose text must not get into a report.
            let detail = "neither a stream nor an error";
            return Failure {
                status: Some(response.status),
                ..Failure::with_detail(FaultKind::Malformed, detail)
            };
        }
    };
    let fault = apply_should_retry((response.header)("x-should-retry").as_deref(), fault);
    Failure {
        status: Some(response.status),
        retry_after: retry_after_hint(response.header, &error_body, fault, response.now),
        ..error_body.to_failure(fault, model)
    }
}

pub(crate) fn stream_error(
    error_body: &ProviderErrorBody,
    model: &ModelConfig,
    judge: Classifier,
) -> Failure {
    let fault = judge(error_body.http_status(), error_body, model);
    Failure {
        retry_after: retry_after_hint(&|_| None, error_body, fault, Timestamp::default()),
        ..error_body.to_failure(fault, model)
    }
}

/// Applies `x-should-retry`, the provider's own advice.
///
/// `true` turns a rejected request into an error that a second try may avoid. `false` turns a
/// server error into one that is not retried here. Blocks, rate limits and overload stay unchanged
/// because they are more specific than this header.
fn apply_should_retry(should_retry: Option<&str>, fault: FaultKind) -> FaultKind {
    match (should_retry.map(str::trim), fault) {
        (Some("true"), FaultKind::BadRequest) => FaultKind::ServerError,
        (Some("false"), FaultKind::ServerError) => FaultKind::Overloaded,
        _ => fault,
    }
}

/// The fault for a status if the body says nothing more specific. Without a status the message
/// decides.
///
/// A 4xx counts as the request's fault only if the body is a structured error that says so: proxies
/// and wrong addresses also answer 4xx.
pub(crate) fn by_status(status: Option<u16>, error_body: &ProviderErrorBody) -> FaultKind {
    let Some(status) = status else {
        return by_message(error_body);
    };
    match status {
        400 | 422 if error_body.is_structured => {
            by_code(error_body).unwrap_or(FaultKind::BadRequest)
        }
        401 | 403 => FaultKind::Unauthorized,
        402 => FaultKind::QuotaSpent,
        404 | 405 => FaultKind::Misconfigured,
        408 | 409 | 499 => FaultKind::ServerError,
        413 => FaultKind::TooLong,
        429 => FaultKind::RateLimited,
        400..=499 if is_request_error(error_body) => FaultKind::BadRequest,
        503 | 529 => FaultKind::Overloaded,
        500.. => FaultKind::ServerError,
        _ => FaultKind::Misconfigured,
    }
}

fn is_request_error(error_body: &ProviderErrorBody) -> bool {
    let is_bad_request = by_code(error_body) == Some(FaultKind::BadRequest);
    error_body.is_structured && (is_bad_request || !error_body.param.is_empty())
}

/// The fault for an error without a status. Unknown errors count as the provider's own.
fn by_message(error_body: &ProviderErrorBody) -> FaultKind {
    const PHRASES: [(&str, FaultKind); 5] = [
        ("rate limit", FaultKind::RateLimited),
        ("too many requests", FaultKind::RateLimited),
        ("overloaded", FaultKind::Overloaded),
        ("at capacity", FaultKind::Overloaded),
        ("busy", FaultKind::Overloaded),
    ];
    by_code(error_body)
        .or_else(|| first_match(&PHRASES, &error_body.message))
        .unwrap_or(FaultKind::ServerError)
}

/// Looks up the code, or else the type, by the fragments that the vendors have in common.
fn by_code(error_body: &ProviderErrorBody) -> Option<FaultKind> {
    const WORDS: [(&str, FaultKind); 24] = [
        ("overloaded", FaultKind::Overloaded),
        ("unavailable", FaultKind::Overloaded),
        ("slow_down", FaultKind::Overloaded),
        ("quota", FaultKind::QuotaSpent),
        ("billing", FaultKind::QuotaSpent),
        ("insufficient_balance", FaultKind::QuotaSpent),
        ("rate_limit", FaultKind::RateLimited),
        ("throttl", FaultKind::RateLimited),
        ("too_many_requests", FaultKind::RateLimited),
        ("resource_exhausted", FaultKind::RateLimited),
        ("content_filter", FaultKind::Policy),
        ("auth", FaultKind::Unauthorized),
        ("permission", FaultKind::Unauthorized),
        ("api_key", FaultKind::Unauthorized),
        ("not_found", FaultKind::Misconfigured),
        ("too_large", FaultKind::TooLong),
        ("timeout", FaultKind::ServerError),
        ("server_error", FaultKind::ServerError),
        ("internal", FaultKind::ServerError),
        ("invalid_request", FaultKind::BadRequest),
        ("invalid_argument", FaultKind::BadRequest),
        ("badrequest", FaultKind::BadRequest),
        ("validation", FaultKind::BadRequest),
        ("unsupported_", FaultKind::BadRequest),
    ];
    first_match(&WORDS, &error_body.code).or_else(|| first_match(&WORDS, &error_body.error_type))
}

fn first_match(table: &[(&str, FaultKind)], text: &str) -> Option<FaultKind> {
    let text = text.to_ascii_lowercase();
    let found = table.iter().find(|(fragment, _)| text.contains(fragment));
    found.map(|(_, fault)| *fault)
}

/// `true` if the context is too long. Message fragments about length are trusted only if the status
/// is plausible, because rate limits also mention "too many tokens".
pub(crate) fn is_context_overflow(status: Option<u16>, error_body: &ProviderErrorBody) -> bool {
    let is_plausible = match status {
        // Old llama.cpp versions report it with status 500.
        Some(status) => matches!(status, 400 | 413 | 422 | 500),
        None => !matches!(
            by_message(error_body),
            FaultKind::RateLimited | FaultKind::QuotaSpent
        ),
    };
    is_plausible && error_body.is_context_overflow()
}

//! Classification of provider errors, as far as the dialects agree: by status, by code or type, and
//! by message.

use crate::chat::{At, Failure, Fault};

use super::Refused;
use super::complaint::Complaint;
use super::hint::hint;
use super::model::Model;

/// A dialect's own rules. The status is `None` if the HTTP status was a success: then code and
/// message decide.
pub(super) type Judge = fn(Option<u16>, &Complaint, &Model) -> Fault;

pub(super) fn answer(response: &Refused<'_>, model: &Model, judge: Judge) -> Failure {
    let error_body = Complaint::of(response.body);
    let fault = match response.status {
        300.. => judge(Some(response.status), &error_body, model),
        _ if error_body.recognised => judge(error_body.status(), &error_body, model),
        _ => {
            // Possibly a proxy's page, or an answer whose text must not get into a report.
            let detail = "neither a stream nor an error";
            return Failure {
                status: Some(response.status),
                ..Failure::with(Fault::Malformed, detail)
            };
        }
    };
    let fault = heeding((response.header)("x-should-retry").as_deref(), fault);
    Failure {
        status: Some(response.status),
        retry_after: hint(response.header, &error_body, fault, response.now),
        ..error_body.failure(fault, model)
    }
}

pub(super) fn event(error_body: &Complaint, model: &Model, judge: Judge) -> Failure {
    let fault = judge(error_body.status(), error_body, model);
    Failure {
        retry_after: hint(&|_| None, error_body, fault, At::default()),
        ..error_body.failure(fault, model)
    }
}

/// Applies `x-should-retry`, the provider's own advice.
///
/// `true` turns a rejected request into an error that a second try may avoid. `false` turns a
/// server error into one that is not retried here. Blocks, rate limits and overload stay unchanged
/// because they are more specific than this header.
fn heeding(should_retry: Option<&str>, fault: Fault) -> Fault {
    match (should_retry.map(str::trim), fault) {
        (Some("true"), Fault::BadRequest) => Fault::ServerError,
        (Some("false"), Fault::ServerError) => Fault::Overloaded,
        _ => fault,
    }
}

/// The fault for a status if the body says nothing more specific. Without a status the message
/// decides.
///
/// A 4xx counts as the request's fault only if the body is a structured error that says so: proxies
/// and wrong addresses also answer 4xx.
pub(super) fn by_status(status: Option<u16>, error_body: &Complaint) -> Fault {
    let Some(status) = status else {
        return by_words(error_body);
    };
    match status {
        400 | 422 if error_body.recognised => by_codes(error_body).unwrap_or(Fault::BadRequest),
        401 | 403 => Fault::Unauthorized,
        402 => Fault::QuotaSpent,
        404 | 405 => Fault::Misconfigured,
        408 | 409 | 499 => Fault::ServerError,
        413 => Fault::TooLong,
        429 => Fault::RateLimited,
        400..=499 if names_a_request_problem(error_body) => Fault::BadRequest,
        503 | 529 => Fault::Overloaded,
        500.. => Fault::ServerError,
        _ => Fault::Misconfigured,
    }
}

fn names_a_request_problem(error_body: &Complaint) -> bool {
    let is_bad_request = by_codes(error_body) == Some(Fault::BadRequest);
    error_body.recognised && (is_bad_request || !error_body.param.is_empty())
}

/// The fault for an error without a status. Unknown errors count as the provider's own.
fn by_words(error_body: &Complaint) -> Fault {
    const PHRASES: [(&str, Fault); 5] = [
        ("rate limit", Fault::RateLimited),
        ("too many requests", Fault::RateLimited),
        ("overloaded", Fault::Overloaded),
        ("at capacity", Fault::Overloaded),
        ("busy", Fault::Overloaded),
    ];
    by_codes(error_body)
        .or_else(|| first_part(&PHRASES, &error_body.message))
        .unwrap_or(Fault::ServerError)
}

/// Looks up the code, or else the type, by the fragments that the vendors have in common.
fn by_codes(error_body: &Complaint) -> Option<Fault> {
    const WORDS: [(&str, Fault); 24] = [
        ("overloaded", Fault::Overloaded),
        ("unavailable", Fault::Overloaded),
        ("slow_down", Fault::Overloaded),
        ("quota", Fault::QuotaSpent),
        ("billing", Fault::QuotaSpent),
        ("insufficient_balance", Fault::QuotaSpent),
        ("rate_limit", Fault::RateLimited),
        ("throttl", Fault::RateLimited),
        ("too_many_requests", Fault::RateLimited),
        ("resource_exhausted", Fault::RateLimited),
        ("content_filter", Fault::Policy),
        ("auth", Fault::Unauthorized),
        ("permission", Fault::Unauthorized),
        ("api_key", Fault::Unauthorized),
        ("not_found", Fault::Misconfigured),
        ("too_large", Fault::TooLong),
        ("timeout", Fault::ServerError),
        ("server_error", Fault::ServerError),
        ("internal", Fault::ServerError),
        ("invalid_request", Fault::BadRequest),
        ("invalid_argument", Fault::BadRequest),
        ("badrequest", Fault::BadRequest),
        ("validation", Fault::BadRequest),
        ("unsupported_", Fault::BadRequest),
    ];
    first_part(&WORDS, &error_body.code).or_else(|| first_part(&WORDS, &error_body.kind))
}

fn first_part(table: &[(&str, Fault)], text: &str) -> Option<Fault> {
    let text = text.to_ascii_lowercase();
    let found = table.iter().find(|(fragment, _)| text.contains(fragment));
    found.map(|(_, fault)| *fault)
}

/// `true` if the context is too long. Message fragments about length are trusted only if the status
/// is plausible, because rate limits also mention "too many tokens".
pub(super) fn overflow(status: Option<u16>, error_body: &Complaint) -> bool {
    let is_plausible = match status {
        // Old llama.cpp versions report it with status 500.
        Some(status) => matches!(status, 400 | 413 | 422 | 500),
        None => !matches!(by_words(error_body), Fault::RateLimited | Fault::QuotaSpent),
    };
    is_plausible && error_body.overflow()
}

//! From complaint to fault, as far as all dialects agree: by status, by the words of codes and types, and what stands around it.

use crate::chat::{At, Failure, Fault};

use super::Refused;
use super::complaint::Complaint;
use super::hint::hint;
use super::model::Model;

/// A dialect's own judgement. The status is missing where the HTTP status was a success: then the words decide.
pub(super) type Judge = fn(Option<u16>, &Complaint, &Model) -> Fault;

/// What an HTTP answer that is not a stream means.
pub(super) fn answer(answer: &Refused<'_>, model: &Model, judge: Judge) -> Failure {
    let complaint = Complaint::of(answer.body);
    let fault = match answer.status {
        300.. => judge(Some(answer.status), &complaint, model),
        _ if complaint.recognised => judge(complaint.status(), &complaint, model),
        _ => {
            // A proxy's page, perhaps; or an answer, whose text must not get into a report.
            let detail = "neither a stream nor an error";
            return Failure {
                status: Some(answer.status),
                ..Failure::with(Fault::Malformed, detail)
            };
        }
    };
    let fault = heeding((answer.header)("x-should-retry").as_deref(), fault);
    Failure {
        status: Some(answer.status),
        retry_after: hint(answer.header, &complaint, fault, answer.now),
        ..complaint.failure(fault, model)
    }
}

/// What an error inside of a stream means. Its HTTP status was 200, so its code and words decide.
pub(super) fn event(complaint: &Complaint, model: &Model, judge: Judge) -> Failure {
    let fault = judge(complaint.status(), complaint, model);
    Failure {
        retry_after: hint(&|_| None, complaint, fault, At::default()),
        ..complaint.failure(fault, model)
    }
}

/// `x-should-retry`: the provider knows best whether asking it again can help.
///
/// `true` makes a refused request one that may pass on a second try. `false` makes the provider's own error one that is not tried
/// again here. Blocks, limits and overload stay what they are: they say more than this header does.
fn heeding(should_retry: Option<&str>, fault: Fault) -> Fault {
    match (should_retry.map(str::trim), fault) {
        (Some("true"), Fault::BadRequest) => Fault::ServerError,
        (Some("false"), Fault::ServerError) => Fault::Overloaded,
        _ => fault,
    }
}

/// The fault of a status, where nothing in the body says more. Without a status the words decide.
///
/// A 4xx is the request's fault only where the body is an error that says so: a proxy or a wrong address also answers 4xx.
pub(super) fn by_status(status: Option<u16>, complaint: &Complaint) -> Fault {
    let Some(status) = status else {
        return by_words(complaint);
    };
    match status {
        400 | 422 if complaint.recognised => by_codes(complaint).unwrap_or(Fault::BadRequest),
        401 | 403 => Fault::Unauthorized,
        402 => Fault::QuotaSpent,
        404 | 405 => Fault::Misconfigured,
        408 | 409 | 499 => Fault::ServerError,
        413 => Fault::TooLong,
        429 => Fault::RateLimited,
        400..=499 if names_a_request_problem(complaint) => Fault::BadRequest,
        503 | 529 => Fault::Overloaded,
        500.. => Fault::ServerError,
        _ => Fault::Misconfigured,
    }
}

fn names_a_request_problem(complaint: &Complaint) -> bool {
    let worded = by_codes(complaint) == Some(Fault::BadRequest);
    complaint.recognised && (worded || !complaint.param.is_empty())
}

/// The fault of a complaint without a status; one that says nothing known is the provider's own.
fn by_words(complaint: &Complaint) -> Fault {
    const PHRASES: [(&str, Fault); 5] = [
        ("rate limit", Fault::RateLimited),
        ("too many requests", Fault::RateLimited),
        ("overloaded", Fault::Overloaded),
        ("at capacity", Fault::Overloaded),
        ("busy", Fault::Overloaded),
    ];
    by_codes(complaint)
        .or_else(|| first_part(&PHRASES, &complaint.message))
        .unwrap_or(Fault::ServerError)
}

/// The fault that its code, or else its type, stands for, by the part that the vendors' words have in common.
fn by_codes(complaint: &Complaint) -> Option<Fault> {
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
    first_part(&WORDS, &complaint.code).or_else(|| first_part(&WORDS, &complaint.kind))
}

/// The fault of the first part that `text` contains, in any case.
fn first_part(table: &[(&str, Fault)], text: &str) -> Option<Fault> {
    let text = text.to_ascii_lowercase();
    let found = table.iter().find(|(part, _)| text.contains(part));
    found.map(|(_, fault)| *fault)
}

/// Whether message fragments about length can be trusted: a limit of rate also speaks of "too many tokens".
pub(super) fn overflow(status: Option<u16>, complaint: &Complaint) -> bool {
    let plausible = match status {
        // llama.cpp once said it with 500.
        Some(status) => matches!(status, 400 | 413 | 422 | 500),
        None => !matches!(by_words(complaint), Fault::RateLimited | Fault::QuotaSpent),
    };
    plausible && complaint.overflow()
}

//! The chat page, and the files that pages are made of.

use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName,
    IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rust_embed::RustEmbed;

use super::State;
use super::refusal::not_found;

static CORP: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The browser side's files, in the binary.
#[derive(RustEmbed)]
#[folder = "static/"]
struct Files;

#[derive(Template)]
#[template(path = "chat.html")]
struct ChatPage<'a> {
    title: &'a str,
    demo: bool,
    version: &'a str,
}

/// `GET /`: the chat page.
pub async fn chat(state: web::Data<State>) -> HttpResponse {
    let page = ChatPage {
        title: &state.settings.chat.title,
        demo: state.settings.demo,
        version: env!("CARGO_PKG_VERSION"),
    };
    html(&page, &state)
}

/// A page with the headers that every page has.
pub(super) fn html(page: &impl Template, state: &State) -> HttpResponse {
    match page.render() {
        Ok(html) => HttpResponse::Ok()
            .insert_header((CONTENT_TYPE, "text/html; charset=utf-8"))
            .insert_header((CACHE_CONTROL, "no-cache"))
            .insert_header((CONTENT_SECURITY_POLICY, policy(&state.settings.server.allowed_origins)))
            .insert_header((REFERRER_POLICY, "no-referrer"))
            .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .body(html),
        Err(error) => {
            tracing::error!(%error, "a page does not render");
            HttpResponse::InternalServerError().finish()
        }
    }
}

/// No inline script or style, nothing from elsewhere; framed by allowed sites alone.
fn policy(allowed_origins: &[String]) -> String {
    let ancestors = ["'self'"].into_iter().chain(allowed_origins.iter().map(String::as_str));
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors {}",
        ancestors.collect::<Vec<_>>().join(" ")
    )
}

/// `GET /static/…`: one file, validated by its hash.
pub async fn file(request: HttpRequest, name: web::Path<String>) -> HttpResponse {
    let Some(file) = Files::get(&name) else {
        return not_found().await;
    };
    let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(file.metadata.sha256_hash()));
    let known = request.headers().get(IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    let fresh =
        known.is_some_and(|tags| tags.split(',').any(|one| one.trim().trim_start_matches("W/") == tag));
    let mut answer = if fresh { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    answer
        .insert_header((ETAG, tag))
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((ACCESS_CONTROL_ALLOW_ORIGIN, "*"))
        .insert_header((CORP.clone(), "cross-origin"));
    if fresh {
        return answer.finish();
    }
    answer.insert_header((CONTENT_TYPE, kind(&name))).body(file.data.into_owned())
}

fn kind(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, end)| end) {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        _ => "text/plain; charset=utf-8",
    }
}

//! The pages: the chat, the status, and a sample of another site with the widget on it.

use actix_web::http::header::{
    ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

use super::State;

#[derive(Template)]
#[template(path = "chat.html")]
struct ChatPage<'a> {
    language: &'static str,
    title: &'a str,
    demo: bool,
    version: &'a str,
}

/// `GET /`: the chat page.
pub async fn chat(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    let settings = state.settings();
    let page = ChatPage {
        language: language(&request),
        title: &settings.chat.title,
        demo: settings.demo,
        version: env!("CARGO_PKG_VERSION"),
    };
    html(&page, &state)
}

#[derive(Template)]
#[template(path = "embed.html")]
struct EmbedPage<'a> {
    title: &'a str,
    demo: bool,
    public_url: &'a str,
    version: &'a str,
}

/// `GET /embed`: a sample of another site with the widget on it, and the snippet that puts it there.
pub async fn embed(state: web::Data<State>) -> HttpResponse {
    let settings = state.settings();
    let page = EmbedPage {
        title: &settings.chat.title,
        demo: settings.demo,
        public_url: settings.server.public_url.as_deref().unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION"),
    };
    html(&page, &state)
}

/// The languages that the pages' words are in; English for all others.
const LANGUAGES: [&str; 5] = ["en", "de", "es", "fr", "ar"];

/// The first of the visitor's languages that there is. It saves the page a round trip; which one is spoken it decides by itself.
fn language(request: &HttpRequest) -> &'static str {
    let wanted =
        request.headers().get(ACCEPT_LANGUAGE).and_then(|list| list.to_str().ok()).unwrap_or_default();
    // Browsers name them best first.
    let mut names = wanted.split(',').filter_map(|one| one.trim().split(['-', '_', ';']).next());
    let known = names.find_map(|name| LANGUAGES.iter().find(|known| known.eq_ignore_ascii_case(name)));
    known.copied().unwrap_or("en")
}

/// A page with the headers that every page has.
pub(super) fn html(page: &impl Template, state: &State) -> HttpResponse {
    match page.render() {
        Ok(html) => HttpResponse::Ok()
            .insert_header((CONTENT_TYPE, "text/html; charset=utf-8"))
            .insert_header((CACHE_CONTROL, "no-cache"))
            .insert_header((CONTENT_SECURITY_POLICY, policy(&state.settings().server.allowed_origins)))
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

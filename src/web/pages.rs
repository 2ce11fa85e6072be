//! The HTML pages: the chat, and a sample site with the widget. The status page is in `status`.

use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use serde_json::json;

use super::locales::Locale;
use super::{AppState, access};

#[derive(Template)]
#[template(path = "chat.html")]
struct ChatPage<'a> {
    words: &'static Locale,
    title: &'a str,
    demo: bool,
    version: &'a str,
}

pub async fn chat_page(request: HttpRequest, state: web::Data<AppState>) -> HttpResponse {
    let settings = state.settings();
    let page = ChatPage {
        words: Locale::negotiate(&request),
        title: &settings.chat.title,
        demo: settings.demo,
        version: env!("CARGO_PKG_VERSION"),
    };
    render_page(&page, &state)
}

#[derive(Template)]
#[template(path = "embed.html")]
struct EmbedPage<'a> {
    title: &'a str,
    demo: bool,
    public_url: &'a str,
    version: &'a str,
}

/// `GET /embed`: a sample site with the widget, and the snippet to embed it.
pub async fn embed_page(state: web::Data<AppState>) -> HttpResponse {
    let settings = state.settings();
    let page = EmbedPage {
        title: &settings.chat.title,
        demo: settings.demo,
        public_url: settings.server.public_url.as_deref().unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION"),
    };
    render_page(&page, &state)
}

/// `GET /embed/origin`: whether the asking page's site may open sessions, since a browser hides from
/// a page why its WebSocket was refused.
///
/// Pages of any site may read the response: it reveals only what an attempt would.
pub async fn embed_origin(request: HttpRequest, state: web::Data<AppState>) -> HttpResponse {
    let server = &state.settings().server;
    let allowed = access::check_own_origin(&request, server).is_ok()
        || access::check_visitor(&request, server).is_ok();
    HttpResponse::Ok()
        .insert_header((ACCESS_CONTROL_ALLOW_ORIGIN, "*"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(json!({ "allowed": allowed }))
}

/// Renders a page, with the headers that all pages have.
pub(super) fn render_page(page: &impl Template, state: &AppState) -> HttpResponse {
    match page.render() {
        Ok(html) => HttpResponse::Ok()
            .insert_header((CONTENT_TYPE, "text/html; charset=utf-8"))
            .insert_header((CACHE_CONTROL, "no-cache"))
            .insert_header((
                CONTENT_SECURITY_POLICY,
                content_security_policy(&state.settings().server.allowed_origins),
            ))
            .insert_header((VARY, "accept-language"))
            .insert_header((REFERRER_POLICY, "no-referrer"))
            .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .body(html),
        Err(error) => {
            tracing::error!(%error, "failed to render a page");
            HttpResponse::InternalServerError().finish()
        }
    }
}

/// The content security policy: no inline scripts or styles, nothing from other origins, and
/// framing by allowed sites only.
fn content_security_policy(allowed_origins: &[String]) -> String {
    let ancestors = ["'self'"]
        .into_iter()
        .chain(allowed_origins.iter().map(String::as_str));
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors {}",
        ancestors.collect::<Vec<_>>().join(" ")
    )
}

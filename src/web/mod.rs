//! The HTTP server: its routes and what they share. Each surface has a file of its own.

mod access;
mod admin;
mod assets;
mod chat_api;
mod client_address;
mod connections;
mod demo;
mod error;
mod extract;
mod locales;
mod metrics;
mod middleware;
pub(crate) mod openai;
mod pages;
mod status;
mod ws;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_service::apply_fn_factory;
use actix_web::dev::Server;
use actix_web::http::header::X_CONTENT_TYPE_OPTIONS;
use actix_web::middleware::{DefaultHeaders, from_fn};
use actix_web::{App, FromRequest, Handler, HttpServer, Resource, Responder, Route, guard, web};
use tokio::sync::watch;

use crate::config::Settings;
use crate::degradation::FallbackWatch;
use crate::ops::alerts::watcher::Alerts;
use crate::ops::audit::AuditLog;
use crate::ops::drills::DrillService;
use crate::ops::hourly_history::HourlyHistory;
use crate::ops::reload::ReloadHandle;
use crate::ops::status::StatusHistory;
use crate::provider::stall_clock;
use crate::session::service::ChatService;

pub use connections::ConnectionLimiter;

use middleware::catch_panic::catch_panic;
use middleware::headers;

/// Connections beyond the WebSocket limit, for other requests and for rejecting further WebSockets.
const EXTRA_CONNECTIONS: usize = 1024;

const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Seconds that open connections have at shutdown, after the drain.
const STOP_TIMEOUT_S: u64 = 2;

/// The time that a turn continues after its API client has left. Short, because nobody reads the
/// answer; the caller's disconnect must reach the provider within two seconds.
const API_ORPHAN_GRACE: Duration = Duration::from_millis(1500);

/// The parts of a service that its web server uses.
#[derive(Clone)]
pub struct AppState {
    /// A random name of this process, shown in the status.
    pub instance_id: Arc<str>,
    pub chat: Arc<ChatService>,
    pub connections: Arc<ConnectionLimiter>,
    /// `false` while an actor crashes again and again.
    pub is_stable: watch::Receiver<bool>,
    /// Problems found at the start, in sentences that anyone may read.
    pub startup_problems: Arc<[String]>,
    /// The health of the answers that need no provider.
    pub fallback_health: FallbackWatch,
    pub status_history: watch::Receiver<Arc<StatusHistory>>,
    pub alerts: Alerts,
    /// The hourly answer counts of the last month.
    pub hourly_history: watch::Receiver<Arc<HourlyHistory>>,
    pub audit_log: Arc<AuditLog>,
    pub reloads: ReloadHandle,
    pub drills: Arc<DrillService>,
    pub started_at: Instant,
    /// The start time, in Unix seconds.
    pub started_at_s: u64,
}

impl AppState {
    /// Returns the current settings. A request reads them once, so that a reload cannot change them
    /// halfway through.
    fn settings(&self) -> Arc<Settings> {
        self.chat.settings()
    }
}

/// Matches GET and HEAD. For HEAD the server leaves out the body.
fn get_or_head() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// A resource for reading. Other methods get 405.
fn page_route<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    web::resource(path)
        .route(get_or_head().to(handler))
        .default_service(web::to(|| async { error::method_not_allowed("GET, HEAD") }))
}

/// A resource of `/v1`. Other methods get an error in OpenAI's shape.
fn v1_route(path: &str) -> Resource {
    web::resource(path).default_service(web::to(openai::wrong_method))
}

/// Creates the server. It runs when it is awaited.
pub fn serve(listener: TcpListener, state: AppState) -> std::io::Result<Server> {
    let settings = state.settings();
    let workers = match settings.server.workers {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        workers => workers,
    };
    let connections = (settings.limits.connections + EXTRA_CONNECTIONS).div_ceil(workers);
    let server = HttpServer::new(move || {
        // Each worker measures the stalls of the thread that runs its turns.
        stall_clock::monitor_current_thread();
        let app = App::new()
            .app_data(web::Data::new(state.clone()))
            .wrap(from_fn(headers::limit_headers))
            // Wraps everything else, so that errors carry the header too.
            .wrap(DefaultHeaders::new().add((X_CONTENT_TYPE_OPTIONS, "nosniff")))
            .service(page_route("/static/{file:.*}", assets::static_file))
            .service(page_route("/widget.js", assets::widget_script))
            .service(page_route("/embed", pages::embed_page))
            .service(page_route("/embed/origin", pages::embed_origin))
            .service(page_route("/", pages::chat_page))
            .service(page_route("/status", status::page::status_page))
            .service(
                web::resource("/ws")
                    .route(web::get().to(ws::open_session))
                    .default_service(web::to(|| async { error::method_not_allowed("GET") })),
            )
            .service(
                web::resource("/api/chat")
                    .wrap(from_fn(headers::assign_request_id))
                    .route(web::post().to(chat_api::chat))
                    .default_service(web::to(chat_api::wrong_method)),
            )
            .service(
                web::scope("/v1")
                    .wrap(from_fn(headers::assign_request_id))
                    .service(
                        v1_route("/chat/completions")
                            .route(web::post().to(openai::chat_completions)),
                    )
                    .service(v1_route("/models").route(get_or_head().to(openai::list_models)))
                    .service(v1_route("/models/{id:.*}").route(get_or_head().to(openai::get_model)))
                    .default_service(web::to(openai::unknown_route)),
            )
            .service(page_route("/status.json", status::json::status_json))
            .service(page_route("/metrics", metrics::scrape))
            .service(page_route("/healthz", status::json::healthz))
            .service(page_route("/readyz", status::json::readyz))
            .service(admin::routes())
            .service(
                web::resource("/demo/providers/{name}")
                    .route(web::post().to(demo::handle_command))
                    .default_service(web::to(demo::wrong_method)),
            )
            .default_service(web::to(error::not_found));
        apply_fn_factory(app, catch_panic)
    })
    .workers(workers)
    .max_connections(connections)
    .client_request_timeout(HEADER_TIMEOUT)
    .client_disconnect_timeout(Duration::from_secs(1))
    .shutdown_timeout(STOP_TIMEOUT_S)
    // Otherwise an answer would continue, and be paid for, after its client left.
    .h1_allow_half_closed(false)
    .on_connect(connections::set_socket_options)
    .disable_signals()
    .listen(listener)?;
    Ok(server.run())
}

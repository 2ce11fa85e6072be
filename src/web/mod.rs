//! The HTTP server: its routes and what they share. Each surface has a file of its own.

mod admin;
mod assets;
mod body;
mod caught;
mod chat_api;
mod connection;
mod demo;
mod embed;
mod gate;
mod head;
mod history;
mod metrics;
mod named;
pub(crate) mod openai;
mod pages;
mod refusal;
mod socket;
mod status;
mod status_drills;
mod status_page;
mod words;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_service::apply_fn_factory;
use actix_web::dev::Server;
use actix_web::http::header::X_CONTENT_TYPE_OPTIONS;
use actix_web::middleware::{DefaultHeaders, from_fn};
use actix_web::{App, HttpServer, Resource, Route, guard, web};
use tokio::sync::watch;

use crate::degradation::Health;
use crate::ops::alerts::watch::Alerts;
use crate::ops::audit::Audit;
use crate::ops::drills::Drills;
use crate::ops::history::History;
use crate::ops::reload::Reloads;
use crate::ops::report::Report;
use crate::provider::standstill;
use crate::session::lobby::Lobby;
use crate::settings::Settings;
use crate::simulator::Simulator;

pub use connection::Connections;

/// Connections beyond the WebSocket limit, for other requests and for rejecting further WebSockets.
const SPARE_CONNECTIONS: usize = 1024;

const HEAD_LIMIT: Duration = Duration::from_secs(5);

/// Seconds that open connections have at shutdown, after the drain.
const STOP_S: u64 = 2;

/// The time that a turn continues after its API client has left. Short, because nobody reads the
/// answer; the caller's disconnect must reach the provider within two seconds.
const PATIENCE: Duration = Duration::from_millis(1500);

#[derive(Clone)]
pub struct State {
    lobby: Arc<Lobby>,
    simulators: Arc<[Arc<Simulator>]>,
    steady: watch::Receiver<bool>,
    problems: Arc<[String]>,
    degradation: Health,
    reports: watch::Receiver<Arc<Report>>,
    alerts: Alerts,
    history: watch::Receiver<Arc<History>>,
    drills: Arc<Drills>,
    connections: Arc<Connections>,
    audit: Arc<Audit>,
    reloads: Reloads,
    instance: Arc<str>,
    started: Instant,
    /// The start time, in Unix seconds.
    created: u64,
}

/// The parts of a service that its web server uses.
pub struct Parts {
    /// A random name of this process, shown in the status.
    pub instance: Arc<str>,
    pub lobby: Arc<Lobby>,
    /// The simulated providers. Empty outside demo mode.
    pub simulators: Arc<[Arc<Simulator>]>,
    /// `false` while an actor crashes again and again.
    pub steady: watch::Receiver<bool>,
    /// Problems found at the start, in sentences that anyone may read.
    pub problems: Vec<String>,
    /// The health of the answers that need no provider.
    pub degradation: Health,
    pub reports: watch::Receiver<Arc<Report>>,
    pub alerts: Alerts,
    /// The hourly answer counts of the last month.
    pub history: watch::Receiver<Arc<History>>,
    pub audit: Arc<Audit>,
    pub reloads: Reloads,
    pub drills: Arc<Drills>,
}

impl State {
    pub fn new(parts: Parts) -> Self {
        let Parts {
            instance,
            lobby,
            simulators,
            steady,
            problems,
            degradation,
            reports,
            alerts,
            history,
            audit,
            reloads,
            drills,
        } = parts;
        let settings = lobby.settings();
        let connections = Connections::new(
            settings.limits.connections,
            settings.limits.connections_per_ip,
        );
        let created = lobby.desk.clock.wall().0 / 1000;
        Self {
            lobby,
            simulators,
            steady,
            problems: problems.into(),
            degradation,
            reports,
            alerts,
            history,
            drills,
            connections: Arc::new(connections),
            audit,
            reloads,
            instance,
            started: Instant::now(),
            created,
        }
    }

    /// Returns the current settings. A request reads them once, so that a reload cannot change them
    /// halfway through.
    fn settings(&self) -> Arc<Settings> {
        self.lobby.settings()
    }

    pub fn connections(&self) -> Arc<Connections> {
        Arc::clone(&self.connections)
    }
}

/// Matches GET and HEAD. For HEAD the server leaves out the body.
fn read() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// A resource for reading. Other methods get 405.
fn page(path: &str, route: Route) -> Resource {
    web::resource(path)
        .route(route)
        .default_service(web::to(|| async { refusal::only("GET, HEAD") }))
}

/// A resource of `/v1`. Other methods get an error in OpenAI's shape.
fn v1(path: &str) -> Resource {
    web::resource(path).default_service(web::to(openai::wrong_method))
}

/// Creates the server. It runs when it is awaited.
pub fn serve(listener: TcpListener, state: State) -> std::io::Result<Server> {
    let settings = state.settings();
    let workers = match settings.server.workers {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        workers => workers,
    };
    let connections = (settings.limits.connections + SPARE_CONNECTIONS).div_ceil(workers);
    let server = HttpServer::new(move || {
        // Each worker measures the stalls of the thread that runs its turns.
        standstill::watch();
        let app = App::new()
            .app_data(web::Data::new(state.clone()))
            .wrap(from_fn(head::bounded))
            // Wraps everything else, so that errors carry the header too.
            .wrap(DefaultHeaders::new().add((X_CONTENT_TYPE_OPTIONS, "nosniff")))
            .service(page("/static/{file:.*}", read().to(assets::file)))
            .service(page("/widget.js", read().to(assets::widget)))
            .service(page("/embed", read().to(pages::embed)))
            .service(page("/embed/origin", read().to(embed::origin)))
            .service(page("/", read().to(pages::chat)))
            .service(page("/status", read().to(status_page::page)))
            .service(
                web::resource("/ws")
                    .route(web::get().to(socket::open))
                    .default_service(web::to(|| async { refusal::only("GET") })),
            )
            .service(
                web::resource("/api/chat")
                    .wrap(from_fn(named::named))
                    .route(web::post().to(chat_api::chat))
                    .default_service(web::to(chat_api::wrong_method)),
            )
            .service(
                web::scope("/v1")
                    .wrap(from_fn(named::named))
                    .service(v1("/chat/completions").route(web::post().to(openai::complete)))
                    .service(v1("/models").route(read().to(openai::models)))
                    .service(v1("/models/{id:.*}").route(read().to(openai::one_model)))
                    .default_service(web::to(openai::nothing)),
            )
            .service(page("/status.json", read().to(status::json)))
            .service(page("/metrics", read().to(metrics::scrape)))
            .service(page("/healthz", read().to(status::alive)))
            .service(page("/readyz", read().to(status::ready)))
            .service(admin::routes())
            .service(
                web::resource("/demo/providers/{name}")
                    .route(web::post().to(demo::command))
                    .default_service(web::to(demo::wrong_method)),
            )
            .default_service(web::to(refusal::not_found));
        apply_fn_factory(app, caught::caught)
    })
    .workers(workers)
    .max_connections(connections)
    .client_request_timeout(HEAD_LIMIT)
    .client_disconnect_timeout(Duration::from_secs(1))
    .shutdown_timeout(STOP_S)
    // Otherwise an answer would continue, and be paid for, after its client left.
    .h1_allow_half_closed(false)
    .on_connect(connection::tune)
    .disable_signals()
    .listen(listener)?;
    Ok(server.run())
}

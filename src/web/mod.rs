//! What is served over HTTP, one file a surface.

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

/// Connections beyond the WebSockets' limit: for other requests, and for who is told that there are too many.
const SPARE_CONNECTIONS: usize = 1024;

/// How long a request's head may take.
const HEAD_LIMIT: Duration = Duration::from_secs(5);

/// How long connections have to end at the stop, after the drain.
const STOP_S: u64 = 2;

/// How long a turn of a program goes on that left: it is to cost nothing two seconds later, and its provider has to hear of it, too.
const PATIENCE: Duration = Duration::from_millis(1500);

/// What every surface needs.
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
    /// The wall clock at the start, in seconds.
    created: u64,
}

/// What a service is made of, as far as its web side needs it.
pub struct Parts {
    /// The name of this instance, for the status: another one after each start.
    pub instance: Arc<str>,
    /// What sessions are served with.
    pub lobby: Arc<Lobby>,
    /// The demo's providers; none where this is no demo.
    pub simulators: Arc<[Arc<Simulator>]>,
    /// False while an actor ends again and again.
    pub steady: watch::Receiver<bool>,
    /// What went wrong at the start, in sentences for everyone.
    pub problems: Vec<String>,
    /// What is wrong with what answers without a provider.
    pub degradation: Health,
    /// The history of the service's state.
    pub reports: watch::Receiver<Arc<Report>>,
    /// Who is told of changes.
    pub alerts: Alerts,
    /// What was answered in the last month.
    pub history: watch::Receiver<Arc<History>>,
    /// What operators did.
    pub audit: Arc<Audit>,
    /// What asks for reloads.
    pub reloads: Reloads,
    /// Outage drills.
    pub drills: Arc<Drills>,
}

impl State {
    /// The state of a service that starts now.
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

    /// The settings at this moment. A request looks at them once.
    fn settings(&self) -> Arc<Settings> {
        self.lobby.settings()
    }

    /// The WebSockets that are open.
    pub fn connections(&self) -> Arc<Connections> {
        Arc::clone(&self.connections)
    }
}

/// GET, and HEAD, which is a GET whose body the server leaves out.
fn read() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// What is there to be read; another method is told so.
fn page(path: &str, page: Route) -> Resource {
    web::resource(path)
        .route(page)
        .default_service(web::to(|| async { refusal::only("GET, HEAD") }))
}

/// A route of `/v1`: what it says of a wrong method has the API's own shape.
fn v1(path: &str) -> Resource {
    web::resource(path).default_service(web::to(openai::wrong_method))
}

/// A server on this port; it runs when it is awaited.
///
/// # Errors
/// The port cannot be used.
pub fn serve(listener: TcpListener, state: State) -> std::io::Result<Server> {
    let settings = state.settings();
    let workers = match settings.server.workers {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        workers => workers,
    };
    let connections = (settings.limits.connections + SPARE_CONNECTIONS).div_ceil(workers);
    let server = HttpServer::new(move || {
        // Each worker reads the providers of its own turns.
        standstill::watch();
        let app = App::new()
            .app_data(web::Data::new(state.clone()))
            .wrap(from_fn(head::bounded))
            // Outermost, so that errors carry it too.
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
    // Or an answer goes on, and is paid for, after its client has left.
    .h1_allow_half_closed(false)
    .on_connect(connection::tune)
    .disable_signals()
    .listen(listener)?;
    Ok(server.run())
}

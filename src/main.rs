//! Arguments, commands and exit codes: 0 fine, 1 a failure while running, 2 usage or configuration.

use std::future::Future;
use std::io::Write as _;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use failsoft::app::{App, Read};
use failsoft::cli::{self, Cli, Command, Serve};
use failsoft::settings::{self, Loaded, Secret, Settings};
use failsoft::telemetry;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A failure while running.
const FAILED: u8 = 1;

/// Wrong usage or configuration.
const MISUSED: u8 = 2;

/// The environment variable with the admin token.
const TOKEN_VARIABLE: &str = "FAILSOFT_ADMIN_TOKEN";

fn main() -> ExitCode {
    let command = Cli::parse().into_command();
    telemetry::init(env("RUST_LOG").as_deref(), env("FAILSOFT_LOG").as_deref());
    telemetry::quiet_panics();
    match command {
        Command::Serve(serve) => match load(serve.config.as_deref()) {
            Ok(loaded) => run(loaded, serve),
            Err(code) => code,
        },
        Command::Check(check) => match load(check.config.as_deref()) {
            Ok(loaded) => {
                say(&settings::report(&loaded));
                ExitCode::SUCCESS
            }
            Err(code) => code,
        },
        Command::Status(asked) => status(asked.url),
        Command::Drill(_) => {
            eprintln!("failsoft: this command is not built yet; see /status.json of the running service");
            ExitCode::from(MISUSED)
        }
    }
}

/// Writes to stdout. Who does not read it any more is no reason to fail.
fn say(text: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads the configuration; all of its problems go to stderr at once.
fn load(named: Option<&Path>) -> Result<Loaded, ExitCode> {
    let file = settings::find(named, &env);
    Settings::load(file.as_deref(), &env).map_err(|problems| {
        eprintln!("{problems}");
        ExitCode::from(MISUSED)
    })
}

fn run(loaded: Loaded, Serve { config, listen }: Serve) -> ExitCode {
    let Loaded { mut settings, warnings, .. } = loaded;
    for warning in warnings {
        tracing::warn!(line = warning.line, key = warning.key, "{}", warning.what);
    }
    let listening = move |settings: &mut Settings| {
        if let Some(listen) = &listen {
            settings.server.listen.clone_from(listen);
        }
    };
    listening(&mut settings);
    // Looked for anew each time: a file that was not there at the start may be there now.
    let read = move || {
        let file = settings::find(config.as_deref(), &env);
        let mut loaded = Settings::load(file.as_deref(), &env)?;
        listening(&mut loaded.settings);
        Ok(loaded)
    };
    match actix::System::new().block_on(serve(settings, Arc::new(read))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failsoft: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// Shows the service that is named, else the one that is configured. Only that one is given the configuration's token.
fn status(url: Option<String>) -> ExitCode {
    let mut token = env(TOKEN_VARIABLE).filter(|token| !token.is_empty()).map(Secret::new);
    let url = match url {
        Some(url) => Ok(url),
        None => match load(None) {
            Ok(Loaded { settings, .. }) => {
                token = token.or(settings.server.admin_token);
                cli::status::url_of(&settings.server.listen)
            }
            Err(code) => {
                eprintln!("failsoft: or say where the service is with --url");
                return code;
            }
        },
    };
    let shown = url.and_then(|url| {
        actix::System::new().block_on(async { cli::status::table(&url, token.as_ref()).await })
    });
    match shown {
        Ok(table) => {
            say(&table);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("failsoft: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

async fn serve(settings: Settings, read: Read) -> anyhow::Result<()> {
    let (hangup, terminate, interrupt) =
        (signal(SignalKind::hangup())?, signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let app = App::build_from(settings, read).await?;
    say(&format!("{}\n", app.ready_line()));
    let reload = app.reloader();
    actix::spawn(async move { each(hangup, || reload.reload()).await });
    app.run_until_stopped(either(terminate, interrupt)).await
}

/// Does something at each signal.
async fn each<F: Future<Output = ()>>(mut signal: Signal, act: impl Fn() -> F) {
    while signal.recv().await.is_some() {
        act().await;
    }
}

/// Waits for the first of two signals. More of them change nothing: the answers under way are not cut for an impatient operator.
async fn either(mut one: Signal, mut other: Signal) {
    let (one, other) = (pin!(one.recv()), pin!(other.recv()));
    futures_util::future::select(one, other).await;
}

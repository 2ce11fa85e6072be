//! Arguments, commands and exit codes: 0 fine, 1 a failure while running, 2 usage or configuration.

use std::future::Future;
use std::io::Write as _;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use failsoft::app::{App, Read};
use failsoft::cli::{self, Cli, Command, Serve};
use failsoft::degradation::rules;
use failsoft::settings::{self, Loaded, Secret, Settings};
use failsoft::telemetry;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A failure while running.
const FAILED: u8 = 1;

/// Wrong usage or configuration.
const MISUSED: u8 = 2;

/// How long the threads of a service that has stopped are waited for.
const LEAVING: Duration = Duration::from_secs(1);

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
            Ok(loaded) => report(&loaded),
            Err(code) => code,
        },
        Command::Status(asked) => status(asked.url),
        Command::Drill(asked) => drill(&asked),
    }
}

/// Says what is configured, after the files that the configuration names were read too: all of their problems go to stderr.
fn report(loaded: &Loaded) -> ExitCode {
    match rules::read(&loaded.settings.degradation) {
        Ok(_) => {
            say(&settings::report(loaded));
            ExitCode::SUCCESS
        }
        Err(problems) => {
            eprintln!("{problems}");
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
    let Loaded {
        mut settings,
        warnings,
        ..
    } = loaded;
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
        let mut loaded = Settings::load_again(file.as_deref(), &env)?;
        listening(&mut loaded.settings);
        Ok(loaded)
    };
    let system = actix::System::new();
    let code = match system.block_on(serve(settings, Arc::new(read))) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("failsoft: {error:#}");
            FAILED
        }
    };
    leave_soon(code);
    drop(system);
    ExitCode::from(code)
}

/// Ends the process in a while, if it is still there. What ends it in good order waits for every call that blocks, and one may hang for good: at a
/// disk, or where a name is looked up. All that was promised is kept by now.
fn leave_soon(code: u8) {
    let leave = move || {
        std::thread::sleep(LEAVING);
        std::process::exit(code.into())
    };
    // Without a thread to be had it ends when it ends.
    drop(
        std::thread::Builder::new()
            .name("leaving".into())
            .spawn(leave),
    );
}

/// Shows the service that is named, else the one that is configured. Only that one is given the configuration's token.
fn status(url: Option<String>) -> ExitCode {
    let mut token = token();
    let url = match url {
        Some(url) => Ok(url),
        None => match load(None) {
            Ok(Loaded { settings, .. }) => {
                token = token.or(settings.server.admin_token);
                cli::service::url_of(&settings.server.listen)
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

/// Begins a drill on the service that is named, else the one that is configured, with the environment's token, else the configured one.
fn drill(asked: &cli::Drill) -> ExitCode {
    let (mut url, mut token) = (asked.url.clone(), token());
    if url.is_none() || token.is_none() {
        let settings = match load(None) {
            Ok(loaded) => loaded.settings,
            Err(code) => {
                eprintln!(
                    "failsoft: or say where the service is with --url, and set ${TOKEN_VARIABLE}"
                );
                return code;
            }
        };
        token = token.or(settings.server.admin_token);
        url = match url.map_or_else(|| cli::service::url_of(&settings.server.listen), Ok) {
            Ok(url) => Some(url),
            Err(error) => {
                eprintln!("failsoft: {error:#}");
                return ExitCode::from(MISUSED);
            }
        };
    }
    let (Some(url), Some(token)) = (url, token) else {
        eprintln!(
            "failsoft: a drill needs the admin token: set ${TOKEN_VARIABLE}, or server.admin_token in the configuration"
        );
        return ExitCode::from(MISUSED);
    };
    let drilled = actix::System::new().block_on(async {
        let (terminate, interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let service = cli::service::Service {
            url: &url,
            token: Some(&token),
        };
        let say = |line: &str| say(&format!("{line}\n"));
        cli::drill::run(service, asked, either(terminate, interrupt), say).await
    });
    match drilled {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failsoft: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// The environment's admin token.
fn token() -> Option<Secret> {
    env(TOKEN_VARIABLE)
        .filter(|token| !token.is_empty())
        .map(Secret::new)
}

async fn serve(settings: Settings, read: Read) -> anyhow::Result<()> {
    let (hangup, terminate, interrupt) = (
        signal(SignalKind::hangup())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
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

//! The `failsoft` program. Exit codes: 0 success, 1 failure at run time, 2 invalid usage or
//! configuration.

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

const FAILED: u8 = 1;

const MISUSED: u8 = 2;

/// The time to wait for remaining threads after the service has stopped.
const LEAVING: Duration = Duration::from_secs(1);

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
        Command::Status(args) => status(args.url),
        Command::Drill(args) => drill(&args),
    }
}

/// Prints the report of `failsoft check`. Also reads the files that the configuration names.
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

/// Writes to stdout. A closed pipe is no error.
fn say(text: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

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
    let override_listen = move |settings: &mut Settings| {
        if let Some(listen) = &listen {
            settings.server.listen.clone_from(listen);
        }
    };
    override_listen(&mut settings);
    // The path is resolved again at each reload: the default file may exist by then.
    let loader = move || {
        let file = settings::find(config.as_deref(), &env);
        let mut loaded = Settings::load_again(file.as_deref(), &env)?;
        override_listen(&mut loaded.settings);
        Ok(loaded)
    };
    let system = actix::System::new();
    let code = match system.block_on(serve(settings, Arc::new(loader))) {
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

/// Exits the process after a delay, if it is still running.
///
/// Dropping the system waits for all blocking calls, and one may hang on a disk or a DNS lookup.
/// Everything that must be saved is saved at this point.
fn leave_soon(code: u8) {
    let exit = move || {
        std::thread::sleep(LEAVING);
        std::process::exit(code.into())
    };
    // If no thread can be started, the process just waits for the blocking calls.
    drop(
        std::thread::Builder::new()
            .name("leaving".into())
            .spawn(exit),
    );
}

/// Prints the status of the given service, else of the configured one.
///
/// The token of the configuration is only sent to the configured service.
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
                eprintln!("failsoft: or pass the address of the service with --url");
                return code;
            }
        },
    };
    let table = url.and_then(|url| {
        actix::System::new().block_on(async { cli::status::table(&url, token.as_ref()).await })
    });
    match table {
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

/// Starts a drill on the given service, else on the configured one.
///
/// The admin token comes from the environment, else from the configuration.
fn drill(args: &cli::Drill) -> ExitCode {
    let mut url = args.url.clone();
    let mut token = token();
    if url.is_none() || token.is_none() {
        let settings = match load(None) {
            Ok(loaded) => loaded.settings,
            Err(code) => {
                eprintln!(
                    "failsoft: or pass the address of the service with --url, and set ${TOKEN_VARIABLE}"
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
    let result = actix::System::new().block_on(async {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let service = cli::service::Service {
            url: &url,
            token: Some(&token),
        };
        let print_line = |line: &str| say(&format!("{line}\n"));
        cli::drill::run(service, args, either(terminate, interrupt), print_line).await
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failsoft: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn token() -> Option<Secret> {
    env(TOKEN_VARIABLE)
        .filter(|token| !token.is_empty())
        .map(Secret::new)
}

async fn serve(settings: Settings, loader: Read) -> anyhow::Result<()> {
    let hangup = signal(SignalKind::hangup())?;
    let terminate = signal(SignalKind::terminate())?;
    let interrupt = signal(SignalKind::interrupt())?;
    let app = App::build_from(settings, loader).await?;
    say(&format!("{}\n", app.ready_line()));
    let reloader = app.reloader();
    actix::spawn(async move { each(hangup, || reloader.reload()).await });
    app.run_until_stopped(either(terminate, interrupt)).await
}

async fn each<F: Future<Output = ()>>(mut signal: Signal, action: impl Fn() -> F) {
    while signal.recv().await.is_some() {
        action().await;
    }
}

/// Waits for the first of two signals. Later signals have no effect, so that a second Ctrl-C does
/// not interrupt the running turns.
async fn either(mut first: Signal, mut second: Signal) {
    let first = pin!(first.recv());
    let second = pin!(second.recv());
    futures_util::future::select(first, second).await;
}

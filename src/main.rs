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
use failsoft::app::{App, ConfigLoader};
use failsoft::cli::{self, Cli, Command, Serve};
use failsoft::config::{self, LoadedConfig, Secret, Settings};
use failsoft::degradation::load;
use failsoft::telemetry;
use tokio::signal::unix::{Signal, SignalKind, signal};

const EXIT_FAILURE: u8 = 1;

const EXIT_USAGE: u8 = 2;

/// The time to wait for remaining threads after the service has stopped.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

const ADMIN_TOKEN_ENV_VAR: &str = "FAILSOFT_ADMIN_TOKEN";

fn main() -> ExitCode {
    let command = Cli::parse().into_command();
    telemetry::init(
        env_var("RUST_LOG").as_deref(),
        env_var("FAILSOFT_LOG").as_deref(),
    );
    telemetry::install_panic_hook();
    match command {
        Command::Serve(serve) => match load_config(serve.config.as_deref()) {
            Ok(loaded) => run_service(loaded, serve),
            Err(code) => code,
        },
        Command::Check(check) => match load_config(check.config.as_deref()) {
            Ok(loaded) => print_report(&loaded),
            Err(code) => code,
        },
        Command::Status(args) => run_status(args.url),
        Command::Drill(args) => run_drill(&args),
    }
}

/// Prints the report of `failsoft check`. Also reads the files that the configuration names.
fn print_report(loaded: &LoadedConfig) -> ExitCode {
    match load::load_chain(&loaded.settings.degradation) {
        Ok(_) => {
            print(&config::report(loaded));
            ExitCode::SUCCESS
        }
        Err(problems) => {
            eprintln!("{problems}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Writes to stdout. A closed pipe is no error.
fn print(text: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn env_var(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn load_config(named: Option<&Path>) -> Result<LoadedConfig, ExitCode> {
    let file = config::config_path(named, &env_var);
    Settings::load(file.as_deref(), &env_var).map_err(|problems| {
        eprintln!("{problems}");
        ExitCode::from(EXIT_USAGE)
    })
}

fn run_service(loaded: LoadedConfig, Serve { config, listen }: Serve) -> ExitCode {
    let LoadedConfig {
        mut settings,
        warnings,
        ..
    } = loaded;
    for warning in warnings {
        tracing::warn!(
            line = warning.line,
            key = warning.key,
            "{}",
            warning.message
        );
    }
    let override_listen = move |settings: &mut Settings| {
        if let Some(listen) = &listen {
            settings.server.listen.clone_from(listen);
        }
    };
    override_listen(&mut settings);
    // The path is resolved again at each reload: the default file may exist by then.
    let loader = move || {
        let file = config::config_path(config.as_deref(), &env_var);
        let mut loaded = Settings::reload(file.as_deref(), &env_var)?;
        override_listen(&mut loaded.settings);
        Ok(loaded)
    };
    let system = actix::System::new();
    let code = match system.block_on(serve(settings, Arc::new(loader))) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("failsoft: {error:#}");
            EXIT_FAILURE
        }
    };
    exit_after_timeout(code);
    drop(system);
    ExitCode::from(code)
}

/// Exits the process after a delay, if it is still running.
///
/// Dropping the system waits for all blocking calls, and one may hang on a disk or a DNS lookup.
/// Everything that must be saved is saved at this point.
fn exit_after_timeout(code: u8) {
    let exit = move || {
        std::thread::sleep(EXIT_TIMEOUT);
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
fn run_status(url: Option<String>) -> ExitCode {
    let mut token = env_token();
    let url = match url {
        Some(url) => Ok(url),
        None => match load_config(None) {
            Ok(LoadedConfig { settings, .. }) => {
                token = token.or(settings.server.admin_token);
                cli::client::service_url(&settings.server.listen)
            }
            Err(code) => {
                eprintln!("failsoft: or pass the address of the service with --url");
                return code;
            }
        },
    };
    let table = url.and_then(|url| {
        actix::System::new()
            .block_on(async { cli::status::status_table(&url, token.as_ref()).await })
    });
    match table {
        Ok(table) => {
            print(&table);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("failsoft: {error:#}");
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

/// Starts a drill on the given service, else on the configured one.
///
/// The admin token comes from the environment, else from the configuration.
fn run_drill(args: &cli::Drill) -> ExitCode {
    let mut url = args.url.clone();
    let mut token = env_token();
    if url.is_none() || token.is_none() {
        let settings = match load_config(None) {
            Ok(loaded) => loaded.settings,
            Err(code) => {
                eprintln!(
                    "failsoft: or pass the address of the service with --url, and set ${ADMIN_TOKEN_ENV_VAR}"
                );
                return code;
            }
        };
        token = token.or(settings.server.admin_token);
        url = match url.map_or_else(|| cli::client::service_url(&settings.server.listen), Ok) {
            Ok(url) => Some(url),
            Err(error) => {
                eprintln!("failsoft: {error:#}");
                return ExitCode::from(EXIT_USAGE);
            }
        };
    }
    let (Some(url), Some(token)) = (url, token) else {
        eprintln!(
            "failsoft: a drill needs the admin token: set ${ADMIN_TOKEN_ENV_VAR}, or server.admin_token in the configuration"
        );
        return ExitCode::from(EXIT_USAGE);
    };
    let result = actix::System::new().block_on(async {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let service = cli::client::StatusClient {
            url: &url,
            token: Some(&token),
        };
        let print_line = |line: &str| print(&format!("{line}\n"));
        cli::drill::run(
            service,
            args,
            first_signal(terminate, interrupt),
            print_line,
        )
        .await
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failsoft: {error:#}");
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

fn env_token() -> Option<Secret> {
    env_var(ADMIN_TOKEN_ENV_VAR)
        .filter(|token| !token.is_empty())
        .map(Secret::new)
}

async fn serve(settings: Settings, loader: ConfigLoader) -> anyhow::Result<()> {
    let hangup = signal(SignalKind::hangup())?;
    let terminate = signal(SignalKind::terminate())?;
    let interrupt = signal(SignalKind::interrupt())?;
    let app = App::build_with_loader(settings, loader).await?;
    print(&format!("{}\n", app.ready_line()));
    let reloader = app.reloader();
    actix::spawn(async move { on_each_signal(hangup, || reloader.reload()).await });
    app.run_until_stopped(first_signal(terminate, interrupt))
        .await
}

async fn on_each_signal<F: Future<Output = ()>>(mut signal: Signal, action: impl Fn() -> F) {
    while signal.recv().await.is_some() {
        action().await;
    }
}

/// Waits for the first of two signals. Later signals have no effect, so that a second Ctrl-C does
/// not interrupt the running turns.
async fn first_signal(mut first: Signal, mut second: Signal) {
    let first = pin!(first.recv());
    let second = pin!(second.recv());
    futures_util::future::select(first, second).await;
}

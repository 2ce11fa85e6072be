//! The `failsoft` program. Exit codes: 0 success, 1 failure at run time, 2 invalid usage or
//! configuration.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use failsoft::app::{App, ConfigLoader};
use failsoft::cli::client::StatusClient;
use failsoft::cli::{self, Cli, Command, Serve};
use failsoft::config::{self, ConfigErrors, LoadedConfig, Secret, Settings};
use failsoft::degradation::load;
use failsoft::telemetry;
use tokio::signal::unix::{SignalKind, signal};

const EXIT_FAILURE: u8 = 1;

const EXIT_USAGE: u8 = 2;

/// The time to wait for remaining threads after the service has stopped.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

const ADMIN_TOKEN_ENV_VAR: &str = "FAILSOFT_ADMIN_TOKEN";

/// The end of a failed command: its exit code and the message for the operator.
struct Failure {
    code: u8,
    message: String,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self {
            code: EXIT_FAILURE,
            message: format!("failsoft: {error:#}"),
        }
    }
}

impl From<ConfigErrors> for Failure {
    fn from(problems: ConfigErrors) -> Self {
        usage_failure(problems.to_string())
    }
}

fn usage_failure(message: String) -> Failure {
    let code = EXIT_USAGE;
    Failure { code, message }
}

fn main() -> ExitCode {
    let command = Cli::parse().into_command();
    telemetry::init(
        env_var("RUST_LOG").as_deref(),
        env_var("FAILSOFT_LOG").as_deref(),
    );
    telemetry::install_panic_hook();
    let result = match command {
        Command::Serve(args) => return run_service(args),
        Command::Check(args) => print_report(args.config.as_deref()),
        Command::Status(args) => run_status(args.url),
        Command::Drill(args) => run_drill(&args),
    };
    exit_code(result).into()
}

/// Prints the message of a failure. Returns the exit code.
fn exit_code(result: Result<(), Failure>) -> u8 {
    let Err(Failure { code, message }) = result else {
        return 0;
    };
    eprintln!("{message}");
    code
}

/// Prints the report of `failsoft check`. Also reads the files that the configuration names.
fn print_report(config: Option<&Path>) -> Result<(), Failure> {
    let loaded = load_config(config)?;
    load::load_chain(&loaded.settings.degradation)?;
    print(&config::report(&loaded));
    Ok(())
}

/// Writes to stdout. A closed pipe is no error.
fn print(text: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn env_var(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn load_config(named: Option<&Path>) -> Result<LoadedConfig, ConfigErrors> {
    let file = config::config_path(named, &env_var);
    Settings::load(file.as_deref(), &env_var)
}

/// Loads the configured settings for a command that could do without. `advice` says how.
fn settings_or_advice(advice: &str) -> Result<Settings, Failure> {
    match load_config(None) {
        Ok(loaded) => Ok(loaded.settings),
        Err(problems) => Err(usage_failure(format!("{problems}\nfailsoft: {advice}"))),
    }
}

fn run_service(Serve { config, listen }: Serve) -> ExitCode {
    let mut loaded = match load_config(config.as_deref()) {
        Ok(loaded) => loaded,
        Err(problems) => return exit_code(Err(problems.into())).into(),
    };
    for warning in loaded.warnings {
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
    override_listen(&mut loaded.settings);
    // The path is resolved again at each reload: the default file may exist by then.
    let loader = move || {
        let file = config::config_path(config.as_deref(), &env_var);
        let mut loaded = Settings::reload(file.as_deref(), &env_var)?;
        override_listen(&mut loaded.settings);
        Ok(loaded)
    };
    let system = actix::System::new();
    let result = system.block_on(serve(loaded.settings, Arc::new(loader)));
    let code = exit_code(result.map_err(Failure::from));
    exit_after_timeout(code);
    drop(system);
    code.into()
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
    let thread = std::thread::Builder::new().name("leaving".into());
    drop(thread.spawn(exit));
}

/// Prints the status of the given service, else of the configured one.
///
/// The token of the configuration is only sent to the configured service.
fn run_status(url: Option<String>) -> Result<(), Failure> {
    let mut token = env_token();
    let url = match url {
        Some(url) => url,
        None => {
            let advice = "or pass the address of the service with --url";
            let server = settings_or_advice(advice)?.server;
            token = token.or(server.admin_token);
            cli::client::service_url(&server.listen)?
        }
    };
    let system = actix::System::new();
    let table = system.block_on(cli::status::status_table(&url, token.as_ref()))?;
    print(&table);
    Ok(())
}

/// Starts a drill on the given service, else on the configured one.
///
/// The admin token comes from the environment, else from the configuration.
fn run_drill(args: &cli::Drill) -> Result<(), Failure> {
    let mut url = args.url.clone();
    let mut token = env_token();
    if url.is_none() || token.is_none() {
        let advice = format!(
            "or pass the address of the service with --url, and set ${ADMIN_TOKEN_ENV_VAR}"
        );
        let server = settings_or_advice(&advice)?.server;
        token = token.or(server.admin_token);
        if url.is_none() {
            let configured = cli::client::service_url(&server.listen);
            let configured =
                configured.map_err(|error| usage_failure(format!("failsoft: {error:#}")))?;
            url = Some(configured);
        }
    }
    let (Some(url), Some(token)) = (url, token) else {
        return Err(usage_failure(format!(
            "failsoft: a drill needs the admin token: set ${ADMIN_TOKEN_ENV_VAR}, or server.admin_token in the configuration"
        )));
    };
    let service = StatusClient {
        url: &url,
        token: Some(&token),
    };
    let print_line = |line: &str| print(&format!("{line}\n"));
    actix::System::new()
        .block_on(async { cli::drill::run(service, args, stop_signal()?, print_line).await })?;
    Ok(())
}

fn env_token() -> Option<Secret> {
    env_var(ADMIN_TOKEN_ENV_VAR)
        .filter(|token| !token.is_empty())
        .map(Secret::new)
}

async fn serve(settings: Settings, loader: ConfigLoader) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let stop = stop_signal()?;
    let app = App::build_with_loader(settings, loader).await?;
    print(&format!("{}\n", app.ready_line()));
    let reloader = app.reloader();
    actix::spawn(async move {
        while hangup.recv().await.is_some() {
            reloader.reload().await;
        }
    });
    app.run_until_stopped(stop).await
}

/// Waits for the first SIGTERM or SIGINT. Later signals have no effect, so that a second Ctrl-C
/// does not interrupt the running turns.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

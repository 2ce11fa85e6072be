//! The command line: commands and their arguments. `main` runs them.

pub mod client;
pub mod drill;
pub mod status;

use crate::config::{
    DrillSettings, InjectedFault, format_duration, parse_duration, parse_listen_address,
};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// A self-hosted chat service that keeps answering while the AI providers behind it fail.
///
/// Without a command it runs the service. The configuration is --config, else $FAILSOFT_CONFIG,
/// else ./failsoft.toml, else none.
#[derive(Debug, Clone, PartialEq, Parser)]
#[command(name = "failsoft", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

impl Cli {
    /// The command to run. Without one on the command line, runs the service.
    pub fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Serve(self.serve))
    }
}

#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum Command {
    /// Run the service.
    Serve(Serve),
    /// Check the configuration, print the providers in order and what is missing; reaches no
    /// network.
    Check(Check),
    /// Print the live status of a running service as a table.
    Status(Status),
    /// Start an outage drill on a running service: one provider appears to fail for a while.
    Drill(Drill),
}

#[derive(Debug, Clone, PartialEq, Args)]
pub struct Serve {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The address to listen on, overrides server.listen; port 0 picks a free port.
    #[arg(long, value_name = "ADDR", value_parser = parse_listen_address)]
    pub listen: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Args)]
pub struct Check {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Args)]
pub struct Status {
    /// The address of the service; by default taken from the configuration.
    #[arg(long, value_parser = parse_service_url)]
    pub url: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Args)]
pub struct Drill {
    /// The name of the provider.
    pub provider: String,
    /// The fault: down, rate_limit, unauthorized, timeout, stall, cut, garbage or slow.
    pub fault: InjectedFault,
    /// The duration, at most 15m.
    #[arg(long = "for", value_name = "DURATION", default_value_t = DurationArg(DrillSettings::DEFAULT_DURATION), value_parser = parse_drill_duration)]
    duration: DurationArg,
    /// The share of calls that fail, above 0 and at most 1.
    #[arg(long, default_value_t = 1.0, value_parser = parse_share)]
    pub share: f64,
    /// The address of the service; by default taken from the configuration.
    #[arg(long, value_parser = parse_service_url)]
    pub url: Option<String>,
}

impl Drill {
    /// Above zero, at most [`DrillSettings::MAX_DURATION`].
    pub fn duration(&self) -> Duration {
        self.duration.0
    }
}

/// A duration that is shown in the help text as it is written on the command line.
#[derive(Debug, Clone, Copy, PartialEq)]
struct DurationArg(Duration);

impl std::fmt::Display for DurationArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&format_duration(self.0))
    }
}

fn parse_service_url(text: &str) -> Result<String, String> {
    let url = reqwest::Url::parse(text)
        .ok()
        .filter(|url| url.has_host() && url.query().is_none());
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
    let text = text.trim_end_matches('/').to_owned();
    url.map(|_| text)
        .ok_or_else(|| "an address is written such as http://127.0.0.1:8080".to_owned())
}

fn parse_drill_duration(text: &str) -> Result<DurationArg, String> {
    let duration = parse_duration(text)?;
    if duration.is_zero() || duration > DrillSettings::MAX_DURATION {
        return Err("a drill lasts longer than zero and at most 15m".to_owned());
    }
    Ok(DurationArg(duration))
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text
        .parse::<f64>()
        .ok()
        .filter(|share| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "a share is a number above 0 and up to 1".to_owned())
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        let args = std::iter::once("failsoft").chain(line.split_whitespace());
        Cli::try_parse_from(args).map(Cli::into_command)
    }

    fn serve(config: Option<&str>, listen: Option<&str>) -> Command {
        Command::Serve(Serve {
            config: config.map(PathBuf::from),
            listen: listen.map(str::to_owned),
        })
    }

    #[test]
    fn command_definition_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_is_parsed() {
        let status = |url: Option<&str>| {
            Command::Status(Status {
                url: url.map(str::to_owned),
            })
        };
        let check = |config: Option<&str>| {
            Command::Check(Check {
                config: config.map(PathBuf::from),
            })
        };
        for (line, expected) in [
            ("", serve(None, None)),
            ("--config a.toml", serve(Some("a.toml"), None)),
            (
                "--listen 127.0.0.1:0 --config a.toml",
                serve(Some("a.toml"), Some("127.0.0.1:0")),
            ),
            ("serve", serve(None, None)),
            (
                "serve --config=a.toml --listen=[::]:80",
                serve(Some("a.toml"), Some("[::]:80")),
            ),
            ("check", check(None)),
            ("check --config a.toml", check(Some("a.toml"))),
            ("status", status(None)),
            (
                "status --url http://localhost:1",
                status(Some("http://localhost:1")),
            ),
        ] {
            match parse(line) {
                Ok(command) => assert_eq!(command, expected, "{line}"),
                Err(error) => panic!("{line}: {error}"),
            }
        }
    }

    #[test]
    fn drill_arguments_have_defaults_and_limits() {
        let drill = |line: &str| match parse(line) {
            Ok(Command::Drill(drill)) => drill,
            other => panic!("{line}: {other:?}"),
        };
        let plain = drill("drill openai down");
        assert_eq!(
            (plain.provider.as_str(), plain.fault),
            ("openai", InjectedFault::Down)
        );
        assert_eq!(
            (plain.duration().as_secs(), plain.share, &plain.url),
            (30, 1.0, &None)
        );
        let full = drill("drill a rate_limit --for 2m --share 0.5 --url http://x");
        assert_eq!(
            (full.fault, full.duration().as_secs(), full.share),
            (InjectedFault::RateLimit, 120, 0.5)
        );
        assert_eq!(full.url.as_deref(), Some("http://x"));
    }

    #[test]
    fn invalid_arguments_are_usage_errors() {
        for line in [
            "banana",
            "--listen 8080",
            "serve --listen nowhere",
            "--listen 127.0.0.1:0 check",
            "check --listen 127.0.0.1:0",
            "status --url banana",
            "status --url ftp://x",
            "drill openai",
            "drill openai fire",
            "drill openai down --for 16m",
            "drill openai down --for 0s",
            "drill openai down --for soon",
            "drill openai down --share 0",
            "drill openai down --share 1.1",
        ] {
            match parse(line) {
                Err(error) => assert_eq!(error.exit_code(), 2, "{line}"),
                Ok(command) => panic!("{line}: {command:?}"),
            }
        }
    }
}

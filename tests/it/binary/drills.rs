//! `failsoft drill`: a drill from the command line, to its end or until Ctrl-C, and its errors.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::process::Command;

use super::provider::{Behavior, Provider};
use super::service::{Service, failsoft, run};
use super::wait_for;
use super::ws_client::Visitor;

const TOKEN: &str = "admin-canary";

async fn start_service(folder: &TempDir) -> (Provider, Service, String) {
    let provider = Provider::start(Behavior::Answer).await;
    let config = format!("server.admin_token = \"{TOKEN}\"\n{}", provider.config());
    let service = Service::start(folder.path(), &config).await;
    let url = format!("http://127.0.0.1:{}", service.port);
    (provider, service, url)
}

/// The command in a folder without a configuration, with this token in its environment.
fn drill_command(elsewhere: &TempDir, arguments: &[&str], token: &str) -> Command {
    let mut command = failsoft(elsewhere.path(), &[&["drill"], arguments].concat());
    command.env("FAILSOFT_ADMIN_TOKEN", token);
    command
}

#[tokio::test]
async fn drill_runs_to_its_end_and_prints_a_report() {
    let folder = TempDir::new().unwrap();
    let (_provider, service, url) = start_service(&folder).await;
    let elsewhere = TempDir::new().unwrap();
    let started = Instant::now();
    let output = tokio::spawn(run(drill_command(
        &elsewhere,
        &["scripted", "unauthorized", "--for", "3s", "--url", &url],
        TOKEN,
    )));
    let status = service
        .wait_for_status("the drill in the status", |status| {
            !status["drill"].is_null()
        })
        .await;
    assert_eq!(
        (&status["drill"]["provider"], &status["drill"]["fault"]),
        (&"scripted".into(), &"unauthorized".into())
    );
    Visitor::new(service.port).await.ask("Hello?").await;
    let output = output.await.unwrap();
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (Some(0), ""),
        "{}",
        output.stdout
    );
    assert!(started.elapsed() >= Duration::from_secs(3));
    let until = status["drill"]["until"].as_str().unwrap();
    assert!(
        output.stdout.starts_with(&format!(
            "Outage drill at scripted: unauthorized, until {until}.\n"
        )),
        "{}",
        output.stdout
    );
    assert!(
        output.stdout.contains("\nThe drill ended by itself.\n"),
        "{}",
        output.stdout
    );
    assert!(
        output.stdout.contains("\nTurns     1: 1 ")
            && output.stdout.contains("1 failed at the provider"),
        "{}",
        output.stdout
    );
    assert!(
        output.stdout.contains("\nBreaker   opened after 0."),
        "{}",
        output.stdout
    );
    assert!(!output.stdout.contains(TOKEN) && !output.stdout.contains('\u{1b}'));
    assert_eq!(
        service.get("/status.json").await.json()["providers"][0]["state"],
        "closed"
    );
    assert!(
        service.logged().contains("an outage drill begins")
            && service.logged().contains("an outage drill ended")
    );
}

#[tokio::test]
async fn ctrl_c_ends_the_drill_early() {
    let folder = TempDir::new().unwrap();
    let (_provider, service, url) = start_service(&folder).await;
    let mut child = failsoft(
        folder.path(),
        &[
            "drill", "scripted", "timeout", "--for", "10m", "--share", "0.5", "--url", &url,
        ],
    )
    .spawn()
    .unwrap();
    // The token comes from the configuration in this folder.
    service
        .wait_for_status("the drill in the status", |status| {
            status["drill"]["share"] == 0.5
        })
        .await;
    let interrupt = format!("kill -INT {}", child.id().unwrap());
    assert!(
        Command::new("sh")
            .args(["-c", &interrupt])
            .status()
            .await
            .unwrap()
            .success()
    );
    drop(child.stdin.take());
    let output = wait_for("its end", child.wait_with_output()).await.unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{out}");
    assert!(
        out.contains("timeout, for 0.5 of calls, until ")
            && out.contains("\nThe drill was ended early.\n"),
        "{out}"
    );
    service
        .wait_for_status("no drill in the status", |status| status["drill"].is_null())
        .await;
}

#[tokio::test]
async fn drill_reports_errors_with_their_exit_codes() {
    let folder = TempDir::new().unwrap();
    let (_provider, service, url) = start_service(&folder).await;
    let elsewhere = TempDir::new().unwrap();
    let run_drill = async |arguments: &[&str], token: &str| {
        let output = run(drill_command(&elsewhere, arguments, token)).await;
        assert_eq!(output.stdout, "", "{}", output.stderr);
        assert!(
            !output.stderr.contains(TOKEN) && !output.stderr.contains("wrong-canary"),
            "{}",
            output.stderr
        );
        (output.code, output.stderr)
    };
    let (code, message) = run_drill(&["nobody", "down", "--url", &url], TOKEN).await;
    assert!(
        code == Some(1) && message.contains("no provider has that name; there are: scripted"),
        "{message}"
    );
    let (code, message) = run_drill(&["scripted", "down", "--url", &url], "wrong-canary").await;
    assert!(
        code == Some(1) && message.contains("refuses the admin token"),
        "{message}"
    );
    let (code, message) = run_drill(&["scripted", "down", "--url", &url], "").await;
    assert!(
        code == Some(2) && message.contains("$FAILSOFT_ADMIN_TOKEN"),
        "{message}"
    );
    for arguments in [
        ["down", "--for", "16m"],
        ["down", "--share", "0"],
        ["fire", "--for", "1m"],
    ] {
        let (code, message) = run_drill(&[&["scripted"], &arguments[..]].concat(), TOKEN).await;
        assert!(
            code == Some(2) && message.contains("error: invalid value"),
            "{message}"
        );
    }
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let nowhere = format!("http://127.0.0.1:{free}");
    let (code, message) = run_drill(&["scripted", "down", "--url", &nowhere], TOKEN).await;
    assert!(
        code == Some(1) && message.contains(&nowhere) && message.contains("no connection"),
        "{message}"
    );
    assert_eq!(
        service.get("/status.json").await.json()["drill"],
        serde_json::Value::Null
    );

    // A service without an admin token has no admin API.
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Behavior::Answer).await;
    let service = Service::start(folder.path(), &provider.config()).await;
    let url = format!("http://127.0.0.1:{}", service.port);
    let (code, message) = run_drill(&["scripted", "down", "--url", &url], TOKEN).await;
    assert!(
        code == Some(1) && message.contains("set server.admin_token"),
        "{message}"
    );
}

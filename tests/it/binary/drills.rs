//! `failsoft drill`: a drill from the command line, to its end or until Ctrl-C, and what is said where there is none.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::process::Command;

use super::provider::{Manner, Provider};
use super::service::{Service, failsoft, run};
use super::within;
use super::ws_client::Visitor;

const TOKEN: &str = "admin-canary";

async fn service(folder: &TempDir) -> (Provider, Service, String) {
    let provider = Provider::start(Manner::Answer).await;
    let config = format!("server.admin_token = \"{TOKEN}\"\n{}", provider.config());
    let service = Service::start(folder.path(), &config).await;
    let url = format!("http://127.0.0.1:{}", service.port);
    (provider, service, url)
}

/// The command in a folder without a configuration, with the token in its environment.
fn drill(elsewhere: &TempDir, arguments: &[&str], token: &str) -> Command {
    let mut command = failsoft(elsewhere.path(), &[&["drill"], arguments].concat());
    command.env("FAILSOFT_ADMIN_TOKEN", token);
    command
}

#[tokio::test]
async fn it_runs_to_its_end_and_shows_what_came_of_it() {
    let folder = TempDir::new().unwrap();
    let (_provider, service, url) = service(&folder).await;
    let elsewhere = TempDir::new().unwrap();
    let begun = Instant::now();
    let told = tokio::spawn(run(drill(
        &elsewhere,
        &["scripted", "unauthorized", "--for", "3s", "--url", &url],
        TOKEN,
    )));
    let status = service
        .status_when("the drill in the status", |status| {
            !status["drill"].is_null()
        })
        .await;
    assert_eq!(
        (&status["drill"]["provider"], &status["drill"]["fault"]),
        (&"scripted".into(), &"unauthorized".into())
    );
    Visitor::new(service.port).await.ask("Hello?").await;
    let told = told.await.unwrap();
    assert_eq!(
        (told.code, told.err.as_str()),
        (Some(0), ""),
        "{}",
        told.out
    );
    assert!(begun.elapsed() >= Duration::from_secs(3));
    let until = status["drill"]["until"].as_str().unwrap();
    assert!(
        told.out.starts_with(&format!(
            "Outage drill at scripted: unauthorized, until {until}.\n"
        )),
        "{}",
        told.out
    );
    assert!(
        told.out.contains("\nThe drill ended by itself.\n"),
        "{}",
        told.out
    );
    assert!(
        told.out.contains("\nTurns     1: 1 ") && told.out.contains("1 failed at the provider"),
        "{}",
        told.out
    );
    assert!(
        told.out.contains("\nBreaker   opened after 0."),
        "{}",
        told.out
    );
    assert!(!told.out.contains(TOKEN) && !told.out.contains('\u{1b}'));
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
async fn ctrl_c_ends_it_early_and_says_so() {
    let folder = TempDir::new().unwrap();
    let (_provider, service, url) = service(&folder).await;
    let mut child = failsoft(
        folder.path(),
        &[
            "drill", "scripted", "timeout", "--for", "10m", "--share", "0.5", "--url", &url,
        ],
    )
    .spawn()
    .unwrap();
    // The token is that of the configuration here.
    service
        .status_when("the drill in the status", |status| {
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
    let told = within("its end", child.wait_with_output()).await.unwrap();
    let out = String::from_utf8(told.stdout).unwrap();
    assert_eq!(told.status.code(), Some(0), "{out}");
    assert!(
        out.contains("timeout, for 0.5 of calls, until ")
            && out.contains("\nThe drill was ended early.\n"),
        "{out}"
    );
    service
        .status_when("no drill in the status", |status| status["drill"].is_null())
        .await;
}

#[tokio::test]
async fn what_is_wrong_is_said_and_has_its_exit_code() {
    let folder = TempDir::new().unwrap();
    let (_provider, service, url) = service(&folder).await;
    let elsewhere = TempDir::new().unwrap();
    let tell = async |arguments: &[&str], token: &str| {
        let told = run(drill(&elsewhere, arguments, token)).await;
        assert_eq!(told.out, "", "{}", told.err);
        assert!(
            !told.err.contains(TOKEN) && !told.err.contains("wrong-canary"),
            "{}",
            told.err
        );
        (told.code, told.err)
    };
    let (code, said) = tell(&["nobody", "down", "--url", &url], TOKEN).await;
    assert!(
        code == Some(1) && said.contains("no provider has that name; there are: scripted"),
        "{said}"
    );
    let (code, said) = tell(&["scripted", "down", "--url", &url], "wrong-canary").await;
    assert!(
        code == Some(1) && said.contains("refuses the admin token"),
        "{said}"
    );
    let (code, said) = tell(&["scripted", "down", "--url", &url], "").await;
    assert!(
        code == Some(2) && said.contains("$FAILSOFT_ADMIN_TOKEN"),
        "{said}"
    );
    for arguments in [
        ["down", "--for", "16m"],
        ["down", "--share", "0"],
        ["fire", "--for", "1m"],
    ] {
        let (code, said) = tell(&[&["scripted"], &arguments[..]].concat(), TOKEN).await;
        assert!(
            code == Some(2) && said.contains("error: invalid value"),
            "{said}"
        );
    }
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let nowhere = format!("http://127.0.0.1:{free}");
    let (code, said) = tell(&["scripted", "down", "--url", &nowhere], TOKEN).await;
    assert!(
        code == Some(1) && said.contains(&nowhere) && said.contains("no connection"),
        "{said}"
    );
    assert_eq!(
        service.get("/status.json").await.json()["drill"],
        serde_json::Value::Null
    );

    // A service without an admin token has no admin API.
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Manner::Answer).await;
    let service = Service::start(folder.path(), &provider.config()).await;
    let url = format!("http://127.0.0.1:{}", service.port);
    let (code, said) = tell(&["scripted", "down", "--url", &url], TOKEN).await;
    assert!(
        code == Some(1) && said.contains("set server.admin_token"),
        "{said}"
    );
}

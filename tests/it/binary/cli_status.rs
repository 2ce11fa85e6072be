//! `failsoft status`: the table of a running service, and what is said where there is none.

use std::net::TcpListener;

use serde_json::json;
use tempfile::TempDir;

use super::provider::{Manner, Provider};
use super::service::{Service, failsoft, run};
use super::ws_client::Visitor;

const TOKEN: &str = "admin-canary";

#[tokio::test]
async fn a_running_service_is_shown_as_a_table() {
    let provider =
        Provider::start(Manner::Refuse(401, json!({ "error": { "message": "no" } }))).await;
    let folder = TempDir::new().unwrap();
    let config = format!("server.admin_token = \"{TOKEN}\"\n{}", provider.config());
    let service = Service::start(folder.path(), &config).await;
    let url = format!("http://127.0.0.1:{}", service.port);
    Visitor::new(service.port).await.ask("Hello?").await;
    let blocked = |status: &serde_json::Value| status["mode"] == "outage";
    let status = service
        .status_when("the outage in the status", blocked)
        .await;
    let name = status["providers"][0]["name"].as_str().unwrap();

    let elsewhere = TempDir::new().unwrap();
    let told = run(failsoft(elsewhere.path(), &["status", "--url", &url])).await;
    assert_eq!(told.code, Some(0), "{}", told.err);
    let line = |begins: &str| {
        let found = told.out.lines().find(|line| line.starts_with(begins));
        found.unwrap_or_else(|| panic!("no {begins} in {}", told.out))
    };
    assert!(line("Failsoft ").contains(&url));
    assert!(
        line("Mode ").contains("outage since ") && line("Mode ").contains("inc-"),
        "{}",
        told.out
    );
    assert!(
        line("Answers ").contains("by AI 0, degraded 1"),
        "{}",
        told.out
    );
    // The columns stand where their titles do.
    let (titles, row) = (line("PROVIDER "), line(name));
    for (title, value) in [
        ("STATE", "blocked "),
        ("HEALTHY", "no "),
        ("REASON", "refused "),
        ("FAILED", "1 "),
    ] {
        let at = titles.find(title).unwrap();
        assert!(row[at..].starts_with(value), "{title} in {}", told.out);
    }
    assert!(
        !told.out.contains('\u{1b}') && !titles.contains("COST"),
        "{}",
        told.out
    );

    // Where the configuration says where it is, nothing needs to be named; its token shows the costs.
    let config = config.replace(
        "server.admin_token",
        &format!(
            "server.listen = \"0.0.0.0:{}\"\nserver.admin_token",
            service.port
        ),
    );
    std::fs::write(elsewhere.path().join("failsoft.toml"), config).unwrap();
    let told = run(failsoft(elsewhere.path(), &["status"])).await;
    assert_eq!(told.code, Some(0), "{}", told.err);
    assert!(
        told.out.contains("  COST USD\n") && !told.out.contains(TOKEN),
        "{}",
        told.out
    );
    // Another service is not told it, but by who says so.
    let told = run(failsoft(elsewhere.path(), &["status", "--url", &url])).await;
    assert!(!told.out.contains("COST"), "{}", told.out);
    let mut command = failsoft(elsewhere.path(), &["status", "--url", &format!("{url}/")]);
    command.env("FAILSOFT_ADMIN_TOKEN", TOKEN);
    assert!(run(command).await.out.contains("  COST USD\n"));
}

#[tokio::test]
async fn a_service_that_cannot_be_reached_is_a_failure_that_says_so() {
    let folder = TempDir::new().unwrap();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("http://127.0.0.1:{free}");
    let told = run(failsoft(folder.path(), &["status", "--url", &url])).await;
    assert_eq!((told.code, told.out.as_str()), (Some(1), ""));
    assert!(
        told.err.contains(&url) && told.err.contains("no connection"),
        "{}",
        told.err
    );
    assert_eq!(
        (
            told.err.lines().count(),
            told.err.matches("no connection").count()
        ),
        (1, 1),
        "{}",
        told.err
    );

    // What answers is no Failsoft.
    let provider = Provider::start(Manner::Refuse(404, json!({}))).await;
    let config = provider.config();
    let base = config
        .lines()
        .find_map(|line| line.strip_prefix("base_url = \""))
        .unwrap();
    let told = run(failsoft(
        folder.path(),
        &["status", "--url", base.trim_end_matches('"')],
    ))
    .await;
    assert_eq!((told.code, told.out.as_str()), (Some(1), ""));
    assert!(told.err.contains("no Failsoft"), "{}", told.err);
}

#[tokio::test]
async fn what_is_no_address_is_wrong_usage() {
    let folder = TempDir::new().unwrap();
    for url in ["banana", "ftp://127.0.0.1", "http://", ""] {
        let told = run(failsoft(folder.path(), &["status", "--url", url])).await;
        assert_eq!((told.code, told.out.as_str()), (Some(2), ""), "{url}");
    }
    std::fs::write(folder.path().join("failsoft.toml"), "[server]\nlistn = 1\n").unwrap();
    let told = run(failsoft(folder.path(), &["status"])).await;
    assert_eq!(told.code, Some(2));
    assert!(
        told.err.contains("listn") && told.err.contains("--url"),
        "{}",
        told.err
    );
}

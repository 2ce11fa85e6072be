//! `failsoft status`: the table of a running service, and the errors where there is none.

use std::net::TcpListener;

use serde_json::json;
use tempfile::TempDir;

use super::provider::{Behavior, Provider};
use super::service::{Service, failsoft, run};
use super::ws_client::Visitor;

const TOKEN: &str = "admin-canary";

#[tokio::test]
async fn status_prints_a_table_of_the_running_service() {
    let provider = Provider::start(Behavior::Refuse(
        401,
        json!({ "error": { "message": "no" } }),
    ))
    .await;
    let folder = TempDir::new().unwrap();
    let config = format!("server.admin_token = \"{TOKEN}\"\n{}", provider.config());
    let service = Service::start(folder.path(), &config).await;
    let url = format!("http://127.0.0.1:{}", service.port);
    Visitor::new(service.port).await.ask("Hello?").await;
    let blocked = |status: &serde_json::Value| status["mode"] == "outage";
    let status = service
        .wait_for_status("the outage in the status", blocked)
        .await;
    let name = status["providers"][0]["name"].as_str().unwrap();

    let elsewhere = TempDir::new().unwrap();
    let output = run(failsoft(elsewhere.path(), &["status", "--url", &url])).await;
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let line = |prefix: &str| {
        let matching = output.stdout.lines().find(|line| line.starts_with(prefix));
        matching.unwrap_or_else(|| panic!("no {prefix} in {}", output.stdout))
    };
    assert!(line("Failsoft ").contains(&url));
    assert!(
        line("Mode ").contains("outage since ") && line("Mode ").contains("inc-"),
        "{}",
        output.stdout
    );
    assert!(
        line("Answers ").contains("by AI 0, degraded 1"),
        "{}",
        output.stdout
    );
    // The values are aligned with their column titles.
    let titles = line("PROVIDER ");
    let row = line(name);
    for (title, value) in [
        ("STATE", "blocked "),
        ("HEALTHY", "no "),
        ("REASON", "refused "),
        ("FAILED", "1 "),
    ] {
        let at = titles.find(title).unwrap();
        assert!(row[at..].starts_with(value), "{title} in {}", output.stdout);
    }
    assert!(
        !output.stdout.contains('\u{1b}') && !titles.contains("COST"),
        "{}",
        output.stdout
    );

    // The address and the token of the configuration are used; the token gives access to costs.
    let config = config.replace(
        "server.admin_token",
        &format!(
            "server.listen = \"0.0.0.0:{}\"\nserver.admin_token",
            service.port
        ),
    );
    std::fs::write(elsewhere.path().join("failsoft.toml"), config).unwrap();
    let output = run(failsoft(elsewhere.path(), &["status"])).await;
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert!(
        output.stdout.contains("  COST USD\n") && !output.stdout.contains(TOKEN),
        "{}",
        output.stdout
    );
    // The configured token is not sent to an address given by --url; one in the environment is.
    let output = run(failsoft(elsewhere.path(), &["status", "--url", &url])).await;
    assert!(!output.stdout.contains("COST"), "{}", output.stdout);
    let mut command = failsoft(elsewhere.path(), &["status", "--url", &format!("{url}/")]);
    command.env("FAILSOFT_ADMIN_TOKEN", TOKEN);
    assert!(run(command).await.stdout.contains("  COST USD\n"));
}

#[tokio::test]
async fn status_of_an_unreachable_service_fails_with_the_reason() {
    let folder = TempDir::new().unwrap();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("http://127.0.0.1:{free}");
    let output = run(failsoft(folder.path(), &["status", "--url", &url])).await;
    assert_eq!((output.code, output.stdout.as_str()), (Some(1), ""));
    assert!(
        output.stderr.contains(&url) && output.stderr.contains("no connection"),
        "{}",
        output.stderr
    );
    assert_eq!(
        (
            output.stderr.lines().count(),
            output.stderr.matches("no connection").count()
        ),
        (1, 1),
        "{}",
        output.stderr
    );

    // Something that is not Failsoft answers.
    let provider = Provider::start(Behavior::Refuse(404, json!({}))).await;
    let config = provider.config();
    let base = config
        .lines()
        .find_map(|line| line.strip_prefix("base_url = \""))
        .unwrap();
    let output = run(failsoft(
        folder.path(),
        &["status", "--url", base.trim_end_matches('"')],
    ))
    .await;
    assert_eq!((output.code, output.stdout.as_str()), (Some(1), ""));
    assert!(output.stderr.contains("no Failsoft"), "{}", output.stderr);
}

#[tokio::test]
async fn status_rejects_invalid_urls_as_wrong_usage() {
    let folder = TempDir::new().unwrap();
    for url in ["banana", "ftp://127.0.0.1", "http://", ""] {
        let output = run(failsoft(folder.path(), &["status", "--url", url])).await;
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (Some(2), ""),
            "{url}"
        );
    }
    std::fs::write(folder.path().join("failsoft.toml"), "[server]\nlistn = 1\n").unwrap();
    let output = run(failsoft(folder.path(), &["status"])).await;
    assert_eq!(output.code, Some(2));
    assert!(
        output.stderr.contains("listn") && output.stderr.contains("--url"),
        "{}",
        output.stderr
    );
}

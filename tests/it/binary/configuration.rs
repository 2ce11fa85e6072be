//! The configuration from the operator's side: files, the environment, `failsoft check`.

use std::net::TcpListener;

use tempfile::TempDir;

use super::service::{Service, failsoft, run};
use super::ws_client::Visitor;

/// A configuration with one problem in each of lines 2, 3, 4, 6, 8 and 11.
const WRONG: &str = r#"[server]
listn = "127.0.0.1:0"
drain = "soon"
admin_token = "env:NOT_SET"

[[providers]]
name = "one"
dialect = "openia"

[breaker]
failure_rate = 7
"#;

#[tokio::test]
async fn serve_and_check_report_every_problem_with_file_line_and_key() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("wrong.toml"), WRONG).unwrap();
    for command in ["serve", "check"] {
        let ended = run(failsoft(
            folder.path(),
            &[command, "--config", "wrong.toml"],
        ))
        .await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""));
        let lines: Vec<_> = ended.stderr.lines().collect();
        let expected = [
            ("wrong.toml:2: server.listn: ", "did you mean listen?"),
            ("wrong.toml:3: server.drain: ", "\"soon\" is not a duration"),
            ("wrong.toml:4: server.admin_token: ", "NOT_SET is not set"),
            ("wrong.toml:6: providers[0].model: ", "missing"),
            ("wrong.toml:8: providers[0].dialect: ", "openai, anthropic"),
            ("wrong.toml:11: breaker.failure_rate: ", "from 0 to 1"),
        ];
        assert_eq!(lines.len(), expected.len(), "{}", ended.stderr);
        for (line, (prefix, message)) in lines.iter().zip(expected) {
            assert!(line.starts_with(prefix) && line.contains(message), "{line}");
        }
    }
    assert!(!folder.path().join("failsoft-data").exists());
}

#[tokio::test]
async fn check_validates_the_reply_rules() {
    let folder = TempDir::new().unwrap();
    std::fs::write(
        folder.path().join("failsoft.toml"),
        "degradation.replies = \"mine.toml\"\n",
    )
    .unwrap();
    let rules =
        "[[reply]]\nmatch = [\"price\"]\ntext = 3\n[[reply]]\npattern = \"(\"\ntext = \"x\"\n";
    std::fs::write(folder.path().join("mine.toml"), rules).unwrap();
    let ended = run(failsoft(folder.path(), &["check"])).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""));
    let lines: Vec<_> = ended.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{}", ended.stderr);
    assert!(
        lines[0].starts_with("mine.toml:3: reply[0].text: "),
        "{}",
        ended.stderr
    );
    assert!(
        lines[1].starts_with("mine.toml:5: reply[1].pattern: "),
        "{}",
        ended.stderr
    );
    std::fs::write(folder.path().join("mine.toml"), "fallback = \"Later.\"\n").unwrap();
    assert_eq!(run(failsoft(folder.path(), &["check"])).await.code, Some(0));
}

#[tokio::test]
async fn check_uses_no_network_and_no_store_and_prints_no_secret() {
    let folder = TempDir::new().unwrap();
    let provider = TcpListener::bind("127.0.0.1:0").unwrap();
    provider.set_nonblocking(true).unwrap();
    let url = format!("http://{}/v1", provider.local_addr().unwrap());
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[[providers]]\nname = \"near\"\ndialect = \"openai\"\nmodel = \"m-1\"\n\
         base_url = \"{url}\"\napi_key = \"env:NEAR_KEY\"\n[[providers]]\nname = \"spare\"\ndialect = \"ollama\"\nmodel = \"m-2\"\n"
    );
    std::fs::write(folder.path().join("failsoft.toml"), config).unwrap();
    let mut command = failsoft(folder.path(), &["check"]);
    command.env("NEAR_KEY", "canary-key");
    let ended = run(command).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    for part in [
        "failsoft.toml: fine",
        "1  near",
        "2  spare",
        "m-1",
        "key set",
        "no key needed",
        &url,
        "Missing:",
    ] {
        assert!(ended.stdout.contains(part), "{part} in\n{}", ended.stdout);
    }
    assert!(!ended.stdout.contains("canary"), "{}", ended.stdout);
    assert_eq!(
        provider.accept().unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock
    );
    assert!(!folder.path().join("failsoft-data").exists());
}

#[tokio::test]
async fn keys_in_the_environment_configure_providers_in_a_fixed_order() {
    let folder = TempDir::new().unwrap();
    let mut command = failsoft(folder.path(), &["check"]);
    for (name, value) in [
        ("OLLAMA_HOST", "127.0.0.1:9"),
        ("GEMINI_API_KEY", "canary-3"),
        ("ANTHROPIC_API_KEY", "canary-2"),
        ("OPENAI_API_KEY", "canary-1"),
    ] {
        command.env(name, value);
    }
    let ended = run(command).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let rows = ended.stdout.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words.next()?.parse::<u8>().ok()?;
        words.next()
    });
    assert_eq!(
        rows.collect::<Vec<_>>(),
        ["openai", "anthropic", "gemini", "ollama"]
    );
    assert!(!ended.stdout.contains("canary"), "{}", ended.stdout);
}

#[tokio::test]
async fn a_provider_in_the_environment_disables_the_demo() {
    let folder = TempDir::new().unwrap();
    // A port on which nothing listens: it was free a moment ago.
    let closed_address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut command = failsoft(folder.path(), &["--listen", "127.0.0.1:0"]);
    command.env("OLLAMA_HOST", closed_address.to_string());
    let service = Service::of(command).await;
    let status = service.get("/status.json").await.json();
    let names = status["providers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|provider| provider["name"].as_str().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), ["ollama"]);
    let mut visitor = Visitor::new(service.port).await;
    assert_eq!(visitor.welcome["demo"], false);
    let shown = visitor.ask("Is anybody there?").await;
    assert_eq!(*shown.done_field("degraded"), true);
    let broken = service
        .post(
            "/demo/providers/ollama",
            serde_json::json!({ "fault": "down" }),
        )
        .await;
    assert_eq!(broken.status, 404);
}

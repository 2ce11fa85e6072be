//! The configuration as its operator meets it: files, the environment, `failsoft check`.

use std::net::TcpListener;

use tempfile::TempDir;

use super::service::{Service, failsoft, run};
use super::ws_client::Visitor;

/// A configuration with a problem in each of these lines.
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
async fn every_problem_is_told_at_once_with_file_line_and_key() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("wrong.toml"), WRONG).unwrap();
    for command in ["serve", "check"] {
        let ended = run(failsoft(
            folder.path(),
            &[command, "--config", "wrong.toml"],
        ))
        .await;
        assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""));
        let lines: Vec<_> = ended.err.lines().collect();
        let expected = [
            ("wrong.toml:2: server.listn: ", "did you mean listen?"),
            ("wrong.toml:3: server.drain: ", "\"soon\" is not a duration"),
            ("wrong.toml:4: server.admin_token: ", "NOT_SET is not set"),
            ("wrong.toml:6: providers[0].model: ", "missing"),
            ("wrong.toml:8: providers[0].dialect: ", "openai, anthropic"),
            ("wrong.toml:11: breaker.failure_rate: ", "from 0 to 1"),
        ];
        assert_eq!(lines.len(), expected.len(), "{}", ended.err);
        for (line, (begins, says)) in lines.iter().zip(expected) {
            assert!(line.starts_with(begins) && line.contains(says), "{line}");
        }
    }
    assert!(!folder.path().join("failsoft-data").exists());
}

#[tokio::test]
async fn check_reads_the_reply_rules_too() {
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
    assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""));
    let lines: Vec<_> = ended.err.lines().collect();
    assert_eq!(lines.len(), 2, "{}", ended.err);
    assert!(
        lines[0].starts_with("mine.toml:3: reply[0].text: "),
        "{}",
        ended.err
    );
    assert!(
        lines[1].starts_with("mine.toml:5: reply[1].pattern: "),
        "{}",
        ended.err
    );
    std::fs::write(folder.path().join("mine.toml"), "fallback = \"Later.\"\n").unwrap();
    assert_eq!(run(failsoft(folder.path(), &["check"])).await.code, Some(0));
}

#[tokio::test]
async fn check_reaches_no_network_opens_no_store_and_shows_no_secret() {
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
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
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
        assert!(ended.out.contains(part), "{part} in\n{}", ended.out);
    }
    assert!(!ended.out.contains("canary"), "{}", ended.out);
    assert_eq!(
        provider.accept().unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock
    );
    assert!(!folder.path().join("failsoft-data").exists());
}

#[tokio::test]
async fn providers_come_from_the_keys_in_the_environment_in_their_order() {
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
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let rows = ended.out.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words.next()?.parse::<u8>().ok()?;
        words.next()
    });
    assert_eq!(
        rows.collect::<Vec<_>>(),
        ["openai", "anthropic", "gemini", "ollama"]
    );
    assert!(!ended.out.contains("canary"), "{}", ended.out);
}

#[tokio::test]
async fn with_a_provider_in_the_environment_it_is_no_demo() {
    let folder = TempDir::new().unwrap();
    // A port where nobody listens: it was free a moment ago.
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut command = failsoft(folder.path(), &["--listen", "127.0.0.1:0"]);
    command.env("OLLAMA_HOST", nobody.to_string());
    let service = Service::of(command).await;
    let status = service.get("/status.json").await.json();
    let names = status["providers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), ["ollama"]);
    let mut visitor = Visitor::new(service.port).await;
    assert_eq!(visitor.welcome["demo"], false);
    let shown = visitor.ask("Is anybody there?").await;
    assert_eq!(*shown.end("degraded"), true);
    let broken = service
        .post(
            "/demo/providers/ollama",
            serde_json::json!({ "fault": "down" }),
        )
        .await;
    assert_eq!(broken.status, 404);
}

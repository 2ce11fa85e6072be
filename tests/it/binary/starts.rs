//! The command line: the output, and the exit codes.

use std::net::TcpListener;

use tempfile::TempDir;

use super::provider::{Behavior, Provider};
use super::service::{Service, failsoft, run};
use super::ws_client::Visitor;

#[tokio::test]
async fn stdout_has_only_the_ready_line_with_the_real_port() {
    let folder = TempDir::new().unwrap();
    // `Service::start` takes the port from the line, and panics if the format is another.
    let service = Service::start(folder.path(), "").await;
    assert_ne!(service.port, 0);
    assert_eq!(service.get("/healthz").await.status, 200);
    assert_eq!(service.get("/readyz").await.status, 200);
    let mut visitor = Visitor::new(service.port).await;
    assert_eq!(visitor.welcome["demo"], true);
    let shown = visitor.ask("Hello!").await;
    assert_eq!(
        (
            shown.done_field("source").as_str(),
            shown.done_field("finish").as_str()
        ),
        (Some("ai"), Some("stop"))
    );
    let port = service.port;
    let ended = service.stop().await;
    assert_eq!(
        ended.stdout,
        format!("failsoft listening on http://127.0.0.1:{port}\n")
    );
    assert!(ended.stderr.contains("turn ended"), "{}", ended.stderr);
    assert_eq!(ended.code, Some(0));
}

#[tokio::test]
async fn listen_address_comes_from_the_configuration_file() {
    let folder = TempDir::new().unwrap();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let config = format!("[server]\nlisten = \"127.0.0.1:{free}\"");
    std::fs::write(folder.path().join("other.toml"), config).unwrap();
    let mut command = failsoft(folder.path(), &["serve"]);
    command.env("FAILSOFT_CONFIG", "other.toml");
    let service = Service::of(command).await;
    assert_eq!(service.port, free);
    let ended = service.stop().await;
    assert_eq!(
        ended.stdout,
        format!("failsoft listening on http://127.0.0.1:{free}\n")
    );
}

#[tokio::test]
async fn ready_line_names_the_configured_host() {
    for host in ["localhost", "0.0.0.0"] {
        let folder = TempDir::new().unwrap();
        let service =
            Service::of(failsoft(folder.path(), &["--listen", &format!("{host}:0")])).await;
        let port = service.port;
        assert_eq!(
            service.stop().await.stdout,
            format!("failsoft listening on http://{host}:{port}\n")
        );
    }
}

#[tokio::test]
async fn a_port_in_use_fails_with_advice() {
    let folder = TempDir::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = run(failsoft(folder.path(), &["--listen", &address])).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    let last = ended.stderr.lines().last().unwrap();
    for part in ["failsoft: ", &address, "in use", "--listen"] {
        assert!(last.contains(part), "{part} in {}", ended.stderr);
    }
}

#[tokio::test]
async fn a_second_process_on_the_same_data_folder_exits_and_the_first_continues() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Behavior::Answer).await;
    let config = format!("server.data_dir = \"conversations\"\n{}", provider.config());
    let first = Service::start(folder.path(), &config).await;
    let mut visitor = Visitor::new(first.port).await;
    let second = run(failsoft(folder.path(), &["--listen", "127.0.0.1:0"])).await;
    assert_eq!((second.code, second.stdout.as_str()), (Some(1), ""));
    let last = second.stderr.lines().last().unwrap();
    for part in [
        "failsoft: ",
        "conversations",
        "in use by another",
        "server.data_dir",
    ] {
        assert!(last.contains(part), "{part} in {}", second.stderr);
    }
    let shown = visitor.ask("still there").await;
    assert_eq!(shown.accepted.unwrap()["durable"], true);
    // Once the first process is gone, the folder is free again.
    first.kill().await;
    let again = Service::start(folder.path(), &config).await;
    let back = Visitor::back(again.port, visitor.conversation()).await;
    assert_eq!(back.history()[0]["question"], "still there");
}

#[tokio::test]
async fn help_and_version_exit_with_0_and_wrong_usage_with_2() {
    let folder = TempDir::new().unwrap();
    for (arguments, code) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&["check"], 0),
        (&["banana"], 2),
        (&["--listen", "nowhere"], 2),
        (&["drill", "one", "fire"], 2),
        (&["check", "--config", "missing.toml"], 2),
        (&["--config", "missing.toml"], 2),
    ] {
        let ended = run(failsoft(folder.path(), arguments)).await;
        assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.stderr);
        assert_eq!(
            ended.stdout.is_empty(),
            code != 0,
            "{arguments:?}: {}",
            ended.stdout
        );
        assert_eq!(
            ended.stderr.is_empty(),
            code == 0,
            "{arguments:?}: {}",
            ended.stderr
        );
    }
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "none of them leaves anything behind"
    );
}

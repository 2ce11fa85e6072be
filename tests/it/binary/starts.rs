//! The command line: what is said where, and the exit codes.

use std::net::TcpListener;

use tempfile::TempDir;

use super::provider::{Manner, Provider};
use super::service::{Service, failsoft, run};
use super::ws_client::Visitor;

#[tokio::test]
async fn the_ready_line_is_the_only_one_on_stdout_and_names_the_real_port() {
    let folder = TempDir::new().unwrap();
    // Starting reads `port` out of the line, and panics where the line is another one.
    let service = Service::start(folder.path(), "").await;
    assert_ne!(service.port, 0);
    assert_eq!(service.get("/healthz").await.status, 200);
    assert_eq!(service.get("/readyz").await.status, 200);
    let mut visitor = Visitor::new(service.port).await;
    assert_eq!(visitor.welcome["demo"], true);
    let shown = visitor.ask("Hello!").await;
    assert_eq!(
        (shown.end("source").as_str(), shown.end("finish").as_str()),
        (Some("ai"), Some("stop"))
    );
    let port = service.port;
    let ended = service.stop().await;
    assert_eq!(
        ended.out,
        format!("failsoft listening on http://127.0.0.1:{port}\n")
    );
    assert!(ended.err.contains("turn ended"), "{}", ended.err);
    assert_eq!(ended.code, Some(0));
}

#[tokio::test]
async fn the_address_may_come_from_the_file_and_the_port_may_be_asked_for() {
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
        ended.out,
        format!("failsoft listening on http://127.0.0.1:{free}\n")
    );
}

#[tokio::test]
async fn the_ready_line_names_the_host_as_it_was_asked_for() {
    for host in ["localhost", "0.0.0.0"] {
        let folder = TempDir::new().unwrap();
        let service =
            Service::of(failsoft(folder.path(), &["--listen", &format!("{host}:0")])).await;
        let port = service.port;
        assert_eq!(
            service.stop().await.out,
            format!("failsoft listening on http://{host}:{port}\n")
        );
    }
}

#[tokio::test]
async fn a_port_in_use_is_a_failure_that_says_what_to_do() {
    let folder = TempDir::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = run(failsoft(folder.path(), &["--listen", &address])).await;
    assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""));
    let last = ended.err.lines().last().unwrap();
    for part in ["failsoft: ", &address, "in use", "--listen"] {
        assert!(last.contains(part), "{part} in {}", ended.err);
    }
}

#[tokio::test]
async fn a_second_process_on_the_same_data_folder_refuses_and_the_first_goes_on() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Manner::Answer).await;
    let config = format!("server.data_dir = \"conversations\"\n{}", provider.config());
    let first = Service::start(folder.path(), &config).await;
    let mut visitor = Visitor::new(first.port).await;
    let second = run(failsoft(folder.path(), &["--listen", "127.0.0.1:0"])).await;
    assert_eq!((second.code, second.out.as_str()), (Some(1), ""));
    let last = second.err.lines().last().unwrap();
    for part in [
        "failsoft: ",
        "conversations",
        "in use by another",
        "server.data_dir",
    ] {
        assert!(last.contains(part), "{part} in {}", second.err);
    }
    let shown = visitor.ask("still there").await;
    assert_eq!(shown.accepted.unwrap()["durable"], true);
    // And once the first is gone, the folder is free at once.
    first.kill().await;
    let again = Service::start(folder.path(), &config).await;
    let back = Visitor::back(again.port, visitor.conversation()).await;
    assert_eq!(back.history()[0]["question"], "still there");
}

#[tokio::test]
async fn help_and_version_end_well_and_wrong_usage_with_two() {
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
        assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.err);
        assert_eq!(
            ended.out.is_empty(),
            code != 0,
            "{arguments:?}: {}",
            ended.out
        );
        assert_eq!(
            ended.err.is_empty(),
            code == 0,
            "{arguments:?}: {}",
            ended.err
        );
    }
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "none of them leaves anything behind"
    );
}

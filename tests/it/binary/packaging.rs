//! What is under `packaging/`: the configurations are accepted, the unit is sound, the containers are as shut as they are said to be.
//!
//! There is no engine here that could build an image; what is held are the properties, and what linters say where they are installed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::service::{failsoft, run};

/// The time that a stop is given must be longer than the drain, in seconds.
const DRAIN: u64 = 30;

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(packaging().join(path)).unwrap()
}

/// The lines that say something.
fn said(text: &str) -> Vec<&str> {
    text.lines()
        .map(str::trim_end)
        .filter(|line| !line.trim().is_empty() && !line.trim().starts_with('#'))
        .collect()
}

fn has(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|ended| ended.status.success())
}

#[tokio::test]
async fn the_configurations_are_accepted_and_ask_for_nothing_that_is_not_there() {
    let folder = TempDir::new().unwrap();
    for name in ["failsoft.toml", "fleet.toml"] {
        let path = packaging().join("docker").join(name);
        let mut command = failsoft(
            folder.path(),
            &["check", "--config", path.to_str().unwrap()],
        );
        for key in [
            "OPENAI_API_KEY",
            "ANTHROPIC_API_KEY",
            "FAILSOFT_API_KEY",
            "FAILSOFT_ADMIN_TOKEN",
        ] {
            command.env(key, format!("canary-{key}"));
        }
        let ended = run(command).await;
        assert_eq!(ended.code, Some(0), "{name}: {}{}", ended.out, ended.err);
        assert!(
            ended
                .out
                .contains("0.0.0.0:8080, data in /var/lib/failsoft"),
            "{}",
            ended.out
        );
        assert!(!ended.out.contains("canary"), "{}", ended.out);
        assert!(read(&format!("docker/{name}")).contains(&format!("drain = \"{DRAIN}s\"")));
    }
}

#[test]
fn the_image_runs_as_nobody_and_holds_what_it_needs() {
    let text = read("docker/Dockerfile");
    let joined = text.replace("\\\n", " ");
    let lines = said(&joined);
    let stages: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("FROM "))
        .collect();
    assert!(
        stages.len() == 2 && stages[0].ends_with(" AS build") && stages[1].contains("-slim"),
        "{stages:?}"
    );
    let last = lines
        .iter()
        .rposition(|line| line.starts_with("FROM "))
        .unwrap();
    let (build, run) = lines.split_at(last);
    let of = |stage: &[&str], word: &str| -> Vec<String> {
        let begins = format!("{word} ");
        stage
            .iter()
            .filter_map(|line| line.strip_prefix(&begins))
            .map(str::to_owned)
            .collect()
    };
    // Everything that is copied is there, and gets past the list of what the engine is sent.
    let sent = read("docker/Dockerfile.dockerignore");
    for copy in of(build, "COPY")
        .iter()
        .chain(&of(run, "COPY"))
        .filter(|copy| !copy.starts_with("--from"))
    {
        let words: Vec<_> = copy.split(' ').collect();
        for source in &words[..words.len() - 1] {
            assert!(
                packaging().parent().unwrap().join(source).exists(),
                "{source} is not there"
            );
            assert!(
                said(&sent).contains(&format!("!{}", source.trim_start_matches("./")).as_str()),
                "{source} is not sent"
            );
        }
    }
    assert!(
        of(build, "RUN")
            .iter()
            .any(|run| run.contains("cargo build --release --locked"))
    );
    let user = of(run, "USER");
    let (id, group) = user.last().unwrap().split_once(':').unwrap();
    assert!(
        id.parse::<u32>().unwrap() > 0 && group.parse::<u32>().unwrap() > 0,
        "not root, by number"
    );
    assert!(
        of(run, "RUN")
            .iter()
            .any(|run| run.contains("ca-certificates"))
    );
    assert_eq!(of(run, "EXPOSE"), ["8080"]);
    assert_eq!(of(run, "STOPSIGNAL"), ["SIGTERM"]);
    assert_eq!(
        of(run, "ENTRYPOINT"),
        [r#"["/usr/local/bin/failsoft"]"#],
        "no shell between, for signals"
    );
    let checks = run
        .iter()
        .filter(|line| line.starts_with("HEALTHCHECK"))
        .count();
    assert!(checks == 1 && joined.contains(r#"CMD ["/usr/local/bin/failsoft", "status""#));
    if has("hadolint") {
        let linted = Command::new("hadolint")
            .arg(packaging().join("docker/Dockerfile"))
            .output()
            .unwrap();
        assert!(
            linted.status.success(),
            "{}",
            String::from_utf8_lossy(&linted.stdout)
        );
    }
}

/// The services of the compose file and of its template, each with its lines.
fn services() -> BTreeMap<String, Vec<String>> {
    let text = read("docker/compose.yaml");
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut section, mut name) = (String::new(), String::new());
    for line in said(&text) {
        let depth = line.len() - line.trim_start().len();
        if depth == 0 {
            section = line.split(':').next().unwrap().to_owned();
            name = if section == "x-failsoft" {
                "x-failsoft".into()
            } else {
                String::new()
            };
        } else if section == "services" && depth == 2 {
            name = line.trim().trim_end_matches(':').to_owned();
        } else if !name.is_empty() {
            all.entry(name.clone())
                .or_default()
                .push(line.trim().to_owned());
        }
    }
    all
}

#[test]
fn every_service_of_the_fleet_is_shut_and_the_instances_are_alike() {
    let services = services();
    let shut = [
        "read_only: true",
        "cap_drop: [ALL]",
        r#"security_opt: ["no-new-privileges:true"]"#,
    ];
    let has = |name: &str, line: &str| services[name].iter().any(|one| one.starts_with(line));
    for name in ["x-failsoft", "redis", "proxy"] {
        for line in shut {
            assert!(has(name, line), "{name} lacks {line}");
        }
        assert!(
            has(name, "user: \"") && !has(name, "user: \"0"),
            "{name} runs as root"
        );
    }
    for name in ["one", "two", "three"] {
        assert!(has(name, "<<: *failsoft"), "{name}");
        let volume = format!(r#"volumes: ["{name}:/var/lib/failsoft""#);
        assert!(has(name, &volume), "{name} has a folder of its own");
        let server = format!("server {name} {name}:8080");
        assert!(
            read("docker/haproxy.cfg").contains(&server),
            "the proxy does not know {name}"
        );
    }
    assert_eq!(services.len(), 6);
    let grace = services["x-failsoft"]
        .iter()
        .find_map(|line| line.strip_prefix("stop_grace_period: "))
        .unwrap();
    let grace: u64 = grace.split('s').next().unwrap().parse().unwrap();
    assert!(grace > DRAIN + 5, "{grace}");
    assert!(has("redis", "healthcheck:") && has("redis", "command:"));
    assert!(
        services["redis"]
            .iter()
            .any(|line| line.contains("noeviction"))
    );
    let proxy = read("docker/haproxy.cfg");
    for line in [
        "httpchk GET /readyz",
        "del-header X-Forwarded-For",
        "option forwardfor",
        "deny if { path /metrics }",
    ] {
        assert!(proxy.contains(line), "the proxy lacks {line}");
    }
    // Whom the instances believe is the network that the proxy is in.
    let network = read("docker/fleet.toml")
        .lines()
        .find(|line| line.starts_with("trusted_proxies"))
        .unwrap()
        .to_owned();
    assert!(
        network.contains("172.28.0.0/24")
            && read("docker/compose.yaml").contains("subnet: 172.28.0.0/24")
    );
}

#[test]
fn the_unit_is_sound_and_shut() {
    let text = read("systemd/failsoft.service");
    let of = |key: &str| {
        let begins = format!("{key}=");
        let found = text.lines().find_map(|line| line.strip_prefix(&begins));
        found
            .unwrap_or_else(|| panic!("the unit lacks {key}"))
            .to_owned()
    };
    assert!(
        of("TimeoutStopSec")
            .trim_end_matches('s')
            .parse::<u64>()
            .unwrap()
            > DRAIN + 5
    );
    assert_eq!(
        (
            of("DynamicUser"),
            of("ProtectSystem"),
            of("NoNewPrivileges")
        ),
        ("yes".into(), "strict".into(), "yes".into())
    );
    assert_eq!(
        (of("CapabilityBoundingSet"), of("StateDirectory")),
        (String::new(), "failsoft".into())
    );
    assert_eq!(
        (of("RestartPreventExitStatus"), of("ExecStartPre")),
        ("2".into(), "/usr/local/bin/failsoft check".into())
    );
    if !has("systemd-analyze") {
        return;
    }
    // With a binary that is there.
    let folder = TempDir::new().unwrap();
    let unit = folder.path().join("failsoft.service");
    std::fs::write(
        &unit,
        text.replace("/usr/local/bin/failsoft", env!("CARGO_BIN_EXE_failsoft")),
    )
    .unwrap();
    let verified = Command::new("systemd-analyze")
        .arg("verify")
        .arg(&unit)
        .output()
        .unwrap();
    let found = String::from_utf8_lossy(&verified.stderr).into_owned();
    let ours: Vec<_> = found
        .lines()
        .filter(|line| line.contains("failsoft"))
        .collect();
    assert!(ours.is_empty(), "{found}");
    // Exposure, of 100: below 20 is what systemd itself calls safe.
    let security = ["security", "--offline=true", "--threshold=20"];
    let judged = Command::new("systemd-analyze")
        .args(security)
        .arg(&unit)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&judged.stdout).into_owned();
    assert!(
        judged.status.success() || said.is_empty(),
        "{}",
        said.lines().last().unwrap_or_default()
    );
}

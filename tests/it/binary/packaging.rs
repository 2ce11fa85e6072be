//! The files under `packaging/`: the configurations are valid, the systemd unit is sound, and the
//! containers are as restricted as documented.
//!
//! No image is built. The tests check the properties, and run linters if they are installed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::service::{failsoft, run};

/// The configured drain, in seconds. Each stop timeout must be longer.
const DRAIN: u64 = 30;

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(packaging().join(path)).unwrap()
}

/// The lines that are neither empty nor comments.
fn statements(text: &str) -> Vec<&str> {
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
async fn packaged_configurations_pass_the_check() {
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
        assert_eq!(
            ended.code,
            Some(0),
            "{name}: {}{}",
            ended.stdout,
            ended.stderr
        );
        assert!(
            ended
                .stdout
                .contains("0.0.0.0:8080, data in /var/lib/failsoft"),
            "{}",
            ended.stdout
        );
        assert!(!ended.stdout.contains("canary"), "{}", ended.stdout);
        assert!(read(&format!("docker/{name}")).contains(&format!("drain = \"{DRAIN}s\"")));
    }
}

#[test]
fn the_image_runs_unprivileged_and_copies_existing_files() {
    let text = read("docker/Dockerfile");
    let joined = text.replace("\\\n", " ");
    let lines = statements(&joined);
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
    let arguments = |stage: &[&str], instruction: &str| -> Vec<String> {
        let prefix = format!("{instruction} ");
        stage
            .iter()
            .filter_map(|line| line.strip_prefix(&prefix))
            .map(str::to_owned)
            .collect()
    };
    // Every copied file exists, and `.dockerignore` lets it into the build context.
    let context = read("docker/Dockerfile.dockerignore");
    for copy in arguments(build, "COPY")
        .iter()
        .chain(&arguments(run, "COPY"))
        .filter(|copy| !copy.starts_with("--from"))
    {
        let words: Vec<_> = copy.split(' ').collect();
        for source in &words[..words.len() - 1] {
            assert!(
                packaging().parent().unwrap().join(source).exists(),
                "{source} is not there"
            );
            assert!(
                statements(&context)
                    .contains(&format!("!{}", source.trim_start_matches("./")).as_str()),
                "{source} is not in the build context"
            );
        }
    }
    assert!(
        arguments(build, "RUN")
            .iter()
            .any(|run| run.contains("cargo build --release --locked"))
    );
    let user = arguments(run, "USER");
    let (id, group) = user.last().unwrap().split_once(':').unwrap();
    assert!(
        id.parse::<u32>().unwrap() > 0 && group.parse::<u32>().unwrap() > 0,
        "not root, by number"
    );
    assert!(
        arguments(run, "RUN")
            .iter()
            .any(|run| run.contains("ca-certificates"))
    );
    assert_eq!(arguments(run, "EXPOSE"), ["8080"]);
    assert_eq!(arguments(run, "STOPSIGNAL"), ["SIGTERM"]);
    assert_eq!(
        arguments(run, "ENTRYPOINT"),
        [r#"["/usr/local/bin/failsoft"]"#],
        "no shell in between, which would not pass signals on"
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

/// The lines of each service of the compose file, and of its template.
fn services() -> BTreeMap<String, Vec<String>> {
    let text = read("docker/compose.yaml");
    let mut services: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut section = String::new();
    let mut name = String::new();
    for line in statements(&text) {
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
            services
                .entry(name.clone())
                .or_default()
                .push(line.trim().to_owned());
        }
    }
    services
}

#[test]
fn compose_services_are_restricted_and_the_instances_are_alike() {
    let services = services();
    let restrictions = [
        "read_only: true",
        "cap_drop: [ALL]",
        r#"security_opt: ["no-new-privileges:true"]"#,
    ];
    let has = |name: &str, prefix: &str| services[name].iter().any(|line| line.starts_with(prefix));
    for name in ["x-failsoft", "redis", "proxy"] {
        for line in restrictions {
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
    // The instances trust the forwarding headers of the network that the proxy is in.
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
fn the_systemd_unit_is_valid_and_restricted() {
    let text = read("systemd/failsoft.service");
    let setting = |key: &str| {
        let prefix = format!("{key}=");
        let found = text.lines().find_map(|line| line.strip_prefix(&prefix));
        found
            .unwrap_or_else(|| panic!("the unit lacks {key}"))
            .to_owned()
    };
    assert!(
        setting("TimeoutStopSec")
            .trim_end_matches('s')
            .parse::<u64>()
            .unwrap()
            > DRAIN + 5
    );
    assert_eq!(
        (
            setting("DynamicUser"),
            setting("ProtectSystem"),
            setting("NoNewPrivileges")
        ),
        ("yes".into(), "strict".into(), "yes".into())
    );
    assert_eq!(
        (setting("CapabilityBoundingSet"), setting("StateDirectory")),
        (String::new(), "failsoft".into())
    );
    assert_eq!(
        (setting("RestartPreventExitStatus"), setting("ExecStartPre")),
        ("2".into(), "/usr/local/bin/failsoft check".into())
    );
    if !has("systemd-analyze") {
        return;
    }
    // Verify with a binary that exists.
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
    // The exposure score, from 0 to 100: systemd calls values below 20 safe.
    let security = ["security", "--offline=true", "--threshold=20"];
    let assessed = Command::new("systemd-analyze")
        .args(security)
        .arg(&unit)
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&assessed.stdout).into_owned();
    assert!(
        assessed.status.success() || report.is_empty(),
        "{}",
        report.lines().last().unwrap_or_default()
    );
}

//! The official OpenAI SDKs against services that work, break, reject and are down, and the demo.
//!
//! The checks are in `tests/sdk`, one script per language; `tests/sdk/install.sh` installs the
//! SDKs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use failsoft::config::{Secret, Settings};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::binary::service::{Service, failsoft};
use crate::harness::{
    ScriptStep, ScriptedProvider, TestApp, error_response, full_answer, partial_answer,
    test_settings,
};

const SENT: &str = "The quick brown fox jumps over the lazy dog, and then it";

/// Installing the SDKs takes the longest, depending on the network.
const TIMEOUT: Duration = Duration::from_secs(300);

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk")
}

/// Runs a program and returns its output.
///
/// # Errors
/// Its whole output if it fails.
async fn run(program: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    let output =
        tokio::time::timeout(TIMEOUT, command.args(arguments).kill_on_drop(true).output()).await;
    let output = output.expect("the program takes too long").unwrap();
    let [out, err] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if output.status.success() {
        Ok(out)
    } else {
        Err(format!("{}:\n{out}\n{err}", program.display()))
    }
}

/// The folder of the installed SDKs.
async fn install_sdks() -> &'static str {
    static FOLDER: OnceCell<String> = OnceCell::const_new();
    let install = || async {
        // A folder that outlives the tests, beside the build folder's temporary one.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("sdk");
        let installed = run(&scripts().join("install.sh"), &[folder.to_str().unwrap()]).await;
        installed
            .unwrap_or_else(|output| panic!("the SDKs were not installed: {output}"))
            .trim()
            .to_owned()
    };
    FOLDER.get_or_init(install).await
}

/// The services that the scripts call. `urls` has one entry per name.
struct Services {
    urls: Value,
    demo: Service,
    _folder: TempDir,
    _apps: Vec<TestApp>,
    _providers: Vec<ScriptedProvider>,
}

impl Services {
    async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let demo = Service::of(failsoft(folder.path(), &["--listen", "127.0.0.1:0"])).await;
        let urls = json!({ "demo": url(demo.port) });
        let mut services = Self {
            urls,
            demo,
            _folder: folder,
            _apps: vec![],
            _providers: vec![],
        };
        let whole =
            || full_answer("The quick brown fox jumps over the lazy dog, and then it sleeps.");
        let broken = || vec![partial_answer([SENT]), ScriptStep::Reset];
        let rest = || full_answer("fox jumps over the lazy dog, and then it sleeps.");
        let unchanged = |_: &mut Settings| {};
        services.add("well", vec![whole()], unchanged).await;
        services
            .add("closed", vec![whole()], |settings| {
                settings.server.api_keys = vec![Secret::new("right")]
            })
            .await;
        services
            .add("breaks", vec![broken(), rest()], unchanged)
            .await;
        services.add("torn", vec![broken()], unchanged).await;
        let fault =
            json!({ "message": "temperature must be nice", "type": "invalid_request_error" });
        services
            .add("refuses", vec![error(400, &fault)], unchanged)
            .await;
        let fault = json!({ "message": "too long", "code": "context_length_exceeded" });
        services
            .add("narrow", vec![error(400, &fault)], unchanged)
            .await;
        let with_fallback =
            |settings: &mut Settings| settings.degradation.fallback = "Later, please.".into();
        services
            .add(
                "down",
                vec![error(503, &json!({ "message": "busy" }))],
                with_fallback,
            )
            .await;
        services
    }

    async fn add(
        &mut self,
        name: &str,
        scripts: Vec<Vec<ScriptStep>>,
        change: impl Fn(&mut Settings),
    ) {
        let mut providers = vec![];
        for script in scripts {
            providers.push(ScriptedProvider::start(script).await);
        }
        let named: Vec<_> = ["alpha", "beta"].into_iter().zip(&providers).collect();
        let mut settings = test_settings(&named);
        // The scripts break a provider many times; its breaker should stay closed.
        settings.breaker.consecutive_failures = 1000;
        for provider in &mut settings.providers {
            provider.breaker.stream_failure_rate = 1.0;
            provider.breaker.min_calls = 1000;
        }
        change(&mut settings);
        let app = TestApp::start(settings).await;
        self.urls[name] = url(app.port).into();
        self._apps.push(app);
        self._providers.extend(providers);
    }
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}/v1")
}

fn error(status: u16, body: &Value) -> Vec<ScriptStep> {
    vec![error_response(
        status,
        "content-type: application/json\r\n",
        &json!({ "error": body }).to_string(),
    )]
}

/// Runs a script and asserts that `last`, its last check, passed.
async fn run_checks(services: &Services, program: &Path, arguments: &[&str], last: &str) {
    let logged = || services.demo.logged();
    let out = run(program, arguments)
        .await
        .unwrap_or_else(|output| panic!("{output}\nthe demo:\n{}", logged()));
    assert!(out.ends_with(&format!("ok {last}\n")), "{out}");
    assert!(!logged().contains("panic"), "{}", logged());
}

#[tokio::test]
async fn the_python_sdk_passes_its_checks() {
    let (sdks, services) = tokio::join!(install_sdks(), Services::start());
    let program = Path::new(sdks).join("python/bin/python");
    let script = scripts().join("client.py");
    let urls = services.urls.to_string();
    run_checks(
        &services,
        &program,
        &[script.to_str().unwrap(), &urls],
        "concurrent",
    )
    .await;
}

#[tokio::test]
async fn the_javascript_sdk_passes_its_checks() {
    let (sdks, services) = tokio::join!(install_sdks(), Services::start());
    let folder = Path::new(sdks).join("javascript");
    let script = scripts().join("client.mjs");
    let urls = services.urls.to_string();
    let arguments = [script.to_str().unwrap(), &urls, folder.to_str().unwrap()];
    run_checks(&services, Path::new("node"), &arguments, "demo").await;
}

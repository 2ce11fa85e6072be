//! The official OpenAI clients, as people install them, against services that are well, break, refuse and are down; and against the demo.
//!
//! What they ask and expect stands in `tests/sdk`, one script a language; `tests/sdk/install.sh` installs them, once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use failsoft::config::{Secret, Settings};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::binary::service::{Service, failsoft};
use crate::harness::{Act, ScriptedProvider, TestApp, answer, refusal, settings, spoken};

const SAID: &str = "The quick brown fox jumps over the lazy dog, and then it";

/// To install the clients takes the longest; what it takes is the network's affair.
const LIMIT: Duration = Duration::from_secs(300);

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk")
}

/// Runs a program to its good end and gives what it printed.
///
/// # Errors
/// All that it said, where its end was none.
async fn run(program: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    let ran =
        tokio::time::timeout(LIMIT, command.args(arguments).kill_on_drop(true).output()).await;
    let ran = ran.expect("it takes too long").unwrap();
    let [out, err] =
        [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if ran.status.success() {
        Ok(out)
    } else {
        Err(format!("{}:\n{out}\n{err}", program.display()))
    }
}

/// The folder that the clients are installed in.
async fn clients() -> &'static str {
    static FOLDER: OnceCell<String> = OnceCell::const_new();
    let install = || async {
        // Beside the build folder's own temporary one.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("sdk");
        let installed = run(&scripts().join("install.sh"), &[folder.to_str().unwrap()]).await;
        installed
            .unwrap_or_else(|said| panic!("the clients were not installed: {said}"))
            .trim()
            .to_owned()
    };
    FOLDER.get_or_init(install).await
}

/// What the scripts ask, by name.
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
        let mut all = Self {
            urls,
            demo,
            _folder: folder,
            _apps: vec![],
            _providers: vec![],
        };
        let whole = || answer("The quick brown fox jumps over the lazy dog, and then it sleeps.");
        let torn = || vec![spoken([SAID]), Act::Reset];
        let rest = || answer("fox jumps over the lazy dog, and then it sleeps.");
        let asis = |_: &mut Settings| {};
        all.add("well", vec![whole()], asis).await;
        all.add("closed", vec![whole()], |settings| {
            settings.server.api_keys = vec![Secret::new("right")]
        })
        .await;
        all.add("breaks", vec![torn(), rest()], asis).await;
        all.add("torn", vec![torn()], asis).await;
        let fault =
            json!({ "message": "temperature must be nice", "type": "invalid_request_error" });
        all.add("refuses", vec![error(400, &fault)], asis).await;
        let fault = json!({ "message": "too long", "code": "context_length_exceeded" });
        all.add("narrow", vec![error(400, &fault)], asis).await;
        let sorry =
            |settings: &mut Settings| settings.degradation.fallback = "Later, please.".into();
        all.add(
            "down",
            vec![error(503, &json!({ "message": "busy" }))],
            sorry,
        )
        .await;
        all
    }

    async fn add(&mut self, name: &str, scripts: Vec<Vec<Act>>, shape: impl Fn(&mut Settings)) {
        let mut providers = vec![];
        for script in scripts {
            providers.push(ScriptedProvider::start(script).await);
        }
        let named: Vec<_> = ["alpha", "beta"].into_iter().zip(&providers).collect();
        let mut settings = settings(&named);
        // The scripts break one many times; here it is not to be passed over for that.
        settings.breaker.consecutive_failures = 1000;
        for provider in &mut settings.providers {
            provider.breaker.stream_failure_rate = 1.0;
            provider.breaker.min_calls = 1000;
        }
        shape(&mut settings);
        let app = TestApp::start(settings).await;
        self.urls[name] = url(app.port).into();
        self._apps.push(app);
        self._providers.extend(providers);
    }
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}/v1")
}

fn error(status: u16, body: &Value) -> Vec<Act> {
    vec![refusal(
        status,
        "content-type: application/json\r\n",
        &json!({ "error": body }).to_string(),
    )]
}

/// Runs a script; its last check is the one named.
async fn checks(services: &Services, program: &Path, arguments: &[&str], last: &str) {
    let logged = || services.demo.logged();
    let out = run(program, arguments)
        .await
        .unwrap_or_else(|said| panic!("{said}\nthe demo:\n{}", logged()));
    assert!(out.ends_with(&format!("ok {last}\n")), "{out}");
    assert!(!logged().contains("panic"), "{}", logged());
}

#[tokio::test]
async fn python() {
    let (clients, services) = tokio::join!(clients(), Services::start());
    let program = Path::new(clients).join("python/bin/python");
    let (script, urls) = (scripts().join("client.py"), services.urls.to_string());
    checks(
        &services,
        &program,
        &[script.to_str().unwrap(), &urls],
        "concurrent",
    )
    .await;
}

#[tokio::test]
async fn javascript() {
    let (clients, services) = tokio::join!(clients(), Services::start());
    let folder = Path::new(clients).join("javascript");
    let (script, urls) = (scripts().join("client.mjs"), services.urls.to_string());
    let arguments = [script.to_str().unwrap(), &urls, folder.to_str().unwrap()];
    checks(&services, Path::new("node"), &arguments, "demo").await;
}

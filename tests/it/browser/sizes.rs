//! What a site's visitors have to fetch, packed as browsers get it.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use super::chrome::Chrome;
use super::test_site::Site;
use super::widget::{open, pair, tag};

/// All scripts of a chat with an answer in Markdown, with the libraries and one language's words.
const LARGEST: usize = 45 * 1024;

/// A file as the service sends it to who takes gzip: its packed size, and its text.
async fn fetched(site: &Site, path: &str) -> (usize, String) {
    // Whoever comes first; the service's address needs none of it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::new();
    let address = format!("{}{path}", site.address());
    let packed = client
        .get(&address)
        .header("accept-encoding", "gzip")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            packed.status().as_u16(),
            &packed.headers()["content-encoding"]
        ),
        (200, &"gzip".parse().unwrap())
    );
    let size = packed.bytes().await.unwrap().len();
    (
        size,
        client
            .get(&address)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap(),
    )
}

/// A module with all that it imports before it runs: each with its packed size.
async fn with_imports(site: &Site, module: &str) -> BTreeMap<String, usize> {
    let import = Regex::new(r#"(?m)^(?:import|export)\b[^;'"(]*?['"]\./([^'"]+)['"];"#).unwrap();
    let mut sizes = BTreeMap::new();
    let mut waiting = vec![module.to_owned()];
    while let Some(name) = waiting.pop() {
        if sizes.contains_key(&name) {
            continue;
        }
        let (size, text) = fetched(site, &format!("static/{name}")).await;
        let folder = name
            .rsplit_once('/')
            .map_or(String::new(), |(folder, _)| format!("{folder}/"));
        waiting.extend(
            import
                .captures_iter(&text)
                .map(|found| format!("{folder}{}", &found[1])),
        );
        sizes.insert(name, size);
    }
    sizes
}

#[tokio::test]
async fn launcher_and_chat_are_small() {
    let site = Site::demo().await;
    let (launcher, _) = fetched(&site, "widget.js").await;
    assert!(launcher <= 8 * 1024, "the launcher has {launcher} bytes");
    let chat = with_imports(&site, "chat.js").await;
    let first: usize = chat.values().sum();
    assert!(
        first <= 18 * 1024,
        "the chat has {first} bytes to its first paint: {chat:#?}"
    );
    assert!(
        !chat.contains_key("vendor/marked.esm.js"),
        "what the first paint needs not comes later"
    );
    let mut all = with_imports(&site, "markdown.js").await;
    all.extend(chat);
    all.extend(with_imports(&site, "locales/en.js").await);
    assert!(
        all.contains_key("vendor/marked.esm.js") && all.contains_key("vendor/purify.esm.js"),
        "{all:#?}"
    );
    let sum: usize = all.values().sum();
    assert!(sum <= LARGEST, "the chat has {sum} bytes: {all:#?}");
}

#[tokio::test]
async fn a_conversation_fetches_no_more() {
    let (host, site) = pair().await;
    let chrome = Chrome::start().await;
    let tab = chrome
        .open(&host.plain("/", "", &tag(&site, "data-locale=\"en\"")))
        .await;
    open(&tab).await;
    tab.ask_widget("Hello").await;
    tab.until_done().await;
    tab.until("witness.answer().querySelector('.fs-tail')")
        .await;
    let names = tab.eval("performance.getEntriesByType('resource').map(({ name }) => name).filter((name) => /static.*\\.js/.test(name))").await;
    let names: Vec<Value> = serde_json::from_value(names).unwrap();
    let mut sum = 0;
    for name in &names {
        let path = name
            .as_str()
            .unwrap()
            .strip_prefix(&site.address())
            .unwrap();
        sum += fetched(&site, path).await.0;
    }
    assert!(names.len() >= 5, "{names:#?}");
    assert!(sum <= LARGEST, "{sum} bytes: {names:#?}");
}

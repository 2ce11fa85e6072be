//! The files that pages and the widget are made of: in the binary, validated by their hash, packed once.
//!
//! Our own scripts and styles are served without what only their readers need, and the chat's modules as one: see [`script`]. Other people's
//! files go out as they were published.

mod script;

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::sync::{LazyLock, Mutex, PoisonError};

use actix_web::http::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE,
    ETAG, HeaderName, IF_NONE_MATCH, VARY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use rust_embed::RustEmbed;
use sha2::{Digest as _, Sha256};

use self::script::{joined, lean};
use super::refusal::not_found;

/// The module that is served with all that it is made of.
const CHAT: &str = "chat.js";

static CORP: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The browser side's files, in the binary.
#[derive(RustEmbed)]
#[folder = "static/"]
struct Files;

/// A file as it is served.
#[derive(Clone)]
struct Asset {
    tag: String,
    plain: Bytes,
    packed: Bytes,
}

/// Those that were asked for.
static SERVED: LazyLock<Mutex<HashMap<String, Asset>>> = LazyLock::new(Mutex::default);

/// `GET /static/…`: one file.
pub async fn file(request: HttpRequest, name: web::Path<String>) -> HttpResponse {
    serve(&request, &name).await
}

/// `GET /widget.js`: what a site embeds.
pub async fn widget(request: HttpRequest) -> HttpResponse {
    serve(&request, "widget.js").await
}

async fn serve(request: &HttpRequest, name: &str) -> HttpResponse {
    let Some(Asset { tag, plain, packed }) = asset(name) else {
        return not_found().await;
    };
    let told = |header| {
        request
            .headers()
            .get(header)
            .and_then(|value| value.to_str().ok())
    };
    let known = |tags: &str| {
        tags.split(',')
            .any(|one| one.trim().trim_start_matches("W/") == tag)
    };
    let fresh = told(IF_NONE_MATCH).is_some_and(known);
    let mut answer = if fresh {
        HttpResponse::NotModified()
    } else {
        HttpResponse::Ok()
    };
    answer
        .insert_header((ETAG, tag.as_str()))
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((VARY, "accept-encoding"))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((ACCESS_CONTROL_ALLOW_ORIGIN, "*"))
        .insert_header((CORP.clone(), "cross-origin"));
    if fresh {
        return answer.finish();
    }
    answer.insert_header((CONTENT_TYPE, kind(name)));
    if told(ACCEPT_ENCODING).is_some_and(takes_gzip) {
        return answer
            .insert_header((CONTENT_ENCODING, "gzip"))
            .body(packed);
    }
    answer.body(plain)
}

/// Whether an `Accept-Encoding` takes gzip: named, and not with a weight of zero.
fn takes_gzip(accepted: &str) -> bool {
    accepted.split(',').any(|one| {
        let (coding, weight) = one.split_once(';').unwrap_or((one, ""));
        let none = weight
            .trim()
            .strip_prefix("q=")
            .and_then(|q| q.parse::<f32>().ok())
            == Some(0.0);
        coding.trim().eq_ignore_ascii_case("gzip") && !none
    })
}

fn asset(name: &str) -> Option<Asset> {
    if let Some(asset) = SERVED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get(name)
    {
        return Some(asset.clone());
    }
    let plain = match name {
        CHAT => Bytes::from(joined(CHAT, &own_scripts())),
        _ => plain(name)?,
    };
    let asset = Asset {
        tag: format!("\"{}\"", URL_SAFE_NO_PAD.encode(Sha256::digest(&plain))),
        packed: pack(&plain).unwrap_or_else(|_| plain.clone()),
        plain,
    };
    let mut served = SERVED.lock().unwrap_or_else(PoisonError::into_inner);
    Some(served.entry(name.to_owned()).or_insert(asset).clone())
}

/// A file as it is, or without what only its readers need.
fn plain(name: &str) -> Option<Bytes> {
    let data = Files::get(name)?.data;
    let ours = !name.starts_with("vendor/") && (name.ends_with(".js") || name.ends_with(".css"));
    Some(match std::str::from_utf8(&data) {
        Ok(text) if ours => Bytes::from(lean(text)),
        _ => Bytes::from(data.into_owned()),
    })
}

/// Our own scripts by their names, without what only their readers need.
fn own_scripts() -> BTreeMap<String, String> {
    let names = Files::iter().filter(|name| name.ends_with(".js") && !name.starts_with("vendor/"));
    let read = |name: &str| String::from_utf8(plain(name)?.into()).ok();
    names
        .filter_map(|name| Some((name.to_string(), read(&name)?)))
        .collect()
}

fn pack(plain: &[u8]) -> std::io::Result<Bytes> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(plain)?;
    packer.finish().map(Bytes::from)
}

fn kind(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, end)| end) {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        _ => "text/plain; charset=utf-8",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What the joining relies on, in every script of ours.
    #[test]
    fn our_scripts_keep_to_the_habits_that_joining_relies_on() {
        for name in
            Files::iter().filter(|name| name.ends_with(".js") && !name.starts_with("vendor/"))
        {
            let data = Files::get(&name).unwrap().data;
            for (at, line) in std::str::from_utf8(&data).unwrap().lines().enumerate() {
                let at = at + 1;
                if ["//", "*", "/*"]
                    .iter()
                    .any(|sign| line.trim().starts_with(sign))
                {
                    continue;
                }
                let code = line.split(" // ").next().unwrap();
                for quote in ['`', '\'', '"'] {
                    let open = |text: &str| text.matches(quote).count() % 2 == 1;
                    assert!(
                        !(open(code) && code != line),
                        "{name}:{at}: a text with what looks like a comment"
                    );
                    assert!(
                        quote != '`' || !open(line),
                        "{name}:{at}: a text that goes on in the next line"
                    );
                }
                let import = line.starts_with("import ");
                assert!(
                    !import || line.ends_with("';"),
                    "{name}:{at}: an import over several lines"
                );
            }
        }
    }

    #[test]
    fn the_chat_is_served_as_one_module_and_what_others_use_too_beside_it() {
        let scripts = own_scripts();
        let chat = joined(CHAT, &scripts);
        for part in [
            "class Session",
            "class Transcript {",
            "class Outbox",
            "class TranscriptView",
            "export function mount",
        ] {
            assert_eq!(chat.matches(part).count(), 1, "{part}");
        }
        let imports: Vec<_> = chat
            .lines()
            .filter(|line| line.starts_with("import "))
            .collect();
        assert!(
            imports.len() == 2,
            "what is loaded later uses these too, and they hold one state: {imports:#?}"
        );
        assert!(
            imports
                .iter()
                .all(|line| line.ends_with("'./dom.js';") || line.ends_with("'./i18n.js';"))
        );
        // Two things of one name would be an error in the browser. What is not indented stands at a module's top.
        let mut names = std::collections::BTreeSet::new();
        for part in script::parts(CHAT, &scripts) {
            let data = Files::get(part).unwrap().data;
            for line in std::str::from_utf8(&data).unwrap().lines() {
                let line = line
                    .trim_start_matches("export ")
                    .trim_start_matches("async ");
                let Some((kind, rest)) = line.split_once(' ') else {
                    continue;
                };
                if ["const", "let", "class", "function"].contains(&kind) {
                    let name = rest
                        .split(|c: char| !c.is_alphanumeric() && c != '_')
                        .next()
                        .unwrap();
                    assert!(
                        names.insert(name.to_owned()),
                        "{part}: there are two {name}"
                    );
                }
            }
        }
        assert!(names.len() > 30);
    }

    #[test]
    fn gzip_is_for_who_takes_it() {
        for (accepted, takes) in [
            ("gzip, deflate, br", true),
            ("br;q=1.0, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("br", false),
            ("", false),
        ] {
            assert_eq!(takes_gzip(accepted), takes, "{accepted}");
        }
    }
}

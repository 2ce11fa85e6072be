//! Validation of listen addresses, base URLs and origins. Nothing here uses the network.
//!
//! Error messages never repeat a URL, because it may contain a key.

use crate::config::diagnostics::quoted;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Validates an address to listen on: `127.0.0.1:8080`, `[::]:8080` or `localhost:0`.
///
/// # Errors
/// Returns a message that shows the valid form.
pub fn parse_listen_address(text: &str) -> Result<String, String> {
    let has_host_name = || {
        let (host, port) = text.rsplit_once(':')?;
        port.parse::<u16>().ok()?;
        is_host_name(host).then_some(())
    };
    if text.parse::<SocketAddr>().is_ok() || has_host_name().is_some() {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{} is not an address to listen on; write it with its port, such as \"127.0.0.1:8080\" or \"[::]:8080\"",
        quoted(text)
    ))
}

/// Validates the URL of an API root. Removes trailing slashes.
pub(crate) fn parse_base_url(text: &str) -> Result<String, String> {
    let url = parse_url(text)?;
    if url.contains('?') {
        return Err("a base URL has no query: end it before the \"?\"".to_owned());
    }
    Ok(url.trim_end_matches('/').to_owned())
}

pub(crate) fn parse_url(text: &str) -> Result<String, String> {
    let parts = split_url(text)?;
    if parts.rest.contains('#') {
        return Err("the URL has a fragment: end it before the \"#\"".to_owned());
    }
    Ok(format!(
        "{}://{}{}",
        parts.scheme, parts.authority, parts.rest
    ))
}

/// Validates an origin such as `https://chat.example.com`.
///
/// Normalises it as browsers do: lower case, without the default port of the scheme.
pub(crate) fn parse_origin(text: &str) -> Result<String, String> {
    const RIGHT: &str =
        "is needed, such as \"https://www.example.com\" or \"http://localhost:3000\"";
    if text.contains('*') {
        return Err(format!(
            "there are no wildcards: every site's scheme and host {RIGHT}"
        ));
    }
    let parts =
        split_url(text).map_err(|_| format!("not an origin: a scheme and a host {RIGHT}"))?;
    if !matches!(parts.rest, "" | "/") {
        return Err(format!(
            "an origin has no path: only a scheme and a host {RIGHT}"
        ));
    }
    let is_https = parts.scheme == "https";
    let default_port = if is_https { ":443" } else { ":80" };
    let authority = &parts.authority;
    let authority = authority.strip_suffix(default_port).unwrap_or(authority);
    Ok(format!("{}://{authority}", parts.scheme))
}

pub(crate) fn check_redis_url(text: &str) -> Result<(), String> {
    let schemes = ["redis://", "rediss://", "redis+unix://", "unix://"];
    let rest = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
    let is_accepted = || redis::IntoConnectionInfo::into_connection_info(text).is_ok();
    let has_address = |rest: &str| !rest.is_empty() && !rest.contains(char::is_whitespace);
    if rest.is_some_and(has_address) && is_accepted() {
        return Ok(());
    }
    let what = "not a Redis URL; write it as \"redis://HOST:6379\", or \"rediss://…\" for TLS";
    Err(what.to_owned())
}

/// Converts `$OLLAMA_HOST` to a base URL.
///
/// Ollama allows the scheme, the port or the host to be omitted. The bind address `0.0.0.0` is
/// replaced by `127.0.0.1`.
pub(crate) fn parse_ollama_host(text: &str) -> Result<String, String> {
    let text = text.trim();
    let has_scheme = text.contains("://");
    let url = match text {
        text if has_scheme => text.to_owned(),
        text if text.starts_with(':') => format!("http://127.0.0.1{text}"),
        text => format!("http://{text}"),
    };
    let url = parse_base_url(&url)?;
    let parts = split_url(&url)?;
    let host = match parts.host.as_str() {
        "0.0.0.0" => "127.0.0.1",
        host => host,
    };
    let port = match parts.port {
        Some(port) => format!(":{port}"),
        None if has_scheme => String::new(),
        None => ":11434".to_owned(),
    };
    Ok(format!("{}://{host}{port}{}", parts.scheme, parts.rest))
}

/// The host of a URL in lower case, IPv6 addresses in brackets. `None` if `text` is not a URL.
pub(crate) fn host_of(text: &str) -> Option<String> {
    split_url(text).ok().map(|parts| parts.host)
}

pub(crate) fn is_loopback(url: &str) -> bool {
    let host = host_of(url).unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

struct UrlParts<'t> {
    scheme: &'static str,
    /// Host and port, in lower case.
    authority: String,
    host: String,
    port: Option<u16>,
    rest: &'t str,
}

fn split_url(text: &str) -> Result<UrlParts<'_>, String> {
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("the URL has white space in it".to_owned());
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("", ""));
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "http" => "http",
        "https" => "https",
        _ => {
            let forms = "such as \"https://HOST\" or \"http://HOST:PORT\"";
            return Err(format!("not a URL; write it with its scheme, {forms}"));
        }
    };
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        let what = "the URL has a user name or a password in it; they do not belong there";
        return Err(what.to_owned());
    }
    let authority = authority.to_ascii_lowercase();
    let (host, port) = host_and_port(&authority)?;
    Ok(UrlParts {
        scheme,
        host: host.to_owned(),
        port,
        authority,
        rest,
    })
}

fn host_and_port(authority: &str) -> Result<(&str, Option<u16>), String> {
    // The colons of an IPv6 address are within its brackets.
    let end = authority.rfind(']').map_or(0, |at| at + 1);
    let colon = authority.get(end..).and_then(|after| after.find(':'));
    let (host, port) = match colon {
        Some(at) => authority.split_at(end + at),
        None => (authority, ""),
    };
    let port = match port.strip_prefix(':').map(str::parse) {
        None => None,
        Some(Ok(port)) if port > 0 => Some(port),
        Some(_) => return Err("the URL's port is not a number from 1 to 65535".to_owned()),
    };
    let v6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    if v6.map_or_else(|| is_host_name(host), |v6| v6.parse::<Ipv6Addr>().is_ok()) {
        return Ok((host, port));
    }
    Err("the URL's host is not a host name or an IP address (a name in other letters is written in its \"xn--\" form)".to_owned())
}

fn is_host_name(host: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (1..=253).contains(&host.len()) && host.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn listen_addresses_are_validated() {
        for good in ["127.0.0.1:8080", "0.0.0.0:0", "[::]:80", "localhost:8080"] {
            assert_eq!(parse_listen_address(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "8080",
            ":8080",
            "localhost",
            "1.2.3.4:99999",
            "http://localhost:80",
            "::1:x",
        ] {
            assert!(
                parse_listen_address(bad)
                    .unwrap_err()
                    .contains("127.0.0.1:8080"),
                "{bad}"
            );
        }
    }

    #[test]
    fn base_urls_are_normalized() {
        for (input, expected) in [
            ("https://api.openai.com/v1", "https://api.openai.com/v1"),
            ("https://api.openai.com/v1/", "https://api.openai.com/v1"),
            ("HTTP://LocalHost:8000", "http://localhost:8000"),
            ("http://[::1]:11434/", "http://[::1]:11434"),
            ("http://vllm_1:8000/V1", "http://vllm_1:8000/V1"),
        ] {
            assert_eq!(parse_base_url(input).as_deref(), Ok(expected), "{input}");
        }
        for (bad, part) in [
            ("", "scheme"),
            ("api.openai.com/v1", "scheme"),
            ("ftp://host", "scheme"),
            ("https://", "host"),
            ("https://user:canary@host", "password"),
            ("https://host:99999", "port"),
            ("https://host:0", "port"),
            ("https://[::g]:1", "host"),
            ("https://[::1]x:1", "host"),
            ("https://bücher.example", "xn--"),
            ("https://host/v1?key=canary", "query"),
            ("https://host/v1#x", "fragment"),
            ("https://host /v1", "white space"),
        ] {
            let message = parse_base_url(bad).unwrap_err();
            assert!(message.contains(part), "{bad}: {message}");
            assert!(!message.contains("canary"), "{message}");
        }
    }

    #[test]
    fn origins_are_normalized() {
        for (input, expected) in [
            ("https://Chat.Example.com", "https://chat.example.com"),
            ("https://chat.example.com:443/", "https://chat.example.com"),
            ("http://localhost:3000", "http://localhost:3000"),
        ] {
            assert_eq!(parse_origin(input).as_deref(), Ok(expected), "{input}");
        }
        for bad in [
            "*",
            "https://*.example.com",
            "example.com",
            "null",
            "https://example.com/chat",
            "https://example.com?x",
        ] {
            assert!(
                parse_origin(bad)
                    .unwrap_err()
                    .contains("https://www.example.com"),
                "{bad}"
            );
        }
    }

    #[test]
    fn ollama_hosts_become_base_urls() {
        for (input, expected) in [
            ("127.0.0.1:11434", "http://127.0.0.1:11434"),
            ("box", "http://box:11434"),
            (":1234", "http://127.0.0.1:1234"),
            ("0.0.0.0", "http://127.0.0.1:11434"),
            ("http://box:1234/", "http://box:1234"),
            ("https://ollama.example.com", "https://ollama.example.com"),
        ] {
            assert_eq!(parse_ollama_host(input).as_deref(), Ok(expected), "{input}");
        }
        assert!(parse_ollama_host("a b").is_err());
    }

    #[test]
    fn loopback_urls_are_recognized() {
        for local in [
            "http://localhost:1",
            "http://127.0.0.9/v1",
            "http://[::1]:5",
        ] {
            assert!(is_loopback(local), "{local}");
        }
        for remote in [
            "http://localhost.example.com",
            "https://api.openai.com/v1",
            "http://10.0.0.1",
        ] {
            assert!(!is_loopback(remote), "{remote}");
        }
    }

    proptest! {
        #[test]
        fn validation_never_panics_and_is_idempotent(text in "(https?://)?[a-z0-9.:@/?#\\[\\] %*é-]{0,30}") {
            let _ = (parse_listen_address(&text), parse_ollama_host(&text), check_redis_url(&text), is_loopback(&text));
            if let Ok(url) = parse_base_url(&text) {
                prop_assert_eq!(parse_base_url(&url), Ok(url.clone()));
            }
            if let Ok(origin_text) = parse_origin(&text) {
                prop_assert_eq!(parse_origin(&origin_text), Ok(origin_text.clone()));
            }
        }
    }
}

//! Access control: the browser's `Origin`, API keys, and the loopback rule.

use std::net::IpAddr;

use actix_web::HttpRequest;
use actix_web::http::header::{AUTHORIZATION, FORWARDED, HOST, HeaderName, ORIGIN, VIA};
use sha2::{Digest as _, Sha256};

use super::client_address::{header, hop_param, is_from_trusted_proxy};
use crate::config::{Secret, ServerSettings};

/// Headers that proxies add. A request with any of them did not come directly from its peer.
static PROXY_HEADERS: [HeaderName; 8] = [
    FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("cf-connecting-ip"),
    HeaderName::from_static("true-client-ip"),
    VIA,
];
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessDenied {
    /// A browser on a site that is not allowed.
    ForeignOrigin,
    /// No valid key, and the request is not local.
    MissingKey,
}

/// Admits browsers on the service's own site or an allowed one.
///
/// A request without `Origin` comes from a program, which needs an API key or has to be local.
pub fn check_visitor(request: &HttpRequest, server: &ServerSettings) -> Result<(), AccessDenied> {
    match request.headers().get(ORIGIN) {
        None => check_program(request, server),
        Some(origin) => {
            let origin = origin.to_str().unwrap_or_default();
            let mut allowed = server.allowed_origins.iter();
            if allowed.any(|allowed| allowed == origin) || is_own_origin(request, server, origin) {
                Ok(())
            } else {
                Err(AccessDenied::ForeignOrigin)
            }
        }
    }
}

/// Admits the service's own pages, and programs, which send no `Origin`.
pub fn check_own_origin(
    request: &HttpRequest,
    server: &ServerSettings,
) -> Result<(), AccessDenied> {
    match request.headers().get(ORIGIN) {
        Some(origin) if !is_own_origin(request, server, origin.to_str().unwrap_or_default()) => {
            Err(AccessDenied::ForeignOrigin)
        }
        _ => Ok(()),
    }
}

/// Admits programs with an API key. If no keys are configured, local programs are admitted.
pub fn check_api(request: &HttpRequest, server: &ServerSettings) -> Result<(), AccessDenied> {
    check_own_origin(request, server)?;
    check_program(request, server)
}

/// Admits requests with the admin token. Without a configured token nobody is admitted.
pub fn check_admin(request: &HttpRequest, server: &ServerSettings) -> Result<(), AccessDenied> {
    match (&server.admin_token, bearer_token(request)) {
        (Some(token), Some(given)) if constant_time_eq(token, given) => Ok(()),
        _ => Err(AccessDenied::MissingKey),
    }
}

/// Admits readers of provider costs: the operator and local programs.
pub fn check_cost_access(
    request: &HttpRequest,
    server: &ServerSettings,
) -> Result<(), AccessDenied> {
    if is_loopback_by_name(request) {
        return Ok(());
    }
    check_admin(request, server)
}

fn check_program(request: &HttpRequest, server: &ServerSettings) -> Result<(), AccessDenied> {
    let is_admitted = match server.api_keys.as_slice() {
        [] => is_loopback_by_name(request),
        // Every key is compared, so that timing reveals nothing.
        keys => bearer_token(request).is_some_and(|given| {
            keys.iter()
                .fold(false, |found, key| found | constant_time_eq(key, given))
        }),
    };
    is_admitted.then_some(()).ok_or(AccessDenied::MissingKey)
}

/// Compares hashes in constant time, so that timing reveals nothing of the key.
fn constant_time_eq(key: &Secret, given: &str) -> bool {
    let [key, given] = [key.expose(), given].map(|text| Sha256::digest(text.as_bytes()));
    key.iter()
        .zip(given.iter())
        .fold(0, |difference, (a, b)| difference | (a ^ b))
        == 0
}

fn bearer_token(request: &HttpRequest) -> Option<&str> {
    let (scheme, token) = header(request, &AUTHORIZATION)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Returns `true` for a direct loopback peer whose `Host` is `localhost` or an IP address.
///
/// The `Host` check stops DNS rebinding: a foreign page whose name resolves to loopback still sends
/// its own name.
pub fn is_loopback_by_name(request: &HttpRequest) -> bool {
    let is_direct = PROXY_HEADERS
        .iter()
        .all(|name| !request.headers().contains_key(name));
    let is_loopback = request
        .peer_addr()
        .is_some_and(|peer| peer.ip().to_canonical().is_loopback());
    let host = header(request, &HOST).unwrap_or_default();
    let without_port = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let name = without_port
        .map_or(host, |(name, _)| name)
        .trim_start_matches('[')
        .trim_end_matches(']');
    let is_local_name = name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok();
    is_direct && is_loopback && is_local_name
}

/// Returns `true` if the origin is the service's own: `server.public_url` if set, else the address
/// by which this request reached it.
fn is_own_origin(request: &HttpRequest, server: &ServerSettings, origin: &str) -> bool {
    if let Some(url) = &server.public_url {
        return origin_of(url).eq_ignore_ascii_case(origin);
    }
    let is_proxied = is_from_trusted_proxy(request, &server.trusted_proxies);
    let from_proxy = |name| {
        header(request, name)
            .filter(|_| is_proxied)
            .and_then(|list| list.split(',').next())
    };
    let forwarded = |part| from_proxy(&FORWARDED).and_then(|hop| hop_param(hop, part));
    let scheme = from_proxy(&X_FORWARDED_PROTO)
        .or_else(|| forwarded("proto"))
        .map_or("http", str::trim);
    let host = from_proxy(&X_FORWARDED_HOST)
        .or_else(|| forwarded("host"))
        .or_else(|| header(request, &HOST));
    let host = host.map_or("", str::trim);
    let own = format!("{scheme}://{host}").to_ascii_lowercase();
    // Browsers leave the default port out of `Origin`.
    let default_port = if scheme == "https" { ":443" } else { ":80" };
    !host.is_empty() && own.strip_suffix(default_port).unwrap_or(&own) == origin
}

/// Returns the scheme, host and port of a URL.
fn origin_of(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url
        .get(host..)
        .and_then(|rest| rest.find('/'))
        .map_or(url.len(), |at| host + at);
    url.get(..end).unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn request(peer: &str, headers: &[(&'static str, &str)]) -> HttpRequest {
        let request = TestRequest::default().peer_addr(peer.parse().unwrap());
        headers
            .iter()
            .fold(request, |request, header| request.insert_header(*header))
            .to_http_request()
    }

    fn server() -> ServerSettings {
        ServerSettings {
            allowed_origins: vec!["https://good.com".into()],
            ..ServerSettings::default()
        }
    }

    #[test]
    fn only_exact_origins_are_admitted() {
        let from = |origin: &str| {
            check_visitor(
                &request(
                    "192.0.2.1:5",
                    &[("host", "chat.example:8080"), ("origin", origin)],
                ),
                &server(),
            )
        };
        assert_eq!(from("http://chat.example:8080"), Ok(()));
        assert_eq!(from("https://good.com"), Ok(()));
        for bad in [
            "https://good.com.evil.net",
            "https://chat.example:8080",
            "http://chat.example",
            "http://good.com",
            "https://good.com:444",
            "null",
            "",
        ] {
            assert_eq!(from(bad), Err(AccessDenied::ForeignOrigin), "{bad}");
        }
    }

    #[test]
    fn public_url_defines_the_own_origin() {
        let server = ServerSettings {
            public_url: Some("https://chat.example/x".into()),
            ..server()
        };
        let from = |origin| {
            check_visitor(
                &request("192.0.2.1:5", &[("host", "10.0.0.1"), ("origin", origin)]),
                &server,
            )
        };
        assert_eq!(from("https://chat.example"), Ok(()));
        assert_eq!(from("http://10.0.0.1"), Err(AccessDenied::ForeignOrigin));
    }

    #[test]
    fn trusted_proxy_sets_scheme_and_host() {
        let server = ServerSettings {
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
            ..server()
        };
        let headers = [
            ("host", "inner"),
            ("origin", "https://outer.example"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "outer.example"),
        ];
        assert_eq!(
            check_visitor(&request("10.1.2.3:5", &headers), &server),
            Ok(())
        );
        assert_eq!(
            check_visitor(&request("192.0.2.1:5", &headers), &server),
            Err(AccessDenied::ForeignOrigin)
        );
        // The same with the standard `Forwarded` header.
        let forwarded = "for=192.0.2.7;proto=https;host=\"outer.example\", for=10.0.0.2;proto=http";
        let headers = [
            ("host", "inner"),
            ("origin", "https://outer.example"),
            ("forwarded", forwarded),
        ];
        assert_eq!(
            check_visitor(&request("10.1.2.3:5", &headers), &server),
            Ok(())
        );
        assert_eq!(
            check_visitor(&request("192.0.2.1:5", &headers), &server),
            Err(AccessDenied::ForeignOrigin)
        );
    }

    #[test]
    fn without_keys_only_local_requests_are_admitted() {
        let is_admitted = |peer, headers: &[(&'static str, &str)]| {
            check_api(&request(peer, headers), &server()).is_ok()
        };
        assert!(is_admitted("127.0.0.1:5", &[("host", "localhost:8080")]));
        assert!(is_admitted("[::1]:5", &[("host", "[::1]:8080")]));
        assert!(!is_admitted("192.0.2.1:5", &[("host", "localhost:8080")]));
        assert!(
            !is_admitted("127.0.0.1:5", &[("host", "evil.example")]),
            "a name that resolves to loopback"
        );
        for proxy in ["forwarded", "x-forwarded-for", "via"] {
            assert!(
                !is_admitted("127.0.0.1:5", &[("host", "localhost"), (proxy, "x")]),
                "{proxy}"
            );
        }
    }

    #[test]
    fn only_exact_keys_are_admitted() {
        let server = ServerSettings {
            api_keys: vec![Secret::new("one"), Secret::new("two")],
            ..server()
        };
        let with = |value| {
            check_api(
                &request("127.0.0.1:5", &[("authorization", value)]),
                &server,
            )
            .is_ok()
        };
        assert!(with("Bearer one") && with("bearer two"));
        for bad in [
            "Bearer on",
            "Bearer onee",
            "Bearer ",
            "one",
            "Basic one",
            "Bearer \"one\"",
        ] {
            assert!(!with(bad), "{bad}");
        }
        assert!(check_api(&request("127.0.0.1:5", &[("host", "localhost")]), &server).is_err());
    }
}

//! Who may come in: the browser's Origin, API keys, the loopback rule, and who a peer really is behind a proxy.

use std::net::{IpAddr, Ipv4Addr};

use actix_web::HttpRequest;
use actix_web::http::header::{AUTHORIZATION, FORWARDED, HOST, HeaderName, ORIGIN, VIA};
use ipnet::IpNet;
use sha2::{Digest as _, Sha256};

use crate::settings::{Secret, ServerSettings};

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// What proxies add: who sends any of these is no direct peer, whatever its address.
static PROXIED: [HeaderName; 8] = [
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

/// Why a caller is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shut {
    /// A browser on a site that is not allowed.
    ForeignOrigin,
    /// A program without a key.
    NoKey,
}

/// Lets in a browser on the service's own site or an allowed one; who sends no Origin is a program, and needs a key or to be at home.
///
/// # Errors
/// See [`Shut`].
pub fn visitor(request: &HttpRequest, server: &ServerSettings) -> Result<(), Shut> {
    match request.headers().get(ORIGIN) {
        None => program(request, server),
        Some(origin) => {
            let origin = origin.to_str().unwrap_or_default();
            let allowed = server
                .allowed_origins
                .iter()
                .any(|allowed| allowed == origin);
            if allowed || own(request, server, origin) {
                Ok(())
            } else {
                Err(Shut::ForeignOrigin)
            }
        }
    }
}

/// Lets in the service's own pages, and programs, which send no Origin.
///
/// # Errors
/// A foreign Origin.
pub fn own_page(request: &HttpRequest, server: &ServerSettings) -> Result<(), Shut> {
    match request.headers().get(ORIGIN) {
        Some(origin) if !own(request, server, origin.to_str().unwrap_or_default()) => {
            Err(Shut::ForeignOrigin)
        }
        _ => Ok(()),
    }
}

/// Lets in a program with one of the keys; where there are none, one on this very machine.
///
/// # Errors
/// See [`Shut`].
pub fn api(request: &HttpRequest, server: &ServerSettings) -> Result<(), Shut> {
    own_page(request, server)?;
    program(request, server)
}

/// Lets in the operator: who has the admin token.
///
/// # Errors
/// `NoKey`, also where no token is configured: then nobody is the operator.
pub fn operator(request: &HttpRequest, server: &ServerSettings) -> Result<(), Shut> {
    match (&server.admin_token, bearer(request)) {
        (Some(token), Some(given)) if same(token, given) => Ok(()),
        _ => Err(Shut::NoKey),
    }
}

/// Lets in who may see what providers cost, where programs read it: the operator, and who is on this very machine.
///
/// # Errors
/// `NoKey`.
pub fn accounts(request: &HttpRequest, server: &ServerSettings) -> Result<(), Shut> {
    if at_home(request) {
        Ok(())
    } else {
        operator(request, server)
    }
}

/// Whether a request comes from this very machine, by no proxy.
pub fn is_here(request: &HttpRequest) -> bool {
    at_home(request)
}

fn program(request: &HttpRequest, server: &ServerSettings) -> Result<(), Shut> {
    let let_in = match server.api_keys.as_slice() {
        [] => at_home(request),
        keys => bearer(request).is_some_and(|given| {
            keys.iter()
                .fold(false, |found, key| found | same(key, given))
        }),
    };
    if let_in { Ok(()) } else { Err(Shut::NoKey) }
}

/// Compares whole hashes to the last byte, so that time tells nothing of the key.
fn same(key: &Secret, given: &str) -> bool {
    let [key, given] = [key.expose(), given].map(|text| Sha256::digest(text.as_bytes()));
    key.iter()
        .zip(given.iter())
        .fold(0, |difference, (a, b)| difference | (a ^ b))
        == 0
}

fn bearer(request: &HttpRequest) -> Option<&str> {
    let (scheme, token) = header(request, &AUTHORIZATION)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// A direct peer on loopback that asks for this machine by its own name or by number: a page of elsewhere whose name was bent to
/// loopback asks for that name.
fn at_home(request: &HttpRequest) -> bool {
    let direct = PROXIED
        .iter()
        .all(|name| !request.headers().contains_key(name));
    let loopback = request
        .peer_addr()
        .is_some_and(|peer| peer.ip().to_canonical().is_loopback());
    let asked = header(request, &HOST).unwrap_or_default();
    let name = asked
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let name = name
        .map_or(asked, |(name, _)| name)
        .trim_start_matches('[')
        .trim_end_matches(']');
    let here = name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok();
    direct && loopback && here
}

/// The service's own origin: as configured, else as this request reached it.
fn own(request: &HttpRequest, server: &ServerSettings, origin: &str) -> bool {
    if let Some(url) = &server.public_url {
        return origin_of(url).eq_ignore_ascii_case(origin);
    }
    let proxied = trusted(request, &server.trusted_proxies);
    let told = |name| {
        header(request, name)
            .filter(|_| proxied)
            .and_then(|list| list.split(',').next())
    };
    let hop = |part| told(&FORWARDED).and_then(|hop| of_hop(hop, part));
    let scheme = told(&X_FORWARDED_PROTO)
        .or_else(|| hop("proto"))
        .map_or("http", str::trim);
    let host = told(&X_FORWARDED_HOST)
        .or_else(|| hop("host"))
        .or_else(|| header(request, &HOST));
    let host = host.map_or("", str::trim);
    let own = format!("{scheme}://{host}").to_ascii_lowercase();
    let usual = if scheme == "https" { ":443" } else { ":80" };
    !host.is_empty() && own.strip_suffix(usual).unwrap_or(&own) == origin
}

/// Scheme, host and port of a URL.
fn origin_of(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url
        .get(host..)
        .and_then(|rest| rest.find('/'))
        .map_or(url.len(), |at| host + at);
    url.get(..end).unwrap_or(url)
}

/// The address that limits count by: the peer's, or what a trusted proxy says of it.
pub fn address(request: &HttpRequest, proxies: &[IpNet]) -> IpAddr {
    let peer = request
        .peer_addr()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| {
            peer.ip().to_canonical()
        });
    if !trusted(request, proxies) {
        return peer;
    }
    // Each proxy appends who it heard from; the last that is no proxy of ours is the client.
    let told = |name: &HeaderName| -> Vec<String> {
        let lists = request
            .headers()
            .get_all(name)
            .filter_map(|value| value.to_str().ok());
        lists
            .flat_map(|list| list.split(','))
            .map(|hop| hop.trim().to_owned())
            .collect()
    };
    let mut hops = told(&X_FORWARDED_FOR);
    if hops.is_empty() {
        hops = told(&FORWARDED)
            .iter()
            .map(|hop| of_hop(hop, "for").unwrap_or_default().to_owned())
            .collect();
    }
    let mut client = peer;
    for hop in hops.iter().rev() {
        // What stands left of a hop that cannot be read may be anyone's invention.
        let Some(hop) = hop_address(hop) else { break };
        client = hop;
        if !proxies.iter().any(|net| net.contains(&hop)) {
            break;
        }
    }
    client
}

/// What one hop of RFC 7239 tells: `for`, `host` or `proto`.
fn of_hop<'h>(hop: &'h str, part: &str) -> Option<&'h str> {
    let mut pairs = hop
        .split(';')
        .filter_map(|pair| pair.trim().split_once('='));
    pairs
        .find(|(name, _)| name.eq_ignore_ascii_case(part))
        .map(|(_, value)| value.trim_matches('"'))
}

/// An address as proxies write it: alone, with a port, in brackets.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let bare = hop
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
        .map_or(hop, |(address, _)| address);
    let alone = bare.parse::<IpAddr>();
    let address = alone.or_else(|_| {
        bare.rsplit_once(':')
            .map_or(bare, |(address, _)| address)
            .parse::<IpAddr>()
    });
    address.ok().map(|address| address.to_canonical())
}

fn trusted(request: &HttpRequest, proxies: &[IpNet]) -> bool {
    let peer = request.peer_addr().map(|peer| peer.ip().to_canonical());
    peer.is_some_and(|peer| proxies.iter().any(|net| net.contains(&peer)))
}

fn header<'r>(request: &'r HttpRequest, name: &HeaderName) -> Option<&'r str> {
    request.headers().get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn asked(peer: &str, headers: &[(&'static str, &str)]) -> HttpRequest {
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
    fn origins_are_matched_whole() {
        let from = |origin: &str| {
            visitor(
                &asked(
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
            assert_eq!(from(bad), Err(Shut::ForeignOrigin), "{bad}");
        }
    }

    #[test]
    fn the_public_address_counts_where_it_is_set() {
        let server = ServerSettings {
            public_url: Some("https://chat.example/x".into()),
            ..server()
        };
        let from = |origin| {
            visitor(
                &asked("192.0.2.1:5", &[("host", "10.0.0.1"), ("origin", origin)]),
                &server,
            )
        };
        assert_eq!(from("https://chat.example"), Ok(()));
        assert_eq!(from("http://10.0.0.1"), Err(Shut::ForeignOrigin));
    }

    #[test]
    fn a_trusted_proxy_tells_scheme_and_host() {
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
        assert_eq!(visitor(&asked("10.1.2.3:5", &headers), &server), Ok(()));
        assert_eq!(
            visitor(&asked("192.0.2.1:5", &headers), &server),
            Err(Shut::ForeignOrigin)
        );
        // In the standard's header as well.
        let forwarded = "for=192.0.2.7;proto=https;host=\"outer.example\", for=10.0.0.2;proto=http";
        let headers = [
            ("host", "inner"),
            ("origin", "https://outer.example"),
            ("forwarded", forwarded),
        ];
        assert_eq!(visitor(&asked("10.1.2.3:5", &headers), &server), Ok(()));
        assert_eq!(
            visitor(&asked("192.0.2.1:5", &headers), &server),
            Err(Shut::ForeignOrigin)
        );
    }

    #[test]
    fn without_keys_only_this_machine_is_let_in() {
        let let_in =
            |peer, headers: &[(&'static str, &str)]| api(&asked(peer, headers), &server()).is_ok();
        assert!(let_in("127.0.0.1:5", &[("host", "localhost:8080")]));
        assert!(let_in("[::1]:5", &[("host", "[::1]:8080")]));
        assert!(!let_in("192.0.2.1:5", &[("host", "localhost:8080")]));
        assert!(
            !let_in("127.0.0.1:5", &[("host", "evil.example")]),
            "a name bent to loopback"
        );
        for proxy in ["forwarded", "x-forwarded-for", "via"] {
            assert!(
                !let_in("127.0.0.1:5", &[("host", "localhost"), (proxy, "x")]),
                "{proxy}"
            );
        }
    }

    #[test]
    fn keys_are_compared_whole() {
        let server = ServerSettings {
            api_keys: vec![Secret::new("one"), Secret::new("two")],
            ..server()
        };
        let with = |value| api(&asked("127.0.0.1:5", &[("authorization", value)]), &server).is_ok();
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
        assert!(api(&asked("127.0.0.1:5", &[("host", "localhost")]), &server).is_err());
    }

    #[test]
    fn addresses_are_believed_from_trusted_proxies_alone() {
        let proxies: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let of =
            |peer, list| address(&asked(peer, &[("x-forwarded-for", list)]), &proxies).to_string();
        assert_eq!(of("192.0.2.1:5", "198.51.100.7"), "192.0.2.1");
        assert_eq!(
            of("10.0.0.1:5", "203.0.113.9, 198.51.100.7, 10.0.0.2"),
            "198.51.100.7"
        );
        assert_eq!(of("10.0.0.1:5", "rubbish"), "10.0.0.1");
        assert_eq!(
            of("10.0.0.1:5", "9.9.9.9, 198.51.100.7:4711"),
            "198.51.100.7"
        );
        assert_eq!(
            of("10.0.0.1:5", "9.9.9.9, [2001:db8::7]:4711"),
            "2001:db8::7"
        );
        assert_eq!(
            of("10.0.0.1:5", "9.9.9.9, unknown"),
            "10.0.0.1",
            "nothing left of what cannot be read"
        );
        let forwarded = asked(
            "10.0.0.1:5",
            &[(
                "forwarded",
                "for=9.9.9.9, for=\"[2001:db8::8]:80\";proto=https",
            )],
        );
        assert_eq!(address(&forwarded, &proxies).to_string(), "2001:db8::8");
    }
}

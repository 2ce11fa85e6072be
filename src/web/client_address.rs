//! The client's address behind trusted proxies, and the headers that proxies add.

use std::net::{IpAddr, Ipv4Addr};

use actix_web::HttpRequest;
use actix_web::http::header::{FORWARDED, HeaderName};
use ipnet::IpNet;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Returns the client's address: the peer's, or the one that trusted proxies report.
pub fn client_address(request: &HttpRequest, proxies: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| proxies.iter().any(|net| net.contains(&address));
    let peer = peer_address(request).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    if !is_from_trusted_proxy(request, proxies) {
        return peer;
    }
    // Each proxy appends the address it received the request from. The last address that is not a
    // trusted proxy is the client's.
    let hops_in = |name: &HeaderName| -> Vec<String> {
        let lists = request
            .headers()
            .get_all(name)
            .filter_map(|value| value.to_str().ok());
        lists
            .flat_map(|list| list.split(','))
            .map(|hop| hop.trim().to_owned())
            .collect()
    };
    let mut hops = hops_in(&X_FORWARDED_FOR);
    if hops.is_empty() {
        hops = hops_in(&FORWARDED)
            .iter()
            .map(|hop| hop_param(hop, "for").unwrap_or_default().to_owned())
            .collect();
    }
    let mut client = peer;
    for hop in hops.iter().rev() {
        // The entries before an unreadable one may be forged.
        let Some(hop) = parse_hop_address(hop) else {
            break;
        };
        client = hop;
        if !is_trusted(hop) {
            break;
        }
    }
    client
}

/// Returns a parameter (`for`, `host` or `proto`) of one `Forwarded` element (RFC 7239).
pub(super) fn hop_param<'h>(hop: &'h str, part: &str) -> Option<&'h str> {
    let mut pairs = hop
        .split(';')
        .filter_map(|pair| pair.trim().split_once('='));
    pairs
        .find(|(name, _)| name.eq_ignore_ascii_case(part))
        .map(|(_, value)| value.trim_matches('"'))
}

/// Parses an address as proxies write it: plain, with a port, or in brackets.
fn parse_hop_address(hop: &str) -> Option<IpAddr> {
    let bare = hop
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
        .map_or(hop, |(address, _)| address);
    let plain = bare.parse::<IpAddr>();
    let address = plain.or_else(|_| {
        bare.rsplit_once(':')
            .map_or(bare, |(address, _)| address)
            .parse::<IpAddr>()
    });
    address.ok().map(|address| address.to_canonical())
}

pub(super) fn is_from_trusted_proxy(request: &HttpRequest, proxies: &[IpNet]) -> bool {
    peer_address(request).is_some_and(|peer| proxies.iter().any(|net| net.contains(&peer)))
}

fn peer_address(request: &HttpRequest) -> Option<IpAddr> {
    request.peer_addr().map(|peer| peer.ip().to_canonical())
}

pub(super) fn header<'r>(request: &'r HttpRequest, name: &HeaderName) -> Option<&'r str> {
    request.headers().get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn request(peer: &str, header: (&'static str, &str)) -> HttpRequest {
        TestRequest::default()
            .peer_addr(peer.parse().unwrap())
            .insert_header(header)
            .to_http_request()
    }

    #[test]
    fn client_address_is_taken_from_trusted_proxies_only() {
        let proxies: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let client = |peer, list| {
            client_address(&request(peer, ("x-forwarded-for", list)), &proxies).to_string()
        };
        assert_eq!(client("192.0.2.1:5", "198.51.100.7"), "192.0.2.1");
        assert_eq!(
            client("10.0.0.1:5", "203.0.113.9, 198.51.100.7, 10.0.0.2"),
            "198.51.100.7"
        );
        assert_eq!(client("10.0.0.1:5", "rubbish"), "10.0.0.1");
        assert_eq!(
            client("10.0.0.1:5", "9.9.9.9, 198.51.100.7:4711"),
            "198.51.100.7"
        );
        assert_eq!(
            client("10.0.0.1:5", "9.9.9.9, [2001:db8::7]:4711"),
            "2001:db8::7"
        );
        assert_eq!(
            client("10.0.0.1:5", "9.9.9.9, unknown"),
            "10.0.0.1",
            "entries before an unreadable one are ignored"
        );
        let forwarded = request(
            "10.0.0.1:5",
            (
                "forwarded",
                "for=9.9.9.9, for=\"[2001:db8::8]:80\";proto=https",
            ),
        );
        assert_eq!(
            client_address(&forwarded, &proxies).to_string(),
            "2001:db8::8"
        );
    }
}

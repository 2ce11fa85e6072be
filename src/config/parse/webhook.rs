//! Validation of webhook URLs and signing secrets.
//!
//! Alerts are sent over https, so that nobody on the way can read or forge them. Plain http is only
//! accepted for hosts that are private by their name: this machine, a private address, or a name
//! that only exists in a private network.

use super::address::{host_of, parse_url};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use std::net::IpAddr;

/// Suffixes of private names: RFC 6761, 6762 and 8375, ICANN's `internal`, and customary ones.
const PRIVATE_SUFFIXES: [&str; 8] = [
    "localhost",
    "local",
    "internal",
    "home.arpa",
    "lan",
    "intranet",
    "corp",
    "private",
];

/// The prefix of base64-encoded secrets in Standard Webhooks.
const BASE64_PREFIX: &str = "whsec_";

/// Validates the URL of a webhook.
///
/// # Errors
/// Returns a message without the URL, which may be a secret.
pub(crate) fn check_webhook_url(text: &str) -> Result<(), String> {
    let url = parse_url(text)?;
    let host = host_of(&url).unwrap_or_default();
    if url.starts_with("https://") || is_private_host(&host) {
        return Ok(());
    }
    Err(
        "alerts go over https; http is for this machine and for private addresses and names alone"
            .to_owned(),
    )
}

pub(crate) fn check_webhook_secret(text: &str) -> Result<(), String> {
    match webhook_key(text) {
        Some(key) if !key.is_empty() => Ok(()),
        _ => Err("what follows \"whsec_\" is not base64; copy the secret as the receiver shows it, or use a text without that prefix".to_owned()),
    }
}

/// The signing key of a secret: the decoded base64 after `whsec_`, or the bytes of any other text.
///
/// `None` if the part after the prefix is not valid base64.
pub fn webhook_key(secret: &str) -> Option<Vec<u8>> {
    match secret.strip_prefix(BASE64_PREFIX) {
        Some(encoded) => STANDARD
            .decode(encoded)
            .or_else(|_| STANDARD_NO_PAD.decode(encoded))
            .ok(),
        None => Some(secret.as_bytes().to_vec()),
    }
}

/// Returns `true` if a host name or address in a URL is private.
pub fn is_private_host(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = address.parse::<IpAddr>() {
        return !is_public_address(address);
    }
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let has_suffix = |suffix: &&str| {
        name.strip_suffix(*suffix)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    !name.contains('.') || PRIVATE_SUFFIXES.iter().any(has_suffix)
}

/// Returns `true` for addresses of the public internet: not loopback, private or of special use.
pub fn is_public_address(address: IpAddr) -> bool {
    let v4 = match address {
        IpAddr::V4(v4) => Some(v4),
        // IPv4-mapped and NAT64 addresses lead to the embedded IPv4 address.
        IpAddr::V6(v6) => v6.to_ipv4_mapped().or_else(|| match v6.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                Some(((u32::from(high) << 16) | u32::from(low)).into())
            }
            _ => None,
        }),
    };
    if let Some(v4) = v4 {
        let [a, b, c, _] = v4.octets();
        return !(v4.is_private()
            || v4.is_loopback()
            || v4.is_link_local()
            || v4.is_multicast()
            || v4.is_documentation()
            || a == 0
            || a >= 240
            || (a == 100 && (64..128).contains(&b))
            || (a == 192 && b == 0 && c == 0)
            || (a == 198 && (18..20).contains(&b)));
    }
    let IpAddr::V6(v6) = address else {
        return false;
    };
    // Public addresses are in 2000::/3, except documentation, 6to4 and Teredo.
    let [first, second, ..] = v6.segments();
    first & 0xe000 == 0x2000
        && first != 0x2002
        && !(first == 0x2001 && (second == 0xdb8 || second == 0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn http_is_only_accepted_for_private_hosts() {
        for good in [
            "https://hooks.example.com/x",
            "https://10.0.0.5/x",
            "http://localhost:9/x",
            "http://127.0.0.1/",
            "http://[::1]:8/",
            "http://10.1.2.3/x",
            "http://alerts:9000/x",
            "http://hooks.corp/x",
            "http://receiver.prod.svc.cluster.local/x",
        ] {
            assert_eq!(check_webhook_url(good), Ok(()), "{good}");
        }
        for bad in [
            "http://hooks.example.com/canary",
            "http://8.8.8.8/canary",
            "http://notlocal.example/canary",
        ] {
            let message = check_webhook_url(bad).unwrap_err();
            assert!(
                message.contains("https") && !message.contains("canary"),
                "{message}"
            );
        }
    }

    #[test]
    fn private_addresses_are_recognized() {
        for private in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "203.0.113.7",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2001:db8::1",
            "2002:a00:1::",
            "ff02::1",
        ] {
            assert!(!is_public_address(private.parse().unwrap()), "{private}");
        }
        for public in [
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "198.20.0.1",
            "2606:4700::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(is_public_address(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn signing_secrets_have_two_forms() {
        assert_eq!(webhook_key("plain"), Some(b"plain".to_vec()));
        assert_eq!(webhook_key("whsec_AAEC"), Some(vec![0, 1, 2]));
        assert_eq!(
            webhook_key("whsec_AAE"),
            Some(vec![0, 1]),
            "padding is often left out"
        );
        for bad in ["whsec_", "whsec_canary!"] {
            let message = check_webhook_secret(bad).unwrap_err();
            assert!(
                message.contains("base64") && !message.contains("canary"),
                "{message}"
            );
        }
    }
}

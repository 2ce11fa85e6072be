//! Visitor tokens: the host site names its visitor in a JWT (RFC 7519), signed with a secret that
//! it shares with this service.
//!
//! Only HS256 is accepted, and the token's `alg` never selects the algorithm. This rules out `none`
//! and attacks that confuse key types. The claims `exp` and `sub` are required.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use serde::Deserialize;
use serde_json::Value;
use sha2::Sha256;

use crate::chat::At;
use crate::settings::Secret;

const LONGEST: usize = 4096;

const LONGEST_SUBJECT: usize = 256;

/// The tolerance for `nbf`, since the site's clock may be ahead of ours. `exp` is checked exactly.
const AHEAD_S: f64 = 60.0;

pub struct Identity {
    secret: Secret,
}

/// The reason for rejecting a token. It reveals nothing of the token or the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// `widget.identity_secret` is not set.
    #[error("this service takes no visitor tokens; its owner can set widget.identity_secret")]
    NotTaken,
    #[error("the visitor token is not a JWT signed with HS256")]
    Malformed,
    #[error("the visitor token's signature is wrong")]
    Forged,
    /// `sub` or `exp` is missing or malformed.
    #[error("the visitor token needs the claims sub (a name) and exp (a time)")]
    Claims,
    #[error("the visitor token has expired; the site has to give a new one")]
    Expired,
    /// `nbf` is in the future.
    #[error("the visitor token is not valid yet")]
    Early,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: Option<String>,
    crit: Option<Value>,
}

/// Times are seconds since 1970, possibly with a fraction.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    nbf: Option<f64>,
}

impl Identity {
    pub fn new(secret: Secret) -> Self {
        Self { secret }
    }

    /// Returns the visitor named by a token that is valid at `now`.
    pub fn subject(&self, token: &str, now: At) -> Result<String, BadToken> {
        if token.len() > LONGEST {
            return Err(BadToken::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(BadToken::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(BadToken::Malformed)?;
        let header: Header = part(header).ok_or(BadToken::Malformed)?;
        let is_jwt = header.typ.is_none_or(|typ| typ.eq_ignore_ascii_case("jwt"));
        // RFC 7515 section 4.1.11: `crit` lists extensions that must be understood. None is.
        if header.alg != "HS256" || !is_jwt || header.crit.is_some() {
            return Err(BadToken::Malformed);
        }
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| BadToken::Malformed)?;
        // `verify_slice` compares in constant time.
        mac(&self.secret, signed)?
            .verify_slice(&signature)
            .map_err(|_| BadToken::Forged)?;
        let Claims { sub, exp, nbf } = part(claims).ok_or(BadToken::Claims)?;
        if sub.is_empty() || sub.len() > LONGEST_SUBJECT {
            return Err(BadToken::Claims);
        }
        let now_s = now.since(At(0)).as_secs_f64();
        if exp <= now_s {
            return Err(BadToken::Expired);
        }
        if nbf.is_some_and(|nbf| nbf > now_s + AHEAD_S) {
            return Err(BadToken::Early);
        }
        Ok(sub)
    }
}

fn mac(secret: &Secret, signed: &str) -> Result<Hmac<Sha256>, BadToken> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).map_err(|_| BadToken::Forged)?;
    mac.update(signed.as_bytes());
    Ok(mac)
}

/// Decodes the base64url JSON of a token's part. A token with more than three parts fails here,
/// because `.` is not in the alphabet.
fn part<T: for<'de> Deserialize<'de>>(text: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

/// Signs a token as a host site would.
#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used)]
pub(crate) fn sign(secret: &str, header: &Value, claims: &Value) -> String {
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let signed = format!("{header}.{claims}");
    let signature = mac(&Secret::new(secret), &signed)
        .unwrap()
        .finalize()
        .into_bytes();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECRET: &str = "shop-secret";
    const NOW: At = At(1_800_000_000_000);

    fn check(token: &str) -> Result<String, BadToken> {
        Identity::new(Secret::new(SECRET)).subject(token, NOW)
    }

    fn check_signed(header: &Value, claims: &Value) -> Result<String, BadToken> {
        check(&sign(SECRET, header, claims))
    }

    fn hs256() -> Value {
        json!({ "alg": "HS256", "typ": "JWT" })
    }

    fn ann() -> Value {
        json!({ "sub": "ann", "exp": 1_800_000_060 })
    }

    #[test]
    fn token_signed_by_openssl_is_accepted() {
        let token = concat!(
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbm4iLCJleHAiOjQxMDI0NDQ4MDB9.",
            "q3CF3QpyXf-hzNq_L-z1RLm69hHV412ZfXbigQf7WPg"
        );
        assert_eq!(check(token), Ok("ann".into()));
    }

    #[test]
    fn valid_token_returns_its_subject() {
        assert_eq!(check_signed(&hs256(), &ann()), Ok("ann".into()));
        assert_eq!(
            check_signed(&json!({ "alg": "HS256" }), &ann()),
            Ok("ann".into())
        );
        let more = json!({ "sub": "ann", "exp": 1_800_000_000.5, "nbf": 1_800_000_059, "iat": 1, "name": "Ann" });
        assert_eq!(check_signed(&hs256(), &more), Ok("ann".into()));
    }

    #[test]
    fn other_algorithms_are_rejected_with_any_signature() {
        let [_, claims, signature] = <[String; 3]>::try_from(
            sign(SECRET, &hs256(), &ann())
                .split('.')
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
        .unwrap();
        for alg in [
            "none", "None", "NONE", "", "HS384", "HS512", "RS256", "ES256", "hs256",
        ] {
            let header = json!({ "alg": alg, "typ": "JWT" });
            assert_eq!(
                check_signed(&header, &ann()),
                Err(BadToken::Malformed),
                "{alg}"
            );
            let header = URL_SAFE_NO_PAD.encode(header.to_string());
            for signature in ["", &signature] {
                assert_eq!(
                    check(&format!("{header}.{claims}.{signature}")),
                    Err(BadToken::Malformed),
                    "{alg}"
                );
            }
        }
        assert_eq!(
            check_signed(&json!({ "typ": "JWT" }), &ann()),
            Err(BadToken::Malformed)
        );
        assert_eq!(
            check_signed(&json!({ "alg": "HS256", "crit": ["b64"] }), &ann()),
            Err(BadToken::Malformed)
        );
        assert_eq!(
            check_signed(&json!({ "alg": "HS256", "typ": "JWE" }), &ann()),
            Err(BadToken::Malformed)
        );
    }

    #[test]
    fn changed_or_foreign_token_has_a_bad_signature() {
        let good = sign(SECRET, &hs256(), &ann());
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let bob = sign(
            "another",
            &hs256(),
            &json!({ "sub": "bob", "exp": 1_800_000_060 }),
        );
        assert_eq!(check(&bob), Err(BadToken::Forged));
        let (bobs, _) = bob.rsplit_once('.').unwrap();
        for token in [
            format!("{bobs}.{signature}"),
            format!("{signed}."),
            format!("{signed}.{}", &signature[..40]),
            format!("{signed}.{signature}AAAA"),
        ] {
            assert_eq!(check(&token), Err(BadToken::Forged), "{token}");
        }
    }

    #[test]
    fn text_that_is_no_token_is_malformed() {
        let good = sign(SECRET, &hs256(), &ann());
        let long = format!("{good}{}", "A".repeat(LONGEST));
        for token in [
            "",
            ".",
            "..",
            "a.b",
            "a.b.c",
            &format!("{good}.x"),
            &format!("x.{good}"),
            &format!("{good}="),
            &long,
        ] {
            assert_eq!(check(token), Err(BadToken::Malformed), "{token}");
        }
    }

    #[test]
    fn missing_or_malformed_claims_are_rejected() {
        for claims in [
            json!({ "sub": "ann" }),
            json!({ "sub": "ann", "exp": null }),
            json!({ "sub": "ann", "exp": "1800000060" }),
            json!({ "sub": "ann", "exp": true }),
            json!({ "exp": 1_800_000_060 }),
            json!({ "sub": "", "exp": 1_800_000_060 }),
            json!({ "sub": 7, "exp": 1_800_000_060 }),
            json!({ "sub": "x".repeat(LONGEST_SUBJECT + 1), "exp": 1_800_000_060 }),
            json!({ "sub": "ann", "exp": 1_800_000_060, "nbf": "soon" }),
            json!([]),
        ] {
            assert_eq!(
                check_signed(&hs256(), &claims),
                Err(BadToken::Claims),
                "{claims}"
            );
        }
    }

    #[test]
    fn token_is_valid_until_exp_and_from_nbf() {
        let check_exp = |exp: f64| check_signed(&hs256(), &json!({ "sub": "ann", "exp": exp }));
        assert_eq!(check_exp(1_799_999_999.0), Err(BadToken::Expired));
        assert_eq!(check_exp(1_800_000_000.0), Err(BadToken::Expired));
        assert_eq!(check_exp(-1.0), Err(BadToken::Expired));
        assert_eq!(check_exp(1_800_000_001.0), Ok("ann".into()));
        let early = json!({ "sub": "ann", "exp": 1_800_009_999, "nbf": 1_800_000_061 });
        assert_eq!(check_signed(&hs256(), &early), Err(BadToken::Early));
    }
}

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

use crate::config::Secret;
use crate::domain::Timestamp;

const MAX_TOKEN_BYTES: usize = 4096;

const MAX_SUBJECT_BYTES: usize = 256;

/// The tolerance for `nbf`, since the site's clock may be ahead of ours. `exp` is checked exactly.
const MAX_CLOCK_SKEW_S: f64 = 60.0;

pub struct VisitorTokens {
    secret: Secret,
}

/// The reason for rejecting a token. It reveals nothing of the token or the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// `widget.identity_secret` is not set.
    #[error("this service takes no visitor tokens; its owner can set widget.identity_secret")]
    Disabled,
    #[error("the visitor token is not a JWT signed with HS256")]
    Malformed,
    #[error("the visitor token's signature is wrong")]
    BadSignature,
    /// `sub` or `exp` is missing or malformed.
    #[error("the visitor token needs the claims sub (a name) and exp (a time)")]
    InvalidClaims,
    #[error("the visitor token has expired; the site has to give a new one")]
    Expired,
    /// `nbf` is in the future.
    #[error("the visitor token is not valid yet")]
    NotYetValid,
}

#[derive(Deserialize)]
struct TokenHeader {
    alg: String,
    typ: Option<String>,
    crit: Option<Value>,
}

/// Times are seconds since 1970, possibly with a fraction.
#[derive(Deserialize)]
struct TokenClaims {
    sub: String,
    exp: f64,
    nbf: Option<f64>,
}

impl VisitorTokens {
    pub fn new(secret: Secret) -> Self {
        Self { secret }
    }

    /// Returns the visitor named by a token that is valid at `now`.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<String, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let header: TokenHeader = decode_part(header).ok_or(TokenError::Malformed)?;
        let is_jwt = header.typ.is_none_or(|typ| typ.eq_ignore_ascii_case("jwt"));
        // RFC 7515 section 4.1.11: `crit` lists extensions that must be understood. None is.
        if header.alg != "HS256" || !is_jwt || header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| TokenError::Malformed)?;
        // `verify_slice` compares in constant time.
        compute_mac(&self.secret, signed)?
            .verify_slice(&signature)
            .map_err(|_| TokenError::BadSignature)?;
        let TokenClaims { sub, exp, nbf } = decode_part(claims).ok_or(TokenError::InvalidClaims)?;
        if sub.is_empty() || sub.len() > MAX_SUBJECT_BYTES {
            return Err(TokenError::InvalidClaims);
        }
        let now_s = now.since(Timestamp(0)).as_secs_f64();
        if exp <= now_s {
            return Err(TokenError::Expired);
        }
        if nbf.is_some_and(|nbf| nbf > now_s + MAX_CLOCK_SKEW_S) {
            return Err(TokenError::NotYetValid);
        }
        Ok(sub)
    }
}

fn compute_mac(secret: &Secret, signed: &str) -> Result<Hmac<Sha256>, TokenError> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
        .map_err(|_| TokenError::BadSignature)?;
    mac.update(signed.as_bytes());
    Ok(mac)
}

/// Decodes the base64url JSON of a token's part. A token with more than three parts fails here,
/// because `.` is not in the alphabet.
fn decode_part<T: for<'de> Deserialize<'de>>(text: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

/// Signs a token as a host site would.
#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used)]
pub(crate) fn sign_token(secret: &str, header: &Value, claims: &Value) -> String {
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let signed = format!("{header}.{claims}");
    let signature = compute_mac(&Secret::new(secret), &signed)
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
    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn check(token: &str) -> Result<String, TokenError> {
        VisitorTokens::new(Secret::new(SECRET)).verify(token, NOW)
    }

    fn check_signed(header: &Value, claims: &Value) -> Result<String, TokenError> {
        check(&sign_token(SECRET, header, claims))
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
            sign_token(SECRET, &hs256(), &ann())
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
                Err(TokenError::Malformed),
                "{alg}"
            );
            let header = URL_SAFE_NO_PAD.encode(header.to_string());
            for signature in ["", &signature] {
                assert_eq!(
                    check(&format!("{header}.{claims}.{signature}")),
                    Err(TokenError::Malformed),
                    "{alg}"
                );
            }
        }
        assert_eq!(
            check_signed(&json!({ "typ": "JWT" }), &ann()),
            Err(TokenError::Malformed)
        );
        assert_eq!(
            check_signed(&json!({ "alg": "HS256", "crit": ["b64"] }), &ann()),
            Err(TokenError::Malformed)
        );
        assert_eq!(
            check_signed(&json!({ "alg": "HS256", "typ": "JWE" }), &ann()),
            Err(TokenError::Malformed)
        );
    }

    #[test]
    fn changed_or_foreign_token_has_a_bad_signature() {
        let good = sign_token(SECRET, &hs256(), &ann());
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let bob = sign_token(
            "another",
            &hs256(),
            &json!({ "sub": "bob", "exp": 1_800_000_060 }),
        );
        assert_eq!(check(&bob), Err(TokenError::BadSignature));
        let (bobs, _) = bob.rsplit_once('.').unwrap();
        for token in [
            format!("{bobs}.{signature}"),
            format!("{signed}."),
            format!("{signed}.{}", &signature[..40]),
            format!("{signed}.{signature}AAAA"),
        ] {
            assert_eq!(check(&token), Err(TokenError::BadSignature), "{token}");
        }
    }

    #[test]
    fn text_that_is_no_token_is_malformed() {
        let good = sign_token(SECRET, &hs256(), &ann());
        let long = format!("{good}{}", "A".repeat(MAX_TOKEN_BYTES));
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
            assert_eq!(check(token), Err(TokenError::Malformed), "{token}");
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
            json!({ "sub": "x".repeat(MAX_SUBJECT_BYTES + 1), "exp": 1_800_000_060 }),
            json!({ "sub": "ann", "exp": 1_800_000_060, "nbf": "soon" }),
            json!([]),
        ] {
            assert_eq!(
                check_signed(&hs256(), &claims),
                Err(TokenError::InvalidClaims),
                "{claims}"
            );
        }
    }

    #[test]
    fn token_is_valid_until_exp_and_from_nbf() {
        let check_exp = |exp: f64| check_signed(&hs256(), &json!({ "sub": "ann", "exp": exp }));
        assert_eq!(check_exp(1_799_999_999.0), Err(TokenError::Expired));
        assert_eq!(check_exp(1_800_000_000.0), Err(TokenError::Expired));
        assert_eq!(check_exp(-1.0), Err(TokenError::Expired));
        assert_eq!(check_exp(1_800_000_001.0), Ok("ann".into()));
        let early = json!({ "sub": "ann", "exp": 1_800_009_999, "nbf": 1_800_000_061 });
        assert_eq!(check_signed(&hs256(), &early), Err(TokenError::NotYetValid));
    }
}

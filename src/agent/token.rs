//! An Entra access token in the client's hands, and what it says of itself.
//!
//! Nothing here is verified and nothing is decided by it: the expiry is for scripts, the name saves typing `user`.

use super::Error;
use crate::identity::{MAX_TOKEN_BYTES, managed_identity};
use crate::secret::Secret;
use crate::time::{Timestamp, from_unix};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// PostgreSQL's longest name, in bytes.
const MAX_USER_BYTES: usize = 63;

/// An access token.
#[derive(Debug)]
pub struct Token(Secret<String>);

impl Token {
    /// Takes what was got.
    pub(super) fn new(token: Secret<String>) -> Self {
        Self(token)
    }

    /// Takes what `from` answered, if a token can look like that: visible ASCII, not empty, not too long.
    pub(super) fn parse(from: &'static str, token: String) -> Result<Self, Error> {
        let token = Secret::new(token);
        let text = token.expose();
        if text.is_empty() || text.len() > MAX_TOKEN_BYTES || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let reason = "the token is empty, too long, or has characters that no token has".to_owned();
            return Err(Error::Answer { from, reason });
        }
        Ok(Self(token))
    }

    /// The token itself, for the one place that hands it over.
    pub fn secret(&self) -> &Secret<String> {
        &self.0
    }

    /// When it ends (`exp`), if it says so.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.claims()?.get("exp")?.as_i64().and_then(from_unix)
    }

    /// The name that the proxy knows its bearer by: what a person's or an app's token calls them.
    pub fn user(&self) -> Option<String> {
        let claims = self.claims()?;
        let is_app = claims.get("idtyp").and_then(Value::as_str) == Some("app") || claims.get("scp").is_none();
        let claim = |name: &&str| claims.get(*name)?.as_str();
        let found = if is_app {
            let identity = || managed_identity(claim(&"xms_mirid")?);
            claim(&"app_displayname").or_else(identity).or_else(|| ["azp", "appid"].iter().find_map(claim))
        } else {
            ["upn", "preferred_username", "unique_name", "oid"].iter().find_map(claim)
        };
        let fits = |name: &&str| !name.is_empty() && name.len() <= MAX_USER_BYTES && !name.contains(char::is_control);
        found.filter(fits).map(str::to_owned)
    }

    fn claims(&self) -> Option<Value> {
        let payload = self.0.expose().split('.').nth(1)?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn token(claims: &Value) -> Token {
        let payload = URL_SAFE_NO_PAD.encode(claims.to_string());
        Token::parse("a test", format!("eyJhbGciOiJSUzI1NiJ9.{payload}.c2ln")).unwrap()
    }

    #[test]
    fn the_user_is_the_name_that_the_proxy_uses() {
        for (claims, user) in [
            (json!({"scp": "x", "upn": "analyst@contoso.example", "oid": "o"}), Some("analyst@contoso.example")),
            (json!({"scp": "x", "preferred_username": "analyst@contoso.example"}), Some("analyst@contoso.example")),
            (json!({"scp": "x", "oid": "o"}), Some("o")),
            (json!({"idtyp": "app", "azp": "a", "upn": "not@this.example"}), Some("a")),
            (json!({"azp": "a", "app_displayname": "orders"}), Some("orders")),
            (json!({"azp": "a", "xms_mirid": "/subscriptions/s/providers/p/t/orders-job"}), Some("orders-job")),
            (json!({"azp": "a", "xms_mirid": "odd"}), Some("a")),
            (json!({"ver": "1.0", "appid": "a"}), Some("a")),
            (json!({"scp": "x", "upn": "a\nb"}), None),
            (json!({"scp": "x", "upn": "a".repeat(64)}), None),
            (json!({}), None),
        ] {
            assert_eq!(token(&claims).user().as_deref(), user, "{claims}");
        }
    }

    #[test]
    fn the_expiry_is_the_tokens_own_and_an_opaque_token_has_none() {
        assert_eq!(token(&json!({"exp": 1_800_000_000})).expires_at(), from_unix(1_800_000_000));
        let opaque = Token::parse("a test", "opaque".to_owned()).unwrap();
        assert_eq!((opaque.expires_at(), opaque.user()), (None, None));
    }

    #[test]
    fn what_cannot_be_a_token_is_refused_and_never_quoted() {
        for bad in [String::new(), "two words".to_owned(), "line\nbreak".to_owned(), "x".repeat(MAX_TOKEN_BYTES + 1)] {
            let error = Token::parse("a test", bad.clone()).unwrap_err();
            assert!(bad.is_empty() || !format!("{error} {error:?}").contains(&bad));
        }
    }
}

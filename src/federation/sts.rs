//! Google's Security Token Service: an Entra token in, a federated Google token out.
//!
//! `POST /v1/token`, RFC 8693 token exchange as a form (Security Token Service API v1). The call carries no
//! Authorization header: the subject token alone proves the caller. It may be made twice: an exchange changes nothing.

use super::answer::{MAX_TOKEN_BYTES, accepted, bearer};
use super::{AccessToken, Error, Google, Hop};
use crate::names::Provider;
use crate::secret::Secret;
use crate::time::later;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";
const SUBJECT_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:jwt";
/// The longest life of a token: a workforce pool's longest session.
pub const MAX_TOKEN_SECONDS: u32 = 12 * 3600;

/// One exchange.
pub(super) struct Exchange<'a> {
    /// The pool's provider that judges the token.
    pub(super) provider: &'a Provider,
    /// What the resulting token may be used for.
    pub(super) scope: &'a str,
    /// The quota project of a workforce pool's callers (`options.userProject`).
    pub(super) user_project: Option<&'a str>,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    issued_token_type: String,
    token_type: String,
    expires_in: u32,
}

/// Exchanges `subject`, an Entra token.
pub(super) async fn exchange(
    google: &Google,
    exchange: &Exchange<'_>,
    subject: &Secret<String>,
) -> Result<AccessToken, Error> {
    let url = format!("{}/v1/token", google.endpoints.sts);
    let options = exchange.user_project.map(|project| json!({ "userProject": project }).to_string());
    let mut form = vec![
        ("grant_type", GRANT_TYPE),
        ("audience", exchange.provider.as_str()),
        ("scope", exchange.scope),
        ("requested_token_type", ACCESS_TOKEN_TYPE),
        ("subject_token", subject.expose()),
        ("subject_token_type", SUBJECT_TOKEN_TYPE),
    ];
    if let Some(options) = &options {
        form.push(("options", options));
    }
    // Before the call: a token must never be taken to live longer than it does.
    let asked_at = google.clock.now();
    let call = |left| google.http.post_form(&url, &form, left);
    let outcome = google.services.sts.call(exchange.provider.quota(), google.deadlines.sts, call).await;
    let body = accepted(Hop::Sts, outcome, subject)?;
    let (token, lifetime) = read(body.expose())?;
    Ok(AccessToken { token, expires_at: later(asked_at, lifetime) })
}

fn read(body: &[u8]) -> Result<(Secret<String>, Duration), Error> {
    let broken = |reason: &str| Error::Broken { hop: Hop::Sts, reason: reason.to_owned() };
    let answer: Answer = serde_json::from_slice(body).map_err(|_| broken("the answer is no token response"))?;
    let token = bearer(Hop::Sts, answer.access_token, MAX_TOKEN_BYTES)?;
    if answer.issued_token_type != ACCESS_TOKEN_TYPE || !answer.token_type.eq_ignore_ascii_case("Bearer") {
        return Err(broken("the token is no bearer access token"));
    }
    if !(1..=MAX_TOKEN_SECONDS).contains(&answer.expires_in) {
        return Err(broken("the token's lifetime is out of range"));
    }
    Ok((token, Duration::from_secs(answer.expires_in.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_bearer_token_is_taken() {
        let answer = |changes: serde_json::Value| {
            let mut answer = json!({"access_token": "ya29.d.x", "issued_token_type": ACCESS_TOKEN_TYPE,
                                    "token_type": "Bearer", "expires_in": 3599});
            answer.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            read(answer.to_string().as_bytes())
        };
        let (token, lifetime) = answer(json!({"extra": 1})).unwrap();
        assert_eq!((token.expose().as_str(), lifetime.as_secs()), ("ya29.d.x", 3599));
        for changes in [
            json!({"access_token": ""}),
            json!({"access_token": null}),
            json!({"access_token": "a\nb"}),
            json!({"access_token": "y".repeat(MAX_TOKEN_BYTES + 1)}),
            json!({"issued_token_type": "urn:ietf:params:oauth:token-type:id_token"}),
            json!({"token_type": "mac"}),
            json!({"expires_in": 0}),
            json!({"expires_in": -1}),
            json!({"expires_in": MAX_TOKEN_SECONDS + 1}),
            json!({"expires_in": "3599"}),
        ] {
            let outcome = answer(changes.clone()).map(|_| ());
            assert!(matches!(outcome, Err(Error::Broken { .. })), "{changes}");
        }
        assert!(read(b"<html>").is_err());
        assert!(read(br#"{"access_token":"a","access_token":"b"}"#).is_err());
    }

    #[test]
    fn errors_do_not_quote_the_answer() {
        let error = read(br#"{"access_token":{"x":"ya29.secret"}}"#).unwrap_err();
        assert!(!format!("{error:?} {error}").contains("ya29"));
    }
}

//! What a Google service said: a body when it agreed, one of our errors when it did not.
//!
//! Errors come as OAuth JSON (RFC 6749 §5.2, from STS) or as a Google API error (`google.rpc.Status`); either
//! service may use either, so both are read. Their words go to operators and callers: control characters, what
//! looks like a credential, and the token that was sent are taken out, and the rest is cut.

use super::{Error, Hop};
use crate::http::{self, Response, Turned};
use crate::secret::Secret;
use serde::Deserialize;

/// The longest description that is passed on, in bytes.
pub const MAX_DESCRIPTION_BYTES: usize = 500;
/// The longest error code that is passed on, in bytes.
const MAX_CODE_BYTES: usize = 64;
/// The most of Entra's numbers that are passed on.
const MAX_NUMBERS: usize = 4;
/// The longest Google access token (Security Token Service, `access_token`), in bytes.
pub const MAX_TOKEN_BYTES: usize = 12288;
/// Longer runs of token characters in a description are taken for a credential.
const MAX_RUN: usize = 64;
/// What stands where something was taken out.
const CUT: char = '…';

/// The body of a 200, or why there is none. `sent` is the token that the call carried.
pub(super) fn accepted(
    hop: Hop,
    outcome: Result<Response, Turned>,
    sent: &Secret<String>,
) -> Result<Secret<Vec<u8>>, Error> {
    let response = outcome.map_err(|turned| match turned {
        Turned::Busy(_) => Error::Busy { hop },
        Turned::Resting { left, .. } => Error::Throttled { hop, left: Some(left) },
        Turned::Failed(error) => unanswered(hop, &error),
    })?;
    let status = response.status;
    let body = Secret::new(response.body);
    match status {
        200 => Ok(body),
        429 => Err(Error::Throttled { hop, left: response.retry_after }),
        408 | 500.. => Err(Error::Unavailable { hop, reason: format!("status {status}") }),
        400..=499 => Err(refused(hop, status, body.expose(), sent)),
        _ => Err(Error::Broken { hop, reason: format!("status {status}") }),
    }
}

fn unanswered(hop: Hop, error: &http::Error) -> Error {
    let reason = http::chain(error);
    match error {
        http::Error::Unreachable { .. } | http::Error::Deadline { .. } | http::Error::SetUp(_) => {
            Error::Unavailable { hop, reason }
        }
        http::Error::Broken { .. } | http::Error::TooLarge { .. } => Error::Broken { hop, reason },
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Refusal {
    OAuth {
        error: String,
        #[serde(default)]
        error_description: String,
        /// Entra's numbers.
        #[serde(default)]
        error_codes: Vec<u32>,
    },
    Google {
        error: GoogleError,
    },
}

#[derive(Deserialize)]
struct GoogleError {
    status: String,
    #[serde(default)]
    message: String,
}

fn refused(hop: Hop, status: u16, body: &[u8], sent: &Secret<String>) -> Error {
    let (code, description) = match serde_json::from_slice(body) {
        Ok(Refusal::OAuth { error, error_description, error_codes }) => {
            let numbers = error_codes.iter().take(MAX_NUMBERS).map(|number| format!(" AADSTS{number}"));
            (numbers.fold(plain_code(&error), |code, number| code + &number), error_description)
        }
        Ok(Refusal::Google { error }) => (plain_code(&error.status), error.message),
        Err(_) => return Error::Broken { hop, reason: format!("status {status} without an error in JSON") },
    };
    // The contract names no code for it; the sentence is what every client matches.
    if hop == Hop::Sts && description.contains("is stale to sign-in") {
        return Error::Stale;
    }
    Error::Refused { hop, code, description: harmless(&description, sent.expose()) }
}

fn plain_code(code: &str) -> String {
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    code.chars().filter(allowed).take(MAX_CODE_BYTES).collect()
}

/// A service's words without control characters, without `secret`, without anything like a credential, and cut.
pub(crate) fn harmless(text: &str, secret: &str) -> String {
    let without = if secret.is_empty() { text.to_owned() } else { text.replace(secret, "…") };
    let mut kept = String::new();
    for piece in without.split_inclusive(|c: char| !is_token_character(c)) {
        let run = piece.trim_end_matches(|c: char| !is_token_character(c));
        if run.len() > MAX_RUN {
            kept.push(CUT);
            kept.push_str(piece.get(run.len()..).unwrap_or_default());
        } else {
            kept.push_str(piece);
        }
    }
    kept.retain(|c| !c.is_control() && !is_direction_control(c));
    cut(kept)
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_DESCRIPTION_BYTES {
        let mut end = MAX_DESCRIPTION_BYTES - CUT.len_utf8();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push(CUT);
    }
    text
}

/// Base64url, base64 and the dots between segments.
fn is_token_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '=' | '~')
}

/// Unicode's direction marks and overrides, which make a terminal show another text.
fn is_direction_control(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A bearer token as a service gave it: visible ASCII, not empty, not too long.
pub(super) fn bearer(hop: Hop, token: String, most: usize) -> Result<Secret<String>, Error> {
    let token = Secret::new(token);
    let fits = !token.expose().is_empty() && token.expose().len() <= most;
    if fits && token.expose().bytes().all(|b| b.is_ascii_graphic()) {
        Ok(token)
    } else {
        Err(Error::Broken { hop, reason: "the token is empty, too long, or no token".to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn outcome(status: u16, body: &str) -> Result<Secret<Vec<u8>>, Error> {
        let response = Response { status, body: body.as_bytes().to_vec(), ..Response::default() };
        accepted(Hop::Sts, Ok(response), &Secret::new("SENT-TOKEN".to_owned()))
    }

    fn shown(status: u16, body: &str) -> String {
        match outcome(status, body).unwrap_err() {
            Error::Refused { code, description, .. } => format!("refused {code}: {description}"),
            Error::Unavailable { reason, .. } => format!("unavailable {reason}"),
            Error::Broken { reason, .. } => format!("broken {reason}"),
            Error::Throttled { .. } => "throttled".to_owned(),
            Error::Busy { .. } => "busy".to_owned(),
            Error::Stale => "stale".to_owned(),
        }
    }

    #[test]
    fn every_answer_has_its_error() {
        let condition = r#"{"error":"unauthorized_client","error_description":"The given credential is rejected by the attribute condition."}"#;
        let permission =
            r#"{"error":{"code":403,"message":"Permission denied.","status":"PERMISSION_DENIED","details":[]}}"#;
        let stale =
            r#"{"error":"invalid_grant","error_description":"ID Token issued at 1790000000 is stale to sign-in."}"#;
        for (status, body, expected) in [
            (
                400,
                condition,
                "refused unauthorized_client: The given credential is rejected by the attribute condition.",
            ),
            (403, permission, "refused PERMISSION_DENIED: Permission denied."),
            (401, permission, "refused PERMISSION_DENIED: Permission denied."),
            (400, stale, "stale"),
            (400, r#"{"error":"invalid_request"}"#, "refused invalid_request: "),
            (400, "<html>", "broken status 400 without an error in JSON"),
            (404, "{}", "broken status 404 without an error in JSON"),
            (429, condition, "throttled"),
            (408, condition, "unavailable status 408"),
            (500, "", "unavailable status 500"),
            (503, condition, "unavailable status 503"),
            (302, "", "broken status 302"),
            (204, "", "broken status 204"),
        ] {
            assert_eq!(shown(status, body), expected, "{status} {body}");
        }
        assert_eq!(outcome(200, "body").unwrap().expose(), b"body");
    }

    #[test]
    fn a_refusal_never_carries_a_token_or_a_control_character() {
        let long = "x".repeat(65);
        let body = serde_json::json!({
            "error": "invalid_grant\r\nforged: 1",
            "error_description": format!("The token SENT-TOKEN\u{1b}[31m, {long}, [eyJh.eyJi.c2ln{long}] and SENT-TOKEN\u{202e} failed\n"),
        });
        let text = shown(400, &body.to_string());
        assert_eq!(text, "refused invalid_grantforged1: The token …[31m, …, […] and … failed");
    }

    #[test]
    fn descriptions_are_cut_between_characters() {
        for text in ["word ".repeat(200), "ü ".repeat(400)] {
            let cut = harmless(&text, "");
            assert!(cut.len() <= MAX_DESCRIPTION_BYTES && cut.ends_with('…'), "{}", cut.len());
        }
        let whole = "ab ".repeat(166);
        assert_eq!(harmless(&whole, ""), whole);
    }

    #[test]
    fn no_answer_is_unavailable_and_half_an_answer_is_broken() {
        let host = || "sts:443".to_owned();
        let sent = Secret::new(String::new());
        for error in [
            http::Error::Unreachable { host: host(), source: "refused".into() },
            http::Error::Deadline { host: host(), deadline: Duration::from_secs(1) },
        ] {
            assert!(matches!(accepted(Hop::Sts, Err(error.into()), &sent), Err(Error::Unavailable { .. })));
        }
        for error in
            [http::Error::Broken { host: host(), source: "reset".into() }, http::Error::TooLarge { host: host() }]
        {
            assert!(matches!(accepted(Hop::Sts, Err(error.into()), &sent), Err(Error::Broken { .. })));
        }
    }

    #[test]
    fn tokens_are_visible_ascii_within_their_limit() {
        assert!(bearer(Hop::Sts, "y".repeat(MAX_TOKEN_BYTES), MAX_TOKEN_BYTES).is_ok());
        for bad in [String::new(), "y".repeat(MAX_TOKEN_BYTES + 1), "a b".into(), "a\r\nX: y".into(), "ü".into()] {
            assert!(matches!(bearer(Hop::Sts, bad, MAX_TOKEN_BYTES), Err(Error::Broken { .. })));
        }
    }

    proptest! {
        #[test]
        fn harmless_text_is_short_and_clean(text in "\\PC{0,40}|[a-z.]{60,70}|.{0,700}", secret in "[a-z]{0,3}") {
            let clean = harmless(&text, &secret);
            prop_assert!(clean.len() <= MAX_DESCRIPTION_BYTES);
            prop_assert!(!clean.chars().any(char::is_control));
        }
    }
}

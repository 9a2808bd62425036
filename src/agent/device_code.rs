//! The device authorization grant (RFC 8628) against Entra's v2.0 endpoints.
//!
//! The person signs in on any machine with a browser; this one asks, never more often than it was told to.

use super::settings::DeviceCode;
use super::{Error, HTTP_DEADLINE, Token};
use crate::federation::harmless;
use crate::http::{self, Client};
use crate::secret::Secret;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The grant's name (RFC 8628 §3.4).
const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// Between polls, when Entra names no interval (RFC 8628 §3.2).
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
/// What `slow_down` adds (RFC 8628 §3.5).
const SLOW_DOWN: Duration = Duration::from_secs(5);
/// The longest pause between polls.
const MAX_INTERVAL: Duration = Duration::from_secs(60);
/// The longest that a code is waited for, whatever Entra says; its own codes last 15 minutes.
const MAX_LIFETIME: Duration = Duration::from_secs(30 * 60);
/// Polls in a row without an answer before it is given up.
const MAX_UNANSWERED: u32 = 5;
const FROM: &str = "Entra";

/// What begins a sign-in. Google and old versions of Entra write `verification_url`.
#[derive(Deserialize)]
struct Begun {
    device_code: String,
    user_code: String,
    #[serde(alias = "verification_url")]
    verification_uri: String,
    expires_in: u64,
    interval: Option<u64>,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    error_description: String,
}

/// What a poll came to, when it did not end the sign-in.
enum Polled {
    Granted(Token),
    Pending,
    SlowDown,
    /// No answer, 429 or 5xx: it may pass.
    Unanswered(Error),
}

/// Tells the person what to do and waits until it is done.
pub(super) async fn token(http: &Client, device: &DeviceCode, tell: impl Fn(&str)) -> Result<Token, Error> {
    let begun = begin(http, device).await?;
    tell(&prompt(&begun));
    wait(http, device, &begun, sleep).await
}

fn prompt(begun: &Begun) -> String {
    let Begun { verification_uri, user_code, .. } = begun;
    format!("To sign in, open {verification_uri} in a browser and enter the code {user_code}")
}

async fn begin(http: &Client, device: &DeviceCode) -> Result<Begun, Error> {
    // `profile` has the person's name put into the token.
    let scope = format!("{} openid profile", device.scope);
    let form = [("client_id", device.client_id.as_str()), ("scope", scope.as_str())];
    let url = endpoint(device, "devicecode");
    let answer = http::with_retries(HTTP_DEADLINE, |left| http.post_form(&url, &form, left)).await;
    let answer = answer.map_err(Error::Unreachable)?;
    if answer.status != 200 {
        return Err(refused(answer.status, &answer.body));
    }
    let mut begun: Begun = parsed(&Secret::new(answer.body))?;
    // They go to a terminal.
    begun.user_code = harmless(&begun.user_code, "");
    begun.verification_uri = harmless(&begun.verification_uri, "");
    Ok(begun)
}

async fn wait(
    http: &Client,
    device: &DeviceCode,
    begun: &Begun,
    pause: impl AsyncFn(Duration),
) -> Result<Token, Error> {
    let end = Instant::now() + Duration::from_secs(begun.expires_in).min(MAX_LIFETIME);
    let mut interval = begun.interval.map_or(DEFAULT_INTERVAL, |seconds| Duration::from_secs(seconds.max(1)));
    let mut unanswered = 0;
    loop {
        interval = interval.min(MAX_INTERVAL);
        if Instant::now() + interval >= end {
            return Err(Error::CodeExpired);
        }
        pause(interval).await;
        match poll(http, device, begun).await? {
            Polled::Granted(token) => return Ok(token),
            Polled::Pending => unanswered = 0,
            Polled::SlowDown => (unanswered, interval) = (0, interval + SLOW_DOWN),
            // RFC 8628 §3.5: back off when there is no answer, for example by doubling the interval.
            Polled::Unanswered(_) if unanswered + 1 < MAX_UNANSWERED => {
                (unanswered, interval) = (unanswered + 1, interval * 2);
            }
            Polled::Unanswered(error) => return Err(error),
        }
    }
}

async fn poll(http: &Client, device: &DeviceCode, begun: &Begun) -> Result<Polled, Error> {
    let (client, code) = (device.client_id.as_str(), begun.device_code.as_str());
    let form = [("grant_type", GRANT), ("client_id", client), ("device_code", code)];
    let answer = match http.post_form(&endpoint(device, "token"), &form, HTTP_DEADLINE).await {
        Ok(answer) => answer,
        Err(error @ (http::Error::TooLarge { .. } | http::Error::SetUp(_))) => return Err(Error::Unreachable(error)),
        Err(error) => return Ok(Polled::Unanswered(Error::Unreachable(error))),
    };
    match answer.status {
        200 => {
            let granted: Granted = parsed(&Secret::new(answer.body))?;
            Token::parse(FROM, granted.access_token).map(Polled::Granted)
        }
        status @ (429 | 500..) => Ok(Polled::Unanswered(busy(status))),
        status => match refused(status, &answer.body) {
            Error::Refused { code, .. } if code == "authorization_pending" => Ok(Polled::Pending),
            Error::Refused { code, .. } if code == "slow_down" => Ok(Polled::SlowDown),
            final_answer => Err(final_answer),
        },
    }
}

fn endpoint(device: &DeviceCode, name: &str) -> String {
    format!("{}/{}/oauth2/v2.0/{name}", device.authority, device.tenant)
}

/// Entra's refusal. Its own word for a person who said no is `authorization_declined`; RFC 8628's is `access_denied`.
fn refused(status: u16, body: &[u8]) -> Error {
    let Ok(Refusal { error, error_description }) = serde_json::from_slice(body) else { return busy(status) };
    match error.as_str() {
        "authorization_declined" | "access_denied" => Error::Declined,
        "expired_token" => Error::CodeExpired,
        _ => Error::Refused {
            code: harmless(&error, ""),
            description: harmless(first_sentences(&error_description), ""),
        },
    }
}

/// Without the ids that only support needs.
fn first_sentences(description: &str) -> &str {
    description.split("Trace ID:").next().unwrap_or(description).trim_end()
}

fn busy(status: u16) -> Error {
    Error::Answer { from: FROM, reason: format!("status {status}") }
}

/// A parser's own reason could quote the token.
fn parsed<T: DeserializeOwned>(body: &Secret<Vec<u8>>) -> Result<T, Error> {
    serde_json::from_slice(body.expose())
        .map_err(|_| Error::Answer { from: FROM, reason: "a member is missing or no JSON".to_owned() })
}

#[cfg(test)]
mod tests;

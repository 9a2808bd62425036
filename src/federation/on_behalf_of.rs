//! Entra's On-Behalf-Of flow: a person's token for the proxy's API in, the same person's token for a second API out,
//! which nobody but the proxy's own app can get. Google's providers take that one, so that the token which callers hold
//! buys nothing there.
//!
//! `POST /{tenant}/oauth2/v2.0/token` (Microsoft identity platform, "OAuth 2.0 On-Behalf-Of flow"). "The OBO flow only
//! works for user principals": software has no such trade. It may be made twice: it changes nothing.

use super::answer::{accepted, bearer};
use super::client_credential::{ClientCredential, CredentialConfig};
use super::{AccessToken, Error, Hop};
use crate::http::{Again, Client, Service};
use crate::identity::{CallerKind, IdentityFacts, MAX_TOKEN_BYTES, VerifiedIdentity};
use crate::secret::Secret;
use crate::time::{Clock, later};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use std::time::Duration;

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// The longest life of a token (Entra: 60 to 90 minutes; up to 28 hours with continuous access evaluation).
const MAX_LIFE_SECONDS: u32 = 28 * 3600;

/// `[on_behalf_of.ISSUER]`: the trade for one issuer's people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnBehalfOfConfig {
    /// `https://login.microsoftonline.com/TENANT/oauth2/v2.0/token`
    pub token_endpoint: String,
    /// The proxy's own app: the audience of callers' tokens.
    pub client_id: String,
    /// What is asked for, such as `api://pgpassport-google/.default`.
    pub scope: String,
    /// `aud` of what is given: the second API, which no caller's token has.
    pub audience: String,
    /// How the app proves itself.
    pub credential: CredentialConfig,
}

/// Trades tokens.
#[derive(Debug)]
pub struct OnBehalfOf {
    config: OnBehalfOfConfig,
    credential: ClientCredential,
    http: Client,
    clock: Clock,
    deadline: Duration,
    service: Service,
}

#[derive(Deserialize)]
struct Answer {
    token_type: String,
    expires_in: u32,
    access_token: String,
}

/// What the second API's token must say; it is Google's to judge, and ours not to have got another one.
#[derive(Deserialize)]
struct Claims {
    aud: String,
    tid: String,
    oid: String,
    #[serde(alias = "appid")]
    azp: String,
}

impl OnBehalfOf {
    /// Reads the credential's files, asks for nothing. `deadlines`: the trade's, its retries included, and that of the
    /// managed identity's endpoint.
    pub fn new(
        config: OnBehalfOfConfig,
        http: Client,
        clock: Clock,
        (deadline, platform): (Duration, Duration),
    ) -> Result<Self, Error> {
        let credential = ClientCredential::load(config.credential.clone(), http.clone(), platform)?;
        let service = Service::new("Entra ID", Again::ServerErrors);
        Ok(Self { config, credential, http, clock, deadline, service })
    }

    /// Whether this caller's token is traded: a person's.
    pub(super) fn applies_to(caller: &IdentityFacts) -> bool {
        caller.kind == CallerKind::User
    }

    /// What decides what a trade gives, for the key of what is kept.
    pub(super) fn parts(&self) -> [&str; 4] {
        let OnBehalfOfConfig { token_endpoint, client_id, scope, audience, .. } = &self.config;
        [token_endpoint, client_id, scope, audience]
    }

    /// The same person's token for the second API.
    pub(super) async fn trade(&self, identity: &VerifiedIdentity) -> Result<AccessToken, Error> {
        let OnBehalfOfConfig { token_endpoint, client_id, scope, .. } = &self.config;
        let proof = self.credential.fields(&self.clock, client_id, token_endpoint).await?;
        let subject = identity.token();
        let mut form = vec![
            ("grant_type", GRANT_TYPE),
            ("client_id", client_id),
            ("assertion", subject.expose()),
            ("scope", scope),
            ("requested_token_use", "on_behalf_of"),
        ];
        form.extend(proof.iter().map(|(name, value)| (*name, value.expose().as_str())));
        // Before the call: a token must never be taken to live longer than it does.
        let asked_at = self.clock.now();
        let call = |left| self.http.post_form(token_endpoint, &form, left);
        // One tenant, one app: one quota.
        let outcome = self.service.call(token_endpoint, self.deadline, call).await;
        let body = accepted(Hop::OnBehalfOf, outcome, subject).map_err(|error| without(error, &proof))?;
        let (token, life) = self.read(body.expose(), identity.facts())?;
        Ok(AccessToken { token, expires_at: later(asked_at, life) })
    }

    fn read(&self, body: &[u8], caller: &IdentityFacts) -> Result<(Secret<String>, Duration), Error> {
        let answer: Answer = serde_json::from_slice(body).map_err(|_| broken("the answer is no token response"))?;
        let token = bearer(Hop::OnBehalfOf, answer.access_token, MAX_TOKEN_BYTES)?;
        if !answer.token_type.eq_ignore_ascii_case("Bearer") || !(1..=MAX_LIFE_SECONDS).contains(&answer.expires_in) {
            return Err(broken("the token is no bearer token, or its lifetime is out of range"));
        }
        let claims = claims(token.expose()).ok_or_else(|| broken("the second API's token cannot be read"))?;
        if claims.oid != caller.object_id || claims.tid != caller.tenant.as_str() {
            return Err(broken("the second API's token is another caller's"));
        }
        if claims.aud != self.config.audience || claims.azp != self.config.client_id {
            return Err(broken("the second API's token is for another audience, or another app's"));
        }
        Ok((token, Duration::from_secs(answer.expires_in.into())))
    }
}

/// What a token that came straight from Entra says.
fn claims(token: &str) -> Option<Claims> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&payload).ok()
}

fn broken(reason: &str) -> Error {
    Error::Broken { hop: Hop::OnBehalfOf, reason: reason.to_owned() }
}

/// Entra's words without the app's own proof.
fn without(error: Error, proof: &[(&str, Secret<String>)]) -> Error {
    match error {
        Error::Refused { hop, code, description } => {
            let description =
                proof.iter().fold(description, |text, (_, secret)| text.replace(secret.expose().as_str(), "…"));
            Error::Refused { hop, code, description }
        }
        other => other,
    }
}

#[cfg(test)]
#[path = "on_behalf_of_tests.rs"]
mod tests;

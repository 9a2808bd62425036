//! What every way of signing a person in has in common: the client, the scope, the tokens, and refreshing them.

use super::Entra;
use super::errors::{Refusal, Refuse};
use super::tokens::{Scope, id_token_spec};
use crate::sim::lock;
use crate::sim::token_spec::TokenSpec;
use crate::sim::world::{ANALYST, BYSTANDER, GUEST, OUTSIDER, Person, SIGN_IN_CLIENT, TRAINEE, Tenant};
use crate::time::{Timestamp, later};
use axum::Json;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;

/// Everybody in any directory.
pub(super) const PEOPLE: [Person; 5] = [ANALYST, BYSTANDER, TRAINEE, GUEST, OUTSIDER];
/// How long an unused refresh token lasts (Microsoft: 90 days).
const REFRESH_LIFETIME: Duration = Duration::from_secs(90 * 86_400);
/// Refresh tokens kept at a time; the simulator forgets all of them beyond.
const MAX_REFRESH: usize = 1000;

/// A person who signed in to a public client, for a scope.
#[derive(Debug, Clone)]
pub(super) struct SignIn {
    pub(super) tenant: Tenant,
    pub(super) person: Person,
    pub(super) client: String,
    pub(super) scope: Scope,
    /// Echoed in the ID token.
    pub(super) nonce: Option<String>,
}

/// What a refresh token stands for.
#[derive(Debug, Clone)]
pub(super) struct Refresh {
    sign_in: SignIn,
    expires_at: Timestamp,
}

/// The public client that a request names.
pub(super) fn public_client(
    refuse: Refuse,
    tenant: Tenant,
    form: &HashMap<String, String>,
) -> Result<&String, Refusal> {
    let client = form.get("client_id").ok_or_else(|| refuse.missing("client_id"))?;
    if client == SIGN_IN_CLIENT { Ok(client) } else { Err(refuse.client(client, tenant.domain)) }
}

/// The API that a person asks a token for.
pub(super) fn scope(refuse: Refuse, tenant: Tenant, asked: &str) -> Result<Scope, Refusal> {
    let scope = Scope::parse(asked).ok_or_else(|| {
        let text =
            format!("The provided request must include a 'scope' input parameter. The scope {asked} is not valid.");
        refuse.with(400, "invalid_scope", 70_011, &text)
    })?;
    if !scope.known() {
        return Err(refuse.resource(scope.resource(), tenant.domain));
    }
    if !scope.has_permission() {
        return Err(refuse.permission(scope.permission(), scope.resource()));
    }
    super::on_behalf_of::not_for_people(refuse, &scope)?;
    Ok(scope)
}

/// Answers `grant_type=refresh_token`: for the scope that is asked for, else for the one before. The token stays good
/// beside the new one (Microsoft, "Refresh tokens": an old one is not revoked when it is used).
pub(super) fn refresh(entra: &Entra, tenant: Tenant, form: &HashMap<String, String>) -> Result<Json<Value>, Refusal> {
    let refuse = Refuse::at(&entra.clock);
    let client = public_client(refuse, tenant, form)?;
    let token = form.get("refresh_token").ok_or_else(|| refuse.missing("refresh_token"))?;
    let invalid_grant = |code, text: &str| Err(refuse.with(400, "invalid_grant", code, text));
    let known = lock(&entra.refresh_tokens).get(token).cloned();
    let Some(known) = known.filter(|known| known.sign_in.client == *client && known.sign_in.tenant == tenant) else {
        return invalid_grant(9_002_313, "Invalid request. Request is malformed or invalid.");
    };
    if known.expires_at <= entra.clock.now() {
        return invalid_grant(700_082, "The refresh token has expired due to inactivity.");
    }
    let scope = match form.get("scope") {
        Some(asked) => scope(refuse, tenant, asked)?,
        None => known.sign_in.scope.clone(),
    };
    entra.signed_in(&SignIn { scope, nonce: None, ..known.sign_in }).map(Json)
}

impl Entra {
    /// The access token with the ID token and client info that Microsoft's libraries insist on, and a refresh token
    /// where `offline_access` was asked for.
    pub(super) fn signed_in(&self, sign_in: &SignIn) -> Result<Value, Refusal> {
        let SignIn { tenant, person, client, scope, nonce } = sign_in;
        let mut answer = self.grant(TokenSpec::person(person), scope)?;
        let spec = id_token_spec(TokenSpec::person(person), client, *tenant).claim("nonce", nonce.clone());
        let refuse = Refuse::at(&self.clock);
        let id_token =
            self.mint(&spec).map_err(|error| refuse.with(500, "server_error", 90_033, &error.to_string()))?;
        let client_info = json!({ "uid": person.object_id, "utid": person.tenant.id });
        if let Some(members) = answer.as_object_mut() {
            members.insert("id_token".to_owned(), id_token.expose().as_str().into());
            members.insert("client_info".to_owned(), URL_SAFE_NO_PAD.encode(client_info.to_string()).into());
            if scope.offline() {
                members.insert("refresh_token".to_owned(), self.remember(sign_in.clone()).into());
            }
        }
        Ok(answer)
    }

    fn remember(&self, sign_in: SignIn) -> String {
        let token = format!("1.{0}{0}{0}{0}", uuid::Uuid::new_v4().simple());
        let mut tokens = lock(&self.refresh_tokens);
        if tokens.len() >= MAX_REFRESH {
            tokens.clear();
        }
        let expires_at = later(self.clock.now(), REFRESH_LIFETIME);
        tokens.insert(token.clone(), Refresh { sign_in, expires_at });
        token
    }
}

//! The On-Behalf-Of grant: a person's token for the proxy's API, and the proxy's own proof, for a token of the second
//! API. Nobody else was given the right to ask for that one.
//!
//! Source: Microsoft identity platform, "OAuth 2.0 On-Behalf-Of flow", and "error codes" for the numbers; the HTTP
//! statuses and some texts are assumptions.

use super::client_credentials::{JWT_BEARER, federated, wrong_secret};
use super::errors::{Refusal, Refuse};
use super::tokens::Scope;
use super::{Entra, read};
use crate::sim::lock;
use crate::sim::token_spec::TokenSpec;
use crate::sim::world::{
    CONTOSO, PROXY_API, PROXY_API_URI, PROXY_APP, SECOND_API, SECOND_API_URI, SIGN_IN_CLIENT, Tenant,
};
use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
use axum::Json;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::collections::HashMap;

/// A certificate that is registered with the proxy's app.
#[derive(Debug)]
pub(in crate::sim) struct Registered {
    /// Base64url of the certificate's SHA-256.
    pub(in crate::sim) thumbprint: String,
    /// The public key (PKCS#1).
    pub(in crate::sim) public: Vec<u8>,
}

/// What Entra answers to a trade, whatever is asked: `error` and its number.
pub(in crate::sim) type Ordered = Option<(&'static str, u32)>;

/// Answers `grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer`.
pub(super) fn token(entra: &Entra, tenant: Tenant, form: &HashMap<String, String>) -> Result<Json<Value>, Refusal> {
    let refuse = Refuse::at(&entra.clock);
    let field = |name: &'static str| form.get(name).ok_or_else(|| refuse.missing(name));
    let client = field("client_id")?;
    if client != PROXY_API || tenant != CONTOSO {
        return Err(refuse.client(client, tenant.domain));
    }
    entra.proven(refuse, form)?;
    if field("requested_token_use")? != "on_behalf_of" {
        let text = "The request is malformed: 'requested_token_use' must be 'on_behalf_of'.";
        return Err(refuse.with(400, "invalid_request", 9_002_313, text));
    }
    if let Some((error, code)) = *lock(&entra.on_behalf_of_ordered) {
        let refusal = refuse.with(400, error, code, "What a test has ordered.");
        let claims = json!({ "access_token": { "acrs": { "essential": true, "value": "c1" } } }).to_string();
        return Err(if error == "interaction_required" { refusal.member("claims", claims) } else { refusal });
    }
    let person = entra.asserted(refuse, field("assertion")?)?;
    let asked = field("scope")?;
    let scope = Scope::parse(asked).filter(|scope| !asked.contains(' ') && scope.is_default());
    let Some(scope) = scope else {
        return Err(refuse.with(
            400,
            "invalid_scope",
            70_011,
            "The provided value for the input parameter 'scope' isn't valid.",
        ));
    };
    if ![SECOND_API, SECOND_API_URI].contains(&scope.resource()) {
        return Err(if scope.known() {
            no_consent(refuse, PROXY_API)
        } else {
            refuse.resource(scope.resource(), tenant.domain)
        });
    }
    let spec = person.claim("azp", PROXY_API).claim("azpacr", "1").claim("scp", "login");
    entra.grant(spec, &scope).map(Json)
}

/// Nobody has agreed to that app's asking for that API.
pub(super) fn no_consent(refuse: Refuse, client: &str) -> Refusal {
    let text = format!(
        "The user or administrator has not consented to use the application with ID '{client}'. Send an interactive \
         authorization request for this user and resource."
    );
    refuse.with(400, "invalid_grant", 65_001, &text)
}

/// The second API is asked for by the proxy's app alone: people's sign-in client has no permission there.
pub(super) fn not_for_people(refuse: Refuse, scope: &Scope) -> Result<(), Refusal> {
    let second = [SECOND_API, SECOND_API_URI].contains(&scope.resource());
    if second { Err(no_consent(refuse, SIGN_IN_CLIENT)) } else { Ok(()) }
}

impl Entra {
    /// Registers a certificate with the proxy's app, in place of the one before.
    pub(in crate::sim) fn register_certificate(&self, registered: Registered) {
        *lock(&self.registered) = Some(registered);
    }

    /// From now on every trade is answered so.
    pub(in crate::sim) fn order_on_behalf_of(&self, ordered: Ordered) {
        *lock(&self.on_behalf_of_ordered) = ordered;
    }

    /// Whether the proxy's app has proven itself.
    fn proven(&self, refuse: Refuse, form: &HashMap<String, String>) -> Result<(), Refusal> {
        match (form.get("client_secret"), form.get("client_assertion")) {
            (Some(secret), _) if secret == PROXY_APP.secret => Ok(()),
            (Some(_), _) => Err(wrong_secret(refuse, &PROXY_APP)),
            (None, Some(assertion)) => {
                if form.get("client_assertion_type").map(String::as_str) != Some(JWT_BEARER) {
                    return Err(refuse.missing("client_assertion_type"));
                }
                match read(assertion) {
                    Some((header, claims)) if header.contains_key("x5t#S256") => {
                        let aimed = claims.get("aud").and_then(Value::as_str) == Some(&self.token_endpoint());
                        let times = |name: &str| claims.get(name).and_then(Value::as_i64).unwrap_or_default();
                        let now = self.clock.now().as_second();
                        let own = |name: &str| claims.get(name).and_then(Value::as_str) == Some(PROXY_API);
                        let living = (times("nbf")..times("exp")).contains(&now) && times("exp") - times("nbf") <= 600;
                        if !aimed || !living || !own("iss") || !own("sub") || !self.signed_by_registered(assertion) {
                            let text = "Client assertion failed signature validation.";
                            return Err(refuse.with(401, "invalid_client", 700_027, text));
                        }
                        Ok(())
                    }
                    _ => federated(self, &PROXY_APP, assertion),
                }
            }
            (None, None) => {
                let text =
                    "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.";
                Err(refuse.with(401, "invalid_client", 7_000_218, text))
            }
        }
    }

    fn token_endpoint(&self) -> String {
        format!("{}/{}/oauth2/v2.0/token", self.base, CONTOSO.id)
    }

    fn signed_by_registered(&self, assertion: &str) -> bool {
        let registered = lock(&self.registered);
        let Some((registered, (header, _))) = registered.as_ref().zip(read(assertion)) else { return false };
        let text = |name: &str| header.get(name).and_then(Value::as_str).unwrap_or_default();
        let Some((input, signature)) = assertion.rsplit_once('.') else { return false };
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
        let key = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, &registered.public);
        text("alg") == "PS256"
            && text("x5t#S256") == registered.thumbprint
            && key.verify(input.as_bytes(), &signature).is_ok()
    }

    /// The person that a token for the proxy's API speaks for.
    fn asserted(&self, refuse: Refuse, assertion: &str) -> Result<TokenSpec, Refusal> {
        let invalid = |code, text: &str| Err(refuse.with(400, "invalid_grant", code, text));
        let Some((_, claims)) = read(assertion) else {
            return invalid(50_013, "Assertion failed signature validation.");
        };
        let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
        if ![PROXY_API, PROXY_API_URI].contains(&text("aud")) {
            return invalid(500_131, "Assertion audience does not match the Client app presenting the assertion.");
        }
        if !self.signed(CONTOSO, assertion) || text("tid") != CONTOSO.id {
            return invalid(50_013, "Assertion failed signature validation.");
        }
        let time = |name: &str| claims.get(name).and_then(Value::as_i64).unwrap_or_default();
        if !(time("nbf")..time("exp")).contains(&self.clock.now().as_second()) {
            return invalid(500_133, "Assertion is not within its valid time range.");
        }
        let person = super::people::PEOPLE.into_iter().find(|person| person.object_id == text("oid"));
        if let Some(person) = person.filter(|_| !text("scp").is_empty()) {
            return Ok(TokenSpec::person(&person));
        }
        let text = format!("Application '{}' is not allowed to make application on-behalf-of calls.", text("azp"));
        invalid(7_000_114, &text)
    }
}

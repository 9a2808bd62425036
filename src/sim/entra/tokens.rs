//! Access tokens as Entra mints them, and as nobody should accept them.

use super::keys::{Members, SigningKey, signing_input};
use super::{Entra, errors};
use crate::secret::Secret;
use crate::sim::Error;
use crate::sim::certs::failed;
use crate::sim::token_spec::{Signing, TokenSpec, Version};
use crate::sim::world::{ASSIGNED_API, ASSIGNED_API_URI, PROXY_API, PROXY_API_URI, SECOND_API, SECOND_API_URI, Tenant};
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Microsoft Graph, whose tokens only Graph can check.
const GRAPH: &str = "https://graph.microsoft.com";
/// The delegated permission that the simulated APIs have, and people's tokens carry in `scp`.
const PERMISSION: &str = "access_as_user";
/// Shortest lifetime of an access token, in seconds (Microsoft: random between 60 and 90 minutes).
const SHORTEST_LIFETIME: i64 = 3600;
/// Longest lifetime beyond the shortest, in seconds.
const LIFETIME_SPREAD: i64 = 1800;

impl Entra {
    /// Mints whatever `spec` says.
    pub(in crate::sim) fn mint(&self, spec: &TokenSpec) -> Result<Secret<String>, Error> {
        let keys = self.published(match spec.signing {
            Signing::KeyOf(tenant) => tenant,
            _ => spec.tenant,
        });
        let published = keys.first().ok_or_else(|| failed("a token", "the tenant has no keys"))?;
        let header = header(spec, published, &self.rogue()?.kid);
        // Once: a second may begin between two looks at the clock, and the signature would cover another `iat`.
        let claims = self.claims(spec);
        let input = signing_input(&header, &claims);
        // A Graph token's signature covers the nonce's SHA-256, while the header shows the nonce itself.
        let covered = signing_input(&hashed_nonce(&header), &claims);
        let signature = match spec.signing {
            Signing::Published | Signing::KeyOf(_) => published.sign(covered.as_bytes())?,
            Signing::UnknownKey | Signing::WrongKey => self.rogue()?.sign(covered.as_bytes())?,
            Signing::None => String::new(),
            Signing::Hs256WithPublicKey => published.confuse(covered.as_bytes()),
        };
        Ok(Secret::new(format!("{input}.{signature}")))
    }

    fn rogue(&self) -> Result<&SigningKey, Error> {
        if self.rogue.get().is_none() {
            let _ = self.rogue.set(SigningKey::generate()?);
        }
        self.rogue.get().ok_or_else(|| failed("a token", "no key"))
    }

    fn claims(&self, spec: &TokenSpec) -> Members {
        let issued = self.clock.now().as_second() - spec.age;
        let mut claims = Map::new();
        let mut claim = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        claim("iat", issued.into());
        claim("nbf", issued.into());
        claim("exp", (issued + spec.lifetime).into());
        // One id per token; derived, so that signing twice covers the same bytes.
        claim("uti", spec.id.simple().to_string().into());
        claim("aio", "ASQA2/8aAAAA".into());
        claim("rh", "1.AAAA".into());
        match spec.version {
            Version::V1 => {
                claim("iss", self.issuer_v1(spec.tenant).into());
                claim("ver", "1.0".into());
            }
            Version::V2 => {
                claim("iss", self.issuer_v2(spec.tenant).into());
                claim("ver", "2.0".into());
            }
        }
        for (name, value) in &spec.claims {
            let name = match (spec.version, name.as_str()) {
                (Version::V1, "azp") => "appid",
                (Version::V1, "azpacr") => "appidacr",
                (_, name) => name,
            };
            claims.insert(name.to_owned(), value.clone());
        }
        claims.retain(|_, value| !value.is_null());
        claims
    }

    /// The answer of the token endpoint: the token minted from `spec`, for the resource that `scope` names.
    pub(super) fn grant(&self, spec: TokenSpec, scope: &Scope) -> Result<Value, errors::Refusal> {
        let lifetime = random_lifetime();
        let spec = scope.aim(spec).lifetime(lifetime);
        let refuse = errors::Refuse::at(&self.clock);
        let token = self.mint(&spec).map_err(|error| refuse.with(500, "server_error", 90_033, &error.to_string()))?;
        Ok(json!({
            "token_type": "Bearer", "scope": scope.granted(), "expires_in": lifetime, "ext_expires_in": lifetime,
            "access_token": token.expose(),
        }))
    }
}

/// The API that a request's `scope` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    resource: String,
    permission: String,
    offline: bool,
}

impl Scope {
    /// The first scope of a resource: `api://…/.default`, `GUID/permission`; `openid` and its like are not one.
    pub(super) fn parse(scope: &str) -> Option<Self> {
        let of_resource = scope.split(' ').find(|one| one.contains('/'))?;
        let (resource, permission) = of_resource.rsplit_once('/')?;
        // A v1 resource with a trailing slash gives `resource//.default`.
        Some(Self {
            resource: resource.trim_end_matches('/').to_owned(),
            permission: permission.to_owned(),
            offline: scope.split(' ').any(|one| one == "offline_access"),
        })
    }

    /// What the person agreed to must cover what is redeemed.
    pub(super) fn covers(&self, refuse: errors::Refuse, asked: &Self) -> Result<(), errors::Refusal> {
        if asked.resource == self.resource {
            return Ok(());
        }
        let text = "The request was denied because one or more scopes requested are unauthorized or expired. The user \
                    must first sign in and grant the client application access to the requested scope.";
        Err(refuse.with(400, "invalid_grant", 70_000, text))
    }

    /// Whether the resource has the permission: an API its one scope, Graph any (it has hundreds).
    pub(super) fn has_permission(&self) -> bool {
        self.is_default() || self.resource == GRAPH || self.permission == PERMISSION
    }

    /// The permission as asked for.
    pub(super) fn permission(&self) -> &str {
        &self.permission
    }

    /// Whether the tenant knows the resource.
    pub(super) fn known(&self) -> bool {
        [PROXY_API, PROXY_API_URI, SECOND_API, SECOND_API_URI, ASSIGNED_API_URI, GRAPH]
            .contains(&self.resource.as_str())
    }

    /// Whether it is `…/.default`.
    pub(super) fn is_default(&self) -> bool {
        self.permission == ".default"
    }

    /// Whether `offline_access` was asked for: a refresh token.
    pub(super) fn offline(&self) -> bool {
        self.offline
    }

    /// The resource as asked for.
    pub(super) fn resource(&self) -> &str {
        &self.resource
    }

    fn granted(&self) -> String {
        format!("{}/{}", self.resource, self.permission)
    }

    fn aim(&self, spec: TokenSpec) -> TokenSpec {
        match self.resource.as_str() {
            GRAPH => spec.audience(GRAPH).version(Version::V1).header("nonce", "q8Xv1nJ7aZ0"),
            ASSIGNED_API_URI => spec.audience(ASSIGNED_API),
            SECOND_API | SECOND_API_URI => spec.audience(SECOND_API),
            _ => spec,
        }
    }
}

fn header(spec: &TokenSpec, published: &Arc<SigningKey>, rogue: &str) -> Members {
    let kid = if spec.signing == Signing::UnknownKey { rogue } else { published.kid.as_str() };
    let alg = match spec.signing {
        Signing::None => "none",
        Signing::Hs256WithPublicKey => "HS256",
        _ => "RS256",
    };
    let mut header = Map::new();
    header.insert("typ".to_owned(), "JWT".into());
    header.insert("alg".to_owned(), alg.into());
    header.insert("kid".to_owned(), kid.into());
    if spec.version == Version::V1 {
        header.insert("x5t".to_owned(), kid.into());
    }
    header.extend(spec.header.clone());
    header.retain(|_, value| !value.is_null());
    header
}

pub(super) fn hashed_nonce(header: &Members) -> Members {
    let mut covered = header.clone();
    if let Some(nonce) = header.get("nonce").and_then(Value::as_str) {
        let hash = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, nonce.as_bytes()));
        covered.insert("nonce".to_owned(), hash.into());
    }
    covered
}

fn random_lifetime() -> i64 {
    let random = i64::from(uuid::Uuid::new_v4().as_bytes()[0]);
    SHORTEST_LIFETIME + random * LIFETIME_SPREAD / 255
}

/// The claims of a signed-in person's ID token.
pub(super) fn id_token_spec(spec: TokenSpec, client: &str, tenant: Tenant) -> TokenSpec {
    let spec = spec.audience(client).claim("tid", tenant.id);
    ["scp", "azp", "azpacr", "acct", "groups", "idp", "idtyp"].into_iter().fold(spec, TokenSpec::without)
}

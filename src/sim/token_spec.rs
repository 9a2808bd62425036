//! What a minted token shall say, right or wrong.

use super::world::{App, CONTOSO, ManagedIdentity, PROXY_API, Person, Tenant};
use serde_json::{Map, Value};

/// Where Azure Resource Manager keeps the user-assigned identities of the simulated subscription.
const IDENTITIES: &str = "/subscriptions/0a1b2c3d-4e5f-4061-8728-394a5b6c7d0e/resourcegroups/orders/providers/\
                          Microsoft.ManagedIdentity/userAssignedIdentities";

/// How a minted token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signing {
    /// RS256 with the tenant's published key.
    Published,
    /// RS256 with a key that nobody publishes, under a `kid` of its own.
    UnknownKey,
    /// RS256 with an unpublished key under the published key's `kid`.
    WrongKey,
    /// RS256 with another tenant's published key, under that key's `kid`.
    KeyOf(Tenant),
    /// `alg` is `none`, the signature is empty.
    None,
    /// `alg` is HS256, keyed with the published public key (PEM), the classic confusion.
    Hs256WithPublicKey,
}

/// Access token version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `https://sts.windows.net/{tid}/` in Azure.
    V1,
    /// `https://login.microsoftonline.com/{tid}/v2.0` in Azure.
    V2,
}

/// A token to mint: right unless told otherwise.
#[derive(Debug, Clone)]
pub struct TokenSpec {
    pub(super) tenant: Tenant,
    pub(super) version: Version,
    pub(super) claims: Map<String, Value>,
    pub(super) header: Map<String, Value>,
    pub(super) signing: Signing,
    pub(super) age: i64,
    pub(super) lifetime: i64,
    pub(super) id: uuid::Uuid,
}

impl TokenSpec {
    /// A person's delegated token for the proxy's API, as device code gives it.
    pub fn person(person: &Person) -> Self {
        let mut claims = Map::new();
        let mut claim = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        claim("oid", person.object_id.into());
        claim("sub", format!("pairwise-{}", person.object_id).into());
        claim("upn", person.upn.into());
        claim("preferred_username", person.upn.into());
        claim("name", person.upn.split('@').next().unwrap_or_default().into());
        claim("scp", "access_as_user".into());
        claim("idtyp", "user".into());
        claim("azp", super::world::SIGN_IN_CLIENT.into());
        claim("azpacr", "0".into());
        claim("acct", u8::from(person.guest_of.is_some()).into());
        if !person.groups.is_empty() {
            claim("groups", person.groups.into());
        }
        if let Some(idp) = person.guest_of {
            claim("idp", idp.into());
            claim("email", "visitor@fabrikam.example".into());
        }
        Self::new(person.tenant, claims)
    }

    /// An app's own token for the proxy's API, as client credentials give it.
    pub fn app(app: &App) -> Self {
        let mut claims = Map::new();
        let mut claim = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        claim("oid", app.object_id.into());
        claim("sub", app.object_id.into());
        claim("azp", app.client_id.into());
        claim("azpacr", "1".into());
        claim("idtyp", "app".into());
        if !app.roles.is_empty() {
            claim("roles", app.roles.into());
        }
        Self::new(app.tenant, claims)
    }

    /// A managed identity's token for the proxy's API, as the platform's endpoint gives it.
    pub fn managed_identity(identity: &ManagedIdentity) -> Self {
        let mut claims = Map::new();
        let mut claim = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        claim("oid", identity.object_id.into());
        claim("sub", identity.object_id.into());
        claim("azp", identity.client_id.into());
        claim("azpacr", "2".into());
        claim("idtyp", "app".into());
        claim("xms_mirid", format!("{IDENTITIES}/{}", identity.name).into());
        Self::new(CONTOSO, claims)
    }

    fn new(tenant: Tenant, mut claims: Map<String, Value>) -> Self {
        claims.insert("tid".to_owned(), tenant.id.into());
        claims.insert("aud".to_owned(), PROXY_API.into());
        Self {
            tenant,
            version: Version::V2,
            claims,
            header: Map::new(),
            signing: Signing::Published,
            age: 0,
            lifetime: 4500,
            id: uuid::Uuid::new_v4(),
        }
    }

    /// For another audience.
    #[must_use]
    pub fn audience(self, audience: &str) -> Self {
        self.claim("aud", audience)
    }

    /// With this claim, in place of the one that was there; `iss`, `iat`, `nbf`, `exp` and `ver` too.
    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Without this claim.
    #[must_use]
    pub fn without(self, name: &str) -> Self {
        self.claim(name, Value::Null)
    }

    /// With this JOSE header member (`nonce`: a Microsoft Graph token; `crit`; `jku`…); null takes one out.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    /// Signed otherwise.
    #[must_use]
    pub fn signing(mut self, signing: Signing) -> Self {
        self.signing = signing;
        self
    }

    /// Of the other version: issuer, `ver`, and `appid` for `azp`.
    #[must_use]
    pub fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// Issued this many seconds ago (negative: in the future).
    #[must_use]
    pub fn issued_ago(mut self, seconds: i64) -> Self {
        self.age = seconds;
        self
    }

    /// Ends this many seconds after it was issued.
    #[must_use]
    pub fn lifetime(mut self, seconds: i64) -> Self {
        self.lifetime = seconds;
        self
    }

    /// Issued two hours ago and ended 45 minutes ago.
    #[must_use]
    pub fn expired(self) -> Self {
        self.issued_ago(7200).lifetime(4500)
    }
}

//! The vocabulary: names parsed once at the edge, trusted from there on.
//!
//! Every type here is made by its `parse` (or `FromStr`), which says why it refuses.

mod network;

pub use network::Network;
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// `PostgreSQL` truncates identifiers to this many bytes (`NAMEDATALEN - 1`, `pg_config_manual.h`).
pub const MAX_IDENTIFIER_BYTES: usize = 63;

/// Why a string is not such a name. `Display` is a clause: "is empty", "has …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing is there.
    #[error("is empty")]
    Empty,
    /// `PostgreSQL` would truncate it into another name.
    #[error("is {0} bytes long; PostgreSQL names end at {MAX_IDENTIFIER_BYTES}")]
    TooLong(usize),
    /// Control characters could forge log lines.
    #[error("has a control character")]
    ControlCharacter,
    /// Not valid UTF-8.
    #[error("is not valid UTF-8")]
    NotUtf8,
    /// The shape is another one.
    #[error("is not {0}")]
    Shape(&'static str),
}

/// Defines a newtype over a checked string with the usual conversions.
macro_rules! string_name {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Checks and wraps a name.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                $check(text)?;
                Ok(Self(text.to_owned()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}

string_name!(
    /// A database as the config calls it (`[database.NAME]`) and as clients ask for it.
    DatabaseAlias, identifier
);
string_name!(
    /// A database as the instance calls it.
    DatabaseName, identifier
);
string_name!(
    /// A database user (`PostgreSQL` role) as the instance sees it.
    RoleName, identifier
);
string_name!(
    /// A rule of the policy, as the config calls it.
    RuleName, label
);
string_name!(
    /// A token issuer, as the config calls it (`[issuer.NAME]`).
    IssuerName, label
);
string_name!(
    /// Whose directory a caller is in: an Entra tenant's id, or the name that the config gives to another issuer's.
    Tenant, identifier
);
string_name!(
    /// A Google service account's e-mail address.
    ServiceAccount, service_account
);
string_name!(
    /// An STS audience: the full resource name of a workload or workforce pool provider.
    Provider, provider
);

impl ServiceAccount {
    /// The database user Cloud SQL gives this account: its e-mail without `.gserviceaccount.com`
    /// (facts: Cloud SQL IAM authentication, usernames on `PostgreSQL`).
    pub fn database_user(&self) -> Result<RoleName, NameError> {
        RoleName::parse(self.0.strip_suffix(".gserviceaccount.com").unwrap_or(&self.0))
    }

    /// The project that the account is of, `projects/ID`, or the account itself where its name does not say one.
    pub fn quota(&self) -> String {
        let domain = self.0.split_once('@').map_or("", |(_, domain)| domain);
        match domain.split_once(".iam.") {
            Some((project, _)) => format!("projects/{project}"),
            None => self.0.clone(),
        }
    }
}

impl Provider {
    /// What Google counts exchanges on (IAM, "Quotas and limits"): a workload pool's project; a workforce pool's
    /// organisation, which the name does not say, so that the pool stands for it.
    pub fn quota(&self) -> &str {
        let pool = if self.is_workforce() { "/providers/" } else { "/locations/" };
        self.0.split_once(pool).map_or(&self.0, |(before, _)| before)
    }

    /// The universe that it names: `googleapis.com`, or the domain of another.
    pub fn universe(&self) -> &str {
        let domain = self.0.strip_prefix("//iam.").and_then(|rest| rest.split_once('/'));
        domain.map_or("", |(domain, _)| domain)
    }

    /// Whether the provider stands in a workforce pool (people) rather than a workload pool (software).
    pub fn is_workforce(&self) -> bool {
        self.0.contains("/locations/global/workforcePools/")
    }
}

/// A Cloud SQL instance's connection name, `PROJECT:REGION:INSTANCE`; a domain-scoped project keeps
/// its own colon (`example.com:project:region:instance`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceName {
    project: String,
    region: String,
    instance: String,
}

impl InstanceName {
    /// Splits and checks a connection name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        const SHAPE: NameError = NameError::Shape("PROJECT:REGION:INSTANCE");
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > 255 || !text.chars().all(allowed) {
            return Err(SHAPE);
        }
        let mut parts = text.rsplitn(3, ':');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(instance), Some(region), Some(project))
                if !instance.is_empty()
                    && !region.is_empty()
                    && !project.starts_with(':')
                    && !project.ends_with(':')
                    && !project.is_empty()
                    && project.matches(':').count() <= 1 =>
            {
                Ok(Self { project: project.to_owned(), region: region.to_owned(), instance: instance.to_owned() })
            }
            _ => Err(SHAPE),
        }
    }

    /// The project id, with its domain if it has one.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// The region the instance must report.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The instance's own id.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// `project:instance`: the common name of the instance's legacy server certificate.
    pub fn certificate_name(&self) -> String {
        format!("{}:{}", self.project, self.instance)
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.project, self.region, self.instance)
    }
}

impl serde::Serialize for InstanceName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An Entra tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct TenantId(Uuid);

impl TenantId {
    /// Reads a GUID in its hyphenated form.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        hyphenated(text).map(Self)
    }
}

impl From<TenantId> for Tenant {
    fn from(id: TenantId) -> Self {
        Self(id.to_string())
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.hyphenated())
    }
}

/// One client session, from accept to close. Time-ordered (UUID version 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct SessionId(Uuid);

impl SessionId {
    /// Length of its text.
    pub const TEXT_BYTES: usize = uuid::fmt::Hyphenated::LENGTH;

    /// A fresh id. It is also the correlation id a refused client is told.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// Its text, without a formatter: records have it three times each.
    pub fn encode(self, text: &mut [u8; Self::TEXT_BYTES]) -> &str {
        self.0.hyphenated().encode_lower(text)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.hyphenated())
    }
}

fn hyphenated(text: &str) -> Result<Uuid, NameError> {
    let id = Uuid::try_parse(text).map_err(|_| NameError::Shape("a GUID"))?;
    if text.len() == 36 { Ok(id) } else { Err(NameError::Shape("a hyphenated GUID")) }
}

fn identifier(text: &str) -> Result<(), NameError> {
    label(text)?;
    if text.len() > MAX_IDENTIFIER_BYTES {
        return Err(NameError::TooLong(text.len()));
    }
    Ok(())
}

fn label(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        Err(NameError::Empty)
    } else if text.chars().any(char::is_control) {
        Err(NameError::ControlCharacter)
    } else {
        Ok(())
    }
}

fn service_account(text: &str) -> Result<(), NameError> {
    const SHAPE: NameError = NameError::Shape("a service account's e-mail (…gserviceaccount.com)");
    label(text)?;
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | '@' | ':');
    match text.split_once('@') {
        Some((account, domain))
            if !account.is_empty() && domain.ends_with(".gserviceaccount.com") && text.chars().all(allowed) =>
        {
            Ok(())
        }
        _ => Err(SHAPE),
    }
}

fn provider(text: &str) -> Result<(), NameError> {
    const SHAPE: NameError = NameError::Shape(
        "//iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER \
         or //iam.googleapis.com/locations/global/workforcePools/POOL/providers/PROVIDER",
    );
    let segment =
        |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    let (domain, path) = text.strip_prefix("//iam.").and_then(|rest| rest.split_once('/')).ok_or(SHAPE)?;
    let label = |s: &str| segment(s) && !s.starts_with('-');
    if !domain.contains('.') || !domain.split('.').all(label) {
        return Err(SHAPE);
    }
    let parts: Vec<&str> = path.split('/').collect();
    let shaped = match parts.as_slice() {
        ["projects", number, "locations", "global", "workloadIdentityPools", pool, "providers", provider] => {
            number.chars().all(|c| c.is_ascii_digit()) && segment(number) && segment(pool) && segment(provider)
        }
        ["locations", "global", "workforcePools", pool, "providers", provider] => segment(pool) && segment(provider),
        _ => false,
    };
    if shaped { Ok(()) } else { Err(SHAPE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_names_split_and_refuse() {
        let plain = InstanceName::parse("demo-project:europe-west1:orders").unwrap();
        assert_eq!((plain.project(), plain.region(), plain.instance()), ("demo-project", "europe-west1", "orders"));
        assert_eq!(plain.certificate_name(), "demo-project:orders");
        let scoped = InstanceName::parse("contoso.example:demo:europe-west1:orders").unwrap();
        assert_eq!(scoped.project(), "contoso.example:demo");
        for bad in ["", "a:b", "a::c", ":b:c", "a:b:", "a:b:c:d:e", "a:b:c/d", "a b:c:d"] {
            assert!(InstanceName::parse(bad).is_err(), "{bad} must be refused");
        }
    }

    #[test]
    fn identifiers_that_postgresql_would_truncate_are_refused() {
        assert!(RoleName::parse(&"a".repeat(63)).is_ok());
        assert_eq!(RoleName::parse(&"a".repeat(64)), Err(NameError::TooLong(64)));
        assert_eq!(RoleName::parse("a\nb"), Err(NameError::ControlCharacter));
        assert_eq!(RoleName::parse(""), Err(NameError::Empty));
    }

    #[test]
    fn a_service_account_logs_in_without_its_suffix() {
        let account = ServiceAccount::parse("orders-app@demo-project.iam.gserviceaccount.com").unwrap();
        assert_eq!(account.database_user().unwrap().as_str(), "orders-app@demo-project.iam");
        for bad in ["orders-app", "orders-app@demo-project.iam", "@x.gserviceaccount.com", "a/b@x.gserviceaccount.com"]
        {
            assert!(ServiceAccount::parse(bad).is_err(), "{bad} must be refused");
        }
    }

    #[test]
    fn providers_are_full_resource_names() {
        let workload =
            "//iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/entra/providers/contoso";
        let workforce = "//iam.googleapis.com/locations/global/workforcePools/entra/providers/contoso";
        assert!(!Provider::parse(workload).unwrap().is_workforce());
        assert!(Provider::parse(workforce).unwrap().is_workforce());
        assert_eq!(Provider::parse(workforce).unwrap().universe(), "googleapis.com");
        let elsewhere = "//iam.apis.contoso.example/locations/global/workforcePools/entra/providers/contoso";
        assert_eq!(Provider::parse(elsewhere).unwrap().universe(), "apis.contoso.example");
        assert_eq!(Provider::parse(workload).unwrap().quota(), "//iam.googleapis.com/projects/123");
        let pool = "//iam.googleapis.com/locations/global/workforcePools/entra";
        assert_eq!(Provider::parse(workforce).unwrap().quota(), pool);
        for (account, quota) in [
            ("orders@demo.iam.gserviceaccount.com", "projects/demo"),
            ("orders@demo.example.com.iam.gserviceaccount.com", "projects/demo.example.com"),
            ("1-compute@developer.gserviceaccount.com", "1-compute@developer.gserviceaccount.com"),
        ] {
            assert_eq!(ServiceAccount::parse(account).unwrap().quota(), quota);
        }
        for bad in [
            "//iam.googleapis.com/projects/x/locations/global",
            "//iam.com/locations/global/workforcePools/entra/providers/contoso",
            "//iam./locations/global/workforcePools/entra/providers/contoso",
            "//iam.-x.com/locations/global/workforcePools/entra/providers/contoso",
            "//iam.a b.com/locations/global/workforcePools/entra/providers/contoso",
            "//googleapis.com/locations/global/workforcePools/entra/providers/contoso",
        ] {
            assert!(Provider::parse(bad).is_err(), "{bad} must be refused");
        }
    }
}

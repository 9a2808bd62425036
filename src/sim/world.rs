//! Who and what exists in the simulated cloud: tenants, people, apps, pools, accounts, the instance.
//!
//! Constants only; every simulator and every test reads the same ones.

use crate::names::{InstanceName, NameError};

/// An Entra tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tenant {
    /// Tenant id (`tid`).
    pub id: &'static str,
    /// Verified domain.
    pub domain: &'static str,
}

/// A person in a tenant's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Person {
    /// Home of this directory object.
    pub tenant: Tenant,
    /// Object id (`oid`).
    pub object_id: &'static str,
    /// User principal name (`upn`, `preferred_username`).
    pub upn: &'static str,
    /// Group object ids.
    pub groups: &'static [&'static str],
    /// For a guest, the home identity provider (`idp`).
    pub guest_of: Option<&'static str>,
}

/// An app registration with its service principal, in one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct App {
    /// Home tenant.
    pub tenant: Tenant,
    /// Client id (`azp`).
    pub client_id: &'static str,
    /// The service principal's object id (`oid`, `sub`).
    pub object_id: &'static str,
    /// Client secret.
    pub secret: &'static str,
    /// App roles on the proxy's API (`roles`).
    pub roles: &'static [&'static str],
    /// The Google service account that the policy of [`super::Cloud::proxy_config`] names for it.
    pub service_account: &'static str,
    /// That account's database user.
    pub database_user: &'static str,
}

/// Contoso: the proxy's own tenant.
pub const CONTOSO: Tenant = Tenant { id: "6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91", domain: "contoso.example" };
/// Fabrikam: another tenant, which the proxy does not know.
pub const FABRIKAM: Tenant = Tenant { id: "b1e7a3c4-52d6-4f8b-9a0e-7c6d5e4f3a2b", domain: "fabrikam.example" };
/// The Contoso group whose members may query orders.
pub const ORDERS_GROUP: &str = "0c7a5f0e-4b5d-4f5e-9a3b-6f1f2d3e4a5b";
/// A Contoso group that no rule names.
pub const STAFF_GROUP: &str = "5d0b8e17-6c2f-4a39-8f14-b3a2c1d0e9f8";

/// In the group, with a database user and the login role: may query.
pub const ANALYST: Person = Person {
    tenant: CONTOSO,
    object_id: "2b8f6d1a-93c4-4e57-a1b0-5c6d7e8f9a01",
    upn: "analyst@contoso.example",
    groups: &[ORDERS_GROUP, STAFF_GROUP],
    guest_of: None,
};
/// In the tenant, in no group that a rule names: no grant.
pub const BYSTANDER: Person = Person {
    tenant: CONTOSO,
    object_id: "7e4c2a90-1d3b-4f68-8b5a-0f1e2d3c4b02",
    upn: "bystander@contoso.example",
    groups: &[STAFF_GROUP],
    guest_of: None,
};
/// In the group and a database user, but without `cloudsql.instances.login`: the instance refuses.
pub const TRAINEE: Person = Person {
    tenant: CONTOSO,
    object_id: "94d3e5f6-a7b8-4c19-9d2e-3f405162738a",
    upn: "trainee@contoso.example",
    groups: &[ORDERS_GROUP],
    guest_of: None,
};
/// In the group, but only a guest of the tenant.
pub const GUEST: Person = Person {
    tenant: CONTOSO,
    object_id: "c58a7b6d-2e1f-4034-a5b6-c7d8e9f00103",
    upn: "visitor_fabrikam.example#EXT#@contoso.example",
    groups: &[ORDERS_GROUP],
    guest_of: Some("https://sts.windows.net/b1e7a3c4-52d6-4f8b-9a0e-7c6d5e4f3a2b/"),
};
/// In a tenant that the proxy does not know.
pub const OUTSIDER: Person = Person {
    tenant: FABRIKAM,
    object_id: "e0f1a2b3-c4d5-4e6f-8091-a2b3c4d5e604",
    upn: "outsider@fabrikam.example",
    groups: &[],
    guest_of: None,
};

/// May impersonate its service account, which has a database user: may query.
pub const ORDERS_APP: App = App {
    tenant: CONTOSO,
    client_id: "8d1e2f3a-4b5c-4d6e-8f70-8192a3b4c5d6",
    object_id: "1a2b3c4d-5e6f-4708-91a2-b3c4d5e6f705",
    secret: "orders-app-secret-of-the-simulated-cloud",
    roles: &["Orders.Query"],
    service_account: "orders-app@demo-project.iam.gserviceaccount.com",
    database_user: "orders-app@demo-project.iam",
};
/// Has a rule, but may not impersonate the account that the rule names.
pub const REPORTS_APP: App = App {
    tenant: CONTOSO,
    client_id: "4f5e6d7c-8b9a-4a0b-9c1d-2e3f40516206",
    object_id: "90817263-5443-4a2b-8c1d-0e9f8a7b6c07",
    secret: "reports-app-secret-of-the-simulated-cloud",
    roles: &[],
    service_account: "reports-app@demo-project.iam.gserviceaccount.com",
    database_user: "reports-app@demo-project.iam",
};
/// In the tenant, in no rule: no grant.
pub const OTHER_APP: App = App {
    tenant: CONTOSO,
    client_id: "bd2c1e0f-9a8b-4c7d-8e6f-5a4b3c2d1e08",
    object_id: "3c4d5e6f-7081-4923-a4b5-c6d7e8f90a09",
    secret: "other-app-secret-of-the-simulated-cloud",
    roles: &[],
    service_account: "other-app@demo-project.iam.gserviceaccount.com",
    database_user: "other-app@demo-project.iam",
};

/// A user-assigned managed identity of Contoso.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ManagedIdentity {
    /// Client id (`azp`, `appid`).
    pub client_id: &'static str,
    /// The service principal's object id (`oid`, `sub`).
    pub object_id: &'static str,
    /// Its name in Azure Resource Manager (`xms_mirid`).
    pub name: &'static str,
}

/// The proxy's own: what it shows to Google.
pub const OWN_IDENTITY: ManagedIdentity =
    ManagedIdentity { client_id: OWN_CLIENT_ID, object_id: OWN_OBJECT_ID, name: "pgpassport" };
/// A caller's: a job on Azure that queries orders.
pub const ORDERS_JOB: ManagedIdentity = ManagedIdentity {
    client_id: "2f3e4d5c-6b7a-4899-8a0b-1c2d3e4f5a0d",
    object_id: "5e6f7a8b-9c0d-4e1f-8a2b-3c4d5e6f7a0f",
    name: "orders-job",
};

/// Client id of the proxy's API registration: the audience of callers' tokens.
pub const PROXY_API: &str = "3b1f7c9e-5a44-4f0e-8a52-7f1d6d2c9b10";
/// App ID URI of the proxy's API registration, for scopes: `api://pgpassport/.default`.
pub const PROXY_API_URI: &str = "api://pgpassport";
/// Another API of Contoso, to which apps must be assigned.
pub const ASSIGNED_API: &str = "5f6e7d8c-9b0a-4c1d-8e2f-30415263740d";
/// Its App ID URI.
pub const ASSIGNED_API_URI: &str = "api://orders-admin";
/// The second API, for whose tokens Google's providers are set up in the On-Behalf-Of mode; its client id.
pub const SECOND_API: &str = "c4d5e6f7-0819-4a2b-8c3d-4e5f60718291";
/// Its App ID URI.
pub const SECOND_API_URI: &str = "api://pgpassport-google";
/// The proxy's own app, which alone may ask for the second API's tokens, on behalf of people.
pub const PROXY_APP: App = App {
    tenant: CONTOSO,
    client_id: PROXY_API,
    object_id: "7f8e9d0c-1b2a-4394-8576-6a5b4c3d2e10",
    secret: "proxy-app-secret-of-the-simulated-cloud",
    roles: &[],
    service_account: OWN_SERVICE_ACCOUNT,
    database_user: "",
};
/// The public client with which people sign in (device code); known in both tenants.
pub const SIGN_IN_CLIENT: &str = "e7f60819-2a3b-4c4d-8e5f-60718293a40e";
/// What the proxy's managed identity asks a token for: Microsoft's API for tokens that are shown to other services.
pub const OWN_RESOURCE: &str = "api://AzureADTokenExchange";
/// Its app id in every tenant, which its tokens name as their audience: they are v2.0. (Microsoft documents the URI; the
/// id and the version are taken from tokens that people published.)
pub const OWN_AUDIENCE: &str = "fb60f99c-7a34-4190-8149-302f77469936";
/// An API of Contoso whose registration says nothing of a version: its tokens are v1.0, for this App ID URI.
pub const PLAIN_API_URI: &str = "api://orders-reports";
/// Object id of the proxy's managed identity.
pub const OWN_OBJECT_ID: &str = "d9c8b7a6-9584-4736-a251-40f3e2d1c00b";
/// Client id of the proxy's managed identity.
pub const OWN_CLIENT_ID: &str = "6a5b4c3d-2e1f-4a0b-8c9d-7e6f5a4b3c0c";

/// A person of a partner, who signs in with another `OpenID` provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partner {
    /// Claim `uid`: who.
    pub subject: &'static str,
    /// Claims `sub` and `email`: a name that can change.
    pub name: &'static str,
    /// What the partner's pool maps to `google.subject`.
    pub database_user: &'static str,
}

/// The consultant, with a database user and the login role: may query where a rule says so.
pub const CONSULTANT: Partner = Partner {
    subject: "00u8consultant",
    name: "consultant@northwind.example",
    database_user: "partner:00u8consultant",
};
/// What the partner's tokens are for.
pub const PARTNER_API: &str = "pgpassport";
/// What stands in front of `assertion.uid` in the partner's mapping of `google.subject`.
pub const PARTNER_PREFIX: &str = "partner:";
/// Workforce pool provider for people of the partner.
pub const PARTNER_PROVIDER: &str = "//iam.googleapis.com/locations/global/workforcePools/partner/providers/oidc";

/// A `BUILT_IN` database user with a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordUser {
    /// The role's name.
    pub name: &'static str,
    /// Its password.
    pub password: &'static str,
    /// `password_encryption` when it was set.
    pub encryption: &'static str,
}

/// A built-in user whose password PostgreSQL keeps as SCRAM-SHA-256.
pub const SCRAM_USER: PasswordUser = PasswordUser {
    name: "reporting",
    password: "reporting-password-of-the-simulated-cloud",
    encryption: "scram-sha-256",
};
/// A built-in user whose password was set long ago.
pub const MD5_USER: PasswordUser =
    PasswordUser { name: "legacy", password: "legacy-password-of-the-simulated-cloud", encryption: "md5" };

/// Google project id.
pub const PROJECT: &str = "demo-project";
/// Google project number.
pub const PROJECT_NUMBER: &str = "123456789012";
/// Workload pool provider for callers of Contoso.
pub const WORKLOAD_PROVIDER: &str =
    "//iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/entra/providers/contoso";
/// The same pool's provider for v1.0 tokens of Contoso, whose audience is the API's URI.
pub const WORKLOAD_PROVIDER_V1: &str =
    "//iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/entra/providers/contoso-v1";
/// Workload pool provider for the proxy's own identity.
pub const OWN_PROVIDER: &str =
    "//iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/azure/providers/proxy";
/// Workforce pool provider for people of Contoso.
pub const WORKFORCE_PROVIDER: &str = "//iam.googleapis.com/locations/global/workforcePools/contoso/providers/entra";
/// The same pool's provider for the second API's tokens, and of those only the proxy's app's.
pub const WORKFORCE_PROVIDER_OBO: &str =
    "//iam.googleapis.com/locations/global/workforcePools/contoso/providers/entra-obo";
/// The account that calls the SQL Admin API for the proxy.
pub const OWN_SERVICE_ACCOUNT: &str = "pgpassport@demo-project.iam.gserviceaccount.com";

/// The instance's connection name.
pub const INSTANCE: &str = "demo-project:europe-west1:orders";
/// The database, and its name in the config.
pub const DATABASE: &str = "orders";
/// A schema in [`DATABASE`] where every caller may create.
pub const SCRATCH_SCHEMA: &str = "scratch";

/// [`INSTANCE`], parsed.
pub fn instance() -> Result<InstanceName, NameError> {
    InstanceName::parse(INSTANCE)
}

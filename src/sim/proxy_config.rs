//! The config file of a proxy in front of the simulated cloud: the shape that production has, other addresses.

use super::{Cloud, ProxyConfig, world};
use std::path::Path;

/// Renders the file. Paths and addresses are written as TOML strings.
pub(super) fn render(cloud: &Cloud, proxy: &ProxyConfig) -> String {
    let (tls_certificate, tls_key) = cloud.listener_certificate();
    let (listen, admin, more) = (proxy.listen, proxy.admin, &proxy.extra);
    let (certificate, key) = (path(&tls_certificate), path(&tls_key));
    let (audit, audit_key, ca) = (path(&proxy.audit_folder), path(&cloud.audit_key()), path(cloud.ca_path()));
    let (jsonl, anchor) = (path(&proxy.jsonl()), path(&proxy.anchor()));
    let (entra, sts) = (cloud.entra_authority(), cloud.sts_url());
    let (iam_credentials, sql_admin) = (cloud.iam_credentials_url(), cloud.sql_admin_url());
    let (tenant, audience, group) = (world::CONTOSO.id, world::PROXY_API, world::ORDERS_GROUP);
    let (resource, own_provider, sql_account) = (world::OWN_RESOURCE, world::OWN_PROVIDER, world::OWN_SERVICE_ACCOUNT);
    let (instance, database, number) = (world::INSTANCE, world::DATABASE, world::PROJECT_NUMBER);
    let workforce = world::WORKFORCE_PROVIDER;
    let apps = app_rule(&world::ORDERS_APP, "orders-app") + &app_rule(&world::REPORTS_APP, "reports-app");
    format!(
        r#"[listen]
address = "{listen}"
certificate = {certificate}
key = {key}

[admin]
address = "{admin}"

[audit]
folder = {audit}
key = {audit_key}
jsonl = {jsonl}
anchors = [{anchor}]

[https]
ca_certificate = {ca}

[google]
sts = "{sts}"
iam_credentials = "{iam_credentials}"
sql_admin = "{sql_admin}"

[own_identity]
kind = "azure-managed-identity"
resource = "{resource}"
provider = "{own_provider}"
service_account = "{sql_account}"

[issuer.contoso]
tenant = "{tenant}"
audience = "{audience}"
authority = "{entra}"

[instance."{instance}"]

[database.{database}]
instance = "{instance}"

[[rule]]
name = "orders-people"
issuer = "contoso"
databases = ["{database}"]
kind = "user"
groups = ["{group}"]
grant = {{ kind = "workforce", provider = "{workforce}", subject_claim = "upn", user_project = "{number}" }}

{apps}{more}"#
    )
}

fn app_rule(app: &world::App, name: &str) -> String {
    let (client, account) = (app.client_id, app.service_account);
    let (database, provider) = (world::DATABASE, world::WORKLOAD_PROVIDER);
    format!(
        r#"[[rule]]
name = "{name}"
issuer = "contoso"
databases = ["{database}"]
kind = "app"
apps = ["{client}"]
grant = {{ kind = "service_account", provider = "{provider}", service_account = "{account}" }}

"#
    )
}

/// A TOML basic string: JSON escapes are a part of TOML's.
fn path(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}

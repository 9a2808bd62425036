//! IAM: principals, roles and bindings, as far as a database login needs them.

use crate::sim::world;
use std::collections::BTreeMap;

/// Who a Google access token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sim) enum Principal {
    /// An identity of a workload or workforce pool.
    Federated {
        /// `projects/N/locations/global/workloadIdentityPools/P` or `locations/global/workforcePools/P`.
        pool: String,
        /// `google.subject`.
        subject: String,
        /// `google.groups`.
        groups: Vec<String>,
        /// `attribute.*`.
        attributes: BTreeMap<String, String>,
    },
    /// A service account, by e-mail.
    ServiceAccount(String),
}

/// What somebody may do, and to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) enum Permission<'a> {
    /// `cloudsql.instances.get`
    InstancesGet,
    /// `cloudsql.instances.connect`
    InstancesConnect,
    /// `cloudsql.instances.login`
    InstancesLogin,
    /// `serviceusage.services.use` on the project
    ServicesUse,
    /// `iam.serviceAccounts.getAccessToken` on this account
    GetAccessToken(&'a str),
}

/// A role on the project, or on one service account.
#[derive(Debug, Clone)]
struct Binding {
    role: &'static str,
    member: String,
    /// The service account that it is bound on; the project if there is none.
    account: Option<&'static str>,
}

/// The bindings in force.
#[derive(Debug)]
pub(in crate::sim) struct Iam(Vec<Binding>);

impl Iam {
    /// What the simulated cloud starts with.
    pub(in crate::sim) fn standard() -> Self {
        let workload = |provider: &str, subject: &str| member(provider, &format!("subject/{subject}"), "principal");
        let workforce = |subject: &str| member(world::WORKFORCE_PROVIDER, &format!("subject/{subject}"), "principal");
        let on_project = |role, member: String| Binding { role, member, account: None };
        let account = |email: &str| format!("serviceAccount:{email}");
        Self(vec![
            on_project("roles/cloudsql.client", account(world::OWN_SERVICE_ACCOUNT)),
            on_project("roles/cloudsql.instanceUser", account(world::ORDERS_APP.service_account)),
            on_project("roles/cloudsql.instanceUser", account(world::REPORTS_APP.service_account)),
            on_project("roles/cloudsql.instanceUser", workforce(world::ANALYST.upn)),
            on_project("roles/cloudsql.instanceUser", workforce(world::GUEST.upn)),
            on_project(
                "roles/cloudsql.instanceUser",
                member(world::PARTNER_PROVIDER, &format!("subject/{}", world::CONSULTANT.database_user), "principal"),
            ),
            on_project(
                "roles/serviceusage.serviceUsageConsumer",
                member(world::WORKFORCE_PROVIDER, "*", "principalSet"),
            ),
            Binding {
                role: "roles/iam.workloadIdentityUser",
                member: workload(world::OWN_PROVIDER, world::OWN_OBJECT_ID),
                account: Some(world::OWN_SERVICE_ACCOUNT),
            },
            Binding {
                role: "roles/iam.workloadIdentityUser",
                member: workload(world::WORKLOAD_PROVIDER, world::ORDERS_APP.object_id),
                account: Some(world::ORDERS_APP.service_account),
            },
        ])
    }

    /// Whether some binding gives the permission.
    pub(in crate::sim) fn allows(&self, principal: &Principal, permission: Permission<'_>) -> bool {
        self.0.iter().any(|binding| {
            let in_place = match permission {
                Permission::GetAccessToken(account) => binding.account.is_none_or(|bound| bound == account),
                _ => binding.account.is_none(),
            };
            in_place && grants(binding.role, permission) && is_member(&binding.member, principal)
        })
    }

    /// Binds a role to a member, on the project or on one service account.
    pub(in crate::sim) fn grant(&mut self, role: &'static str, member: &str, account: Option<&'static str>) {
        self.0.push(Binding { role, member: member.to_owned(), account });
    }

    /// Takes a role away from a member wherever it is bound.
    pub(in crate::sim) fn revoke(&mut self, role: &str, member: &str) {
        self.0.retain(|binding| binding.role != role || binding.member != member);
    }
}

/// The pool that a provider (an STS audience) belongs to.
pub(super) fn pool_of(provider: &str) -> &str {
    let path = provider.strip_prefix("//iam.googleapis.com/").unwrap_or(provider);
    path.split_once("/providers/").map_or(path, |(pool, _)| pool)
}

fn member(provider: &str, rest: &str, scheme: &str) -> String {
    format!("{scheme}://iam.googleapis.com/{}/{rest}", pool_of(provider))
}

/// Roles as Google documents them, cut to the permissions above.
fn grants(role: &str, permission: Permission<'_>) -> bool {
    use Permission::{GetAccessToken, InstancesConnect, InstancesGet, InstancesLogin, ServicesUse};
    match role {
        "roles/cloudsql.client" => matches!(permission, InstancesGet | InstancesConnect),
        "roles/cloudsql.instanceUser" => matches!(permission, InstancesGet | InstancesLogin),
        "roles/serviceusage.serviceUsageConsumer" => matches!(permission, ServicesUse),
        "roles/iam.workloadIdentityUser" | "roles/iam.serviceAccountTokenCreator" => {
            matches!(permission, GetAccessToken(_))
        }
        _ => false,
    }
}

fn is_member(member: &str, principal: &Principal) -> bool {
    match principal {
        Principal::ServiceAccount(email) => member.strip_prefix("serviceAccount:") == Some(email),
        Principal::Federated { pool, subject, groups, attributes } => {
            if let Some(one) = member.strip_prefix("principal://iam.googleapis.com/") {
                return one.strip_prefix(pool.as_str()).and_then(|rest| rest.strip_prefix("/subject/"))
                    == Some(subject);
            }
            let set = member.strip_prefix("principalSet://iam.googleapis.com/");
            let Some(rest) = set.and_then(|set| set.strip_prefix(pool.as_str())) else { return false };
            let in_group = |group| groups.iter().any(|one| one == group);
            let attribute = |(name, value): (&str, &str)| attributes.get(name).is_some_and(|is| is == value);
            rest == "/*"
                || rest.strip_prefix("/group/").is_some_and(in_group)
                || rest.strip_prefix("/attribute.").and_then(|rest| rest.split_once('/')).is_some_and(attribute)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(provider: &str, subject: &str) -> Principal {
        Principal::Federated {
            pool: pool_of(provider).to_owned(),
            subject: subject.to_owned(),
            groups: vec!["g1".to_owned()],
            attributes: BTreeMap::from([("tid".to_owned(), "t1".to_owned())]),
        }
    }

    #[test]
    fn only_the_proxy_may_connect_and_only_callers_may_log_in() {
        let iam = Iam::standard();
        let proxy = Principal::ServiceAccount(world::OWN_SERVICE_ACCOUNT.to_owned());
        let analyst = principal(world::WORKFORCE_PROVIDER, world::ANALYST.upn);
        assert!(iam.allows(&proxy, Permission::InstancesConnect));
        assert!(!iam.allows(&proxy, Permission::InstancesLogin));
        assert!(iam.allows(&analyst, Permission::InstancesLogin));
        assert!(!iam.allows(&analyst, Permission::InstancesConnect));
        let same_name_elsewhere = principal(world::WORKLOAD_PROVIDER, world::ANALYST.upn);
        assert!(!iam.allows(&same_name_elsewhere, Permission::InstancesLogin));
    }

    #[test]
    fn impersonation_is_bound_to_one_account() {
        let iam = Iam::standard();
        let app = principal(world::WORKLOAD_PROVIDER, world::ORDERS_APP.object_id);
        assert!(iam.allows(&app, Permission::GetAccessToken(world::ORDERS_APP.service_account)));
        assert!(!iam.allows(&app, Permission::GetAccessToken(world::OWN_SERVICE_ACCOUNT)));
        let reports = principal(world::WORKLOAD_PROVIDER, world::REPORTS_APP.object_id);
        assert!(!iam.allows(&reports, Permission::GetAccessToken(world::REPORTS_APP.service_account)));
    }

    #[test]
    fn principal_sets_match_pool_group_and_attribute_exactly() {
        let caller = principal(world::WORKFORCE_PROVIDER, "s");
        let base = "principalSet://iam.googleapis.com/locations/global/workforcePools/contoso";
        for (suffix, expected) in [
            ("/*", true),
            ("/group/g1", true),
            ("/group/g", false),
            ("/attribute.tid/t1", true),
            ("/attribute.tid/t", false),
            ("x/*", false),
        ] {
            assert_eq!(is_member(&format!("{base}{suffix}"), &caller), expected, "{suffix}");
        }
    }
}

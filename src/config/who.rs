//! Who a rule is for: its conditions on the caller, each of which must hold.

use super::reader::Section;
use super::rules::KINDS;
use super::values;
use crate::identity::CallerKind;
use crate::policy::Who;
use toml::de::DeValue;

/// Conditions that say who a caller is, whatever the kind. The others narrow down.
const NAMES: [&str; 3] = ["object_ids", "groups", "roles"];

/// The conditions. Entra's ids are GUIDs.
pub(super) fn who(section: &Section<'_>, entra: bool) -> Option<Who> {
    let text = |value: &DeValue<'_>| values::text(value).map(str::to_owned);
    let ids = |key| section.some_list(key, |value| if entra { values::guid(value) } else { text(value) });
    let who = Who {
        kind: section.optional("kind", values::one_of(KINDS)),
        guest: section.optional("guest", values::boolean),
        object_ids: ids("object_ids"),
        groups: ids("groups"),
        roles: section.some_list("roles", text),
        apps: ids("apps"),
        networks: section.some_list("networks", values::network("is every address there is; leave networks out")),
    };
    says_whom(section, who.kind).then_some(who)
}

/// A rule without a name in it hands its databases to a whole tenant, most of whom nobody thought of; so that must be
/// said. `apps` is a name for software alone: with people it is the program that they sign in with, such as the Azure
/// CLI, which anybody can.
fn says_whom(section: &Section<'_>, kind: Option<CallerKind>) -> bool {
    let given = |key: &'static str| section.field(key).is_some();
    let software = given("apps") && kind == Some(CallerKind::App);
    let named = NAMES.into_iter().any(given) || software;
    let everyone = section.field("everyone");
    match everyone.as_ref().map(|field| field.read(values::boolean)) {
        Some(Some(true)) if named => {
            if let Some(field) = everyone {
                field.problem("stands beside conditions that say who; leave it or them out");
            }
            false
        }
        Some(Some(true)) => true,
        // What could not be read was reported.
        Some(None) => false,
        Some(Some(false)) | None if named => true,
        Some(Some(false)) | None => {
            let apps =
                if given("apps") { "asks for the program alone that people sign in with" } else { "names nobody" };
            let reason = format!(
                "{apps}, and would give its databases to everyone of the issuer: say who, by object_ids, groups, roles or \
                 (with kind = \"app\") apps; or, if everyone is meant, everyone = true"
            );
            section.report.absence(section.at, &section.key, &reason);
            false
        }
    }
}

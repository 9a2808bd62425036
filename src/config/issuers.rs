//! `[issuer.NAME]`: whose tokens count. One section is one `iss`, so that each rule names the issuer, its tenant and the
//! provider that takes its tokens together.

use super::reader::{Declared, Placed, Section, wrong_type};
use super::{first_party, open_issuers, rules, values};
use crate::identity::{
    self, Algorithm, Dialect, Entra, IssuerConfig, KindRule, LEEWAY, MAX_LEEWAY, Oidc, Overage, TokenType, Version,
};
use crate::names::{IssuerName, Tenant, TenantId};
use crate::policy::refused_subject_claim;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;
use toml::de::DeValue;

const PUBLIC_AUTHORITY: &str = "https://login.microsoftonline.com";
/// The tenant of all personal Microsoft accounts (Microsoft: "Access token claims reference", `tid`).
const CONSUMERS: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";
/// What `max_token_age` may be; Google refuses tokens that are older than a day (STS, `subjectToken`).
const AGES: RangeInclusive<Duration> = Duration::from_secs(300)..=Duration::from_secs(24 * 3600);
/// The longest name of a claim, in bytes.
const MAX_CLAIM_NAME_BYTES: usize = 256;
/// The most claims that one issuer's tokens must have.
const MAX_REQUIRED_CLAIMS: usize = 32;

#[derive(Clone, Copy)]
enum Kind {
    Entra,
    Oidc,
}

const KINDS: &[(&str, Kind)] = &[("entra", Kind::Entra), ("oidc", Kind::Oidc)];
const VERSIONS: &[(&str, Version)] = &[("2.0", Version::V2), ("1.0", Version::V1)];
/// Whether Microsoft Graph is asked.
const OVERAGES: &[(&str, bool)] = &[("deny", false), ("graph", true)];
const TOKEN_TYPES: &[(&str, TokenType)] = &[("any", TokenType::Any), ("at+jwt", TokenType::AccessToken)];
const ALGORITHMS: &[(&str, Algorithm)] = &[("RS256", Algorithm::Rs256), ("ES256", Algorithm::Es256)];

/// Every issuer. Two with one `iss` differ in their audience, or a token could not tell which is meant.
pub(super) fn issuers(root: &Section<'_>) -> Declared<IssuerConfig> {
    let mut issuers = Declared::default();
    for (name, section) in root.named_sections("issuer") {
        issuers.names.push(name.to_owned());
        let (key, at) = (section.key.clone(), section.at);
        let Some(issuer) = issuer(name, section) else { continue };
        for other in &issuers.entries {
            if let Some(reason) = meets(other, &issuer) {
                root.report.problem(at, &key, &reason);
            }
        }
        issuers.entries.push(Placed { key, at, value: issuer });
    }
    issuers
}

/// Why two sections cannot stand beside each other.
fn meets(other: &Placed<IssuerConfig>, issuer: &IssuerConfig) -> Option<String> {
    let same_url = other.value.url() == issuer.url();
    let shared = issuer.audiences.iter().any(|audience| other.value.accepts_audience(audience))
        || other.value.audiences.iter().any(|audience| issuer.accepts_audience(audience));
    if same_url && shared {
        return Some(format!("is for the same issuer and audience as {}; join them", other.key));
    }
    let both_entra = issuer.entra().is_some() && other.value.entra().is_some();
    let same_tenant = issuer.tenant() == other.value.tenant();
    (same_tenant && !same_url && !both_entra).then(|| {
        format!("has the same tenant as {}, so that records and tags could not tell their callers apart", other.key)
    })
}

fn issuer(name: &str, section: Section<'_>) -> Option<IssuerConfig> {
    let name = section.named(name, IssuerName::parse);
    let kind = section.optional("kind", values::one_of(KINDS)).unwrap_or(Kind::Entra);
    let dialect = match kind {
        Kind::Entra => entra(&section).map(|(entra, audiences)| (Dialect::Entra(entra), audiences)),
        Kind::Oidc => {
            oidc(&section, name.as_ref()).zip(audiences(&section)).map(|(oidc, aud)| (Dialect::Oidc(oidc), aud))
        }
    };
    let allowed_apps = section.some_list("allowed_apps", |value| match kind {
        Kind::Entra => values::guid(value),
        Kind::Oidc => values::text(value).map(str::to_owned),
    });
    let allowed_kinds = section.some_list("allowed_kinds", values::one_of(rules::KINDS));
    let leeway = section.optional("leeway", values::duration(Duration::ZERO..=MAX_LEEWAY)).unwrap_or(LEEWAY);
    let max_token_age = section.optional("max_token_age", values::duration(AGES));
    section.finish();
    let (dialect, audiences) = dialect?;
    Some(IssuerConfig { name: name?, audiences, allowed_apps, allowed_kinds, leeway, max_token_age, dialect })
}

fn entra(section: &Section<'_>) -> Option<(Entra, Vec<String>)> {
    let tenant = section.required("tenant", |value| {
        let tenant = values::name(TenantId::parse)(value)?;
        if tenant.to_string() == CONSUMERS {
            return Err("is the tenant of personal Microsoft accounts, which anybody can make".to_owned());
        }
        Ok(tenant)
    });
    let version = section.optional("version", values::one_of(VERSIONS)).unwrap_or(Version::V2);
    let authority = section.optional("authority", authority).unwrap_or_else(|| PUBLIC_AUTHORITY.to_owned());
    let v1_authority = v1_authority(section, version, &authority);
    let audiences = match version {
        Version::V1 => audiences(section),
        Version::V2 => section
            .required("audience", |value| {
                let guid = values::guid(value)
                    .map_err(|reason| format!("{reason}: v2.0 tokens carry the app registration's client id"))?;
                audience(&guid)
            })
            .map(|audience| vec![audience]),
    };
    let required_scopes = section.some_list("required_scopes", word);
    let required_roles = section.some_list("required_roles", word);
    let overage = overage(section, &authority);
    let (tenant, v1_authority, overage) = (tenant?, v1_authority?, overage?);
    Some((Entra { tenant, version, authority, v1_authority, required_scopes, required_roles, overage }, audiences?))
}

/// `groups_overage`, and what asking Graph needs.
fn overage(section: &Section<'_>, authority: &str) -> Option<Overage> {
    let ask = section.optional("groups_overage", values::one_of(OVERAGES)).unwrap_or(false);
    let (graph, client_id) = (section.field("graph"), section.field("graph_client_id"));
    if !ask {
        for field in [graph, client_id].into_iter().flatten() {
            field.problem("is for groups_overage = \"graph\"");
        }
        return Some(Overage::Deny);
    }
    let client_id = client_id.and_then(|field| field.read(values::guid));
    let known = || identity::cloud(authority).and_then(|cloud| cloud.graph).map(str::to_owned);
    let endpoint = match graph {
        Some(field) => field.read(values::service_url),
        None => known().or_else(|| {
            let reason = "is required: Microsoft Graph's address is not known for this cloud";
            section.report.absence(section.at, &section.path("graph"), reason);
            None
        }),
    };
    Some(Overage::Graph { endpoint: endpoint?, client_id })
}

/// A login host: one name of each cloud is in its tokens, the others are not.
fn authority(value: &DeValue<'_>) -> Result<String, String> {
    let authority = values::service_url(value)?;
    match identity::alias(&authority) {
        Some(cloud) => Err(format!("is another name of {}, which is what tokens say", cloud.authority)),
        None => Ok(authority),
    }
}

/// What a v1.0 `iss` begins with: known for most clouds, else the config must say it.
fn v1_authority(section: &Section<'_>, version: Version, authority: &str) -> Option<String> {
    let given = section.field("v1_authority");
    if let Some(field) = given {
        return field.read(values::service_url);
    }
    let cloud = identity::cloud(authority);
    let known = cloud.map_or_else(|| Some(authority.to_owned()), |cloud| cloud.v1_authority.map(str::to_owned));
    if known.is_none() && version == Version::V1 {
        section.report.absence(
            section.at,
            &section.path("v1_authority"),
            "is required: it is not known for this cloud",
        );
        return None;
    }
    Some(known.unwrap_or_else(|| authority.to_owned()))
}

/// `audience = "…"` or `audience = ["…", "…"]`.
fn audiences(section: &Section<'_>) -> Option<Vec<String>> {
    let field = section.required_field("audience")?;
    let one = |value| audience(values::text(value)?);
    match field.value {
        DeValue::String(_) => field.read(one).map(|audience| vec![audience]),
        DeValue::Array(_) => {
            let entries = field.entries()?;
            if entries.is_empty() {
                field.problem("is empty: tokens for any API would be accepted");
                return None;
            }
            entries.iter().map(|entry| entry.read(one)).collect()
        }
        other => {
            field.problem(&wrong_type("a string or an array", other));
            None
        }
    }
}

fn audience(audience: &str) -> Result<String, String> {
    if first_party::is_api(audience) {
        return Err("is an API of Microsoft's own, whose tokens prove nothing here".to_owned());
    }
    Ok(audience.to_owned())
}

fn oidc(section: &Section<'_>, name: Option<&IssuerName>) -> Option<Oidc> {
    let issuer = section.required_field("issuer");
    let url = issuer.as_ref().and_then(|field| field.read(issuer_url));
    let tenant = section.optional("tenant", values::name(Tenant::parse));
    let tenant = tenant.or_else(|| name.and_then(|name| Tenant::parse(name.as_str()).ok()));
    let algorithms = section.some_list("algorithms", values::one_of(ALGORITHMS));
    let token_type = section.optional("token_type", values::one_of(TOKEN_TYPES)).unwrap_or(TokenType::Any);
    let algorithms = if algorithms.is_empty() { vec![Algorithm::Rs256] } else { algorithms };
    let subject_claim = section.required("subject_claim", |value| {
        let claim = claim(value)?;
        refused_subject_claim(&claim).map_or(Ok(claim), |reason| Err(reason.to_owned()))
    });
    let kind = kind_rule(section);
    let named = |key| section.optional(key, claim);
    let (label_claim, groups_claim, roles_claim) = (named("label_claim"), named("groups_claim"), named("roles_claim"));
    let (app_claim, token_id_claim) = (named("app_claim"), named("token_id_claim"));
    let required_claims = section.section("required_claims").and_then(required_claims);
    if let (Some(field), Some(url)) = (&issuer, &url)
        && let Some(reason) = open_issuers::undecided(url, required_claims.as_ref())
    {
        field.problem(&reason);
    }
    Some(Oidc {
        url: url?,
        tenant: tenant?,
        algorithms,
        token_type,
        kind: kind?,
        subject_claim: subject_claim?,
        label_claim,
        groups_claim,
        roles_claim,
        app_claim,
        token_id_claim: token_id_claim.unwrap_or_else(|| "jti".to_owned()),
        required_claims: required_claims.unwrap_or_default(),
    })
}

/// An `iss` as tokens say it: compared byte for byte, so that nothing may be tidied.
fn issuer_url(value: &DeValue<'_>) -> Result<String, String> {
    let text = values::text(value)?;
    let tidy = values::service_address(text)?;
    if identity::is_login_host(&tidy) {
        return Err(
            "is Entra's own: kind = \"entra\" checks what its tokens need checked, guests and other tenants among \
                    it"
            .to_owned(),
        );
    }
    if text.strip_suffix('/').unwrap_or(text) == tidy {
        Ok(text.to_owned())
    } else {
        Err(format!("is not written as URLs are: {tidy:?}"))
    }
}

/// `callers = "user"`, `"app"`, or `user_claim`: which of both a token's holder is must never be a guess.
fn kind_rule(section: &Section<'_>) -> Option<KindRule> {
    let (callers, user_claim) = (section.field("callers"), section.field("user_claim"));
    match (callers, user_claim) {
        (Some(field), None) => field.read(values::one_of(rules::KINDS)).map(KindRule::Always),
        (None, Some(field)) => field.read(claim).map(KindRule::UserClaim),
        (Some(_), Some(field)) => {
            field.problem("contradicts callers: give one of both");
            None
        }
        (None, None) => {
            let reason = "is required: \"user\" or \"app\"; or user_claim, a claim that people's tokens alone have";
            section.report.absence(section.at, &section.path("callers"), reason);
            None
        }
    }
}

/// `{ claim = "value" }`.
fn required_claims(section: Section<'_>) -> Option<BTreeMap<String, String>> {
    let fields = section.all_fields();
    if fields.len() > MAX_REQUIRED_CLAIMS {
        section.report.problem(section.at, &section.key, &format!("has more than {MAX_REQUIRED_CLAIMS} claims"));
        return None;
    }
    let value = |value: &DeValue<'_>| match value {
        DeValue::Boolean(flag) => Ok(flag.to_string()),
        text => values::text(text).map(str::to_owned),
    };
    fields.iter().map(|(name, field)| Some(((*name).to_owned(), field.read(value)?))).collect()
}

/// A claim's name: a top-level member; a namespace may look like a URL.
fn claim(value: &DeValue<'_>) -> Result<String, String> {
    let name = values::text(value)?;
    if name.len() > MAX_CLAIM_NAME_BYTES {
        return Err(format!("is longer than {MAX_CLAIM_NAME_BYTES} bytes"));
    }
    Ok(name.to_owned())
}

/// A scope or app role: one word.
fn word(value: &DeValue<'_>) -> Result<String, String> {
    let text = values::text(value)?;
    if text.contains(char::is_whitespace) { Err("has white space".to_owned()) } else { Ok(text.to_owned()) }
}

//! The config file as an operator meets it: good files, and every problem with its line, key and reason.

mod expect;
mod federation;
mod issuers;
mod lifetimes;
mod limits;
mod mistakes;
mod on_behalf_of;
mod pools;
mod rules;
mod tag;

use super::*;
use crate::cloudsql::{IpType, LoginMethod, Route};
use crate::identity::LEEWAY;
use crate::policy::How;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

const EXAMPLE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/config/example.toml"));

/// A folder with a certificate, its key, another key, and room for the log.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(folder.path().join("tls.crt"), pair.cert.pem()).unwrap();
    fs::write(folder.path().join("tls.key"), pair.signing_key.serialize_pem()).unwrap();
    fs::write(folder.path().join("other.key"), rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let key = crate::audit::ledger::checkpoint::new_private_key("audit.contoso.example").unwrap();
    fs::write(folder.path().join("audit.key"), key.as_bytes()).unwrap();
    for key in ["tls.key", "audit.key"] {
        fs::set_permissions(folder.path().join(key), fs::Permissions::from_mode(0o600)).unwrap();
    }
    folder
}

/// The shortest file that can be served.
const MINIMAL: &str = r#"[listen]
address = "127.0.0.1:5432"
certificate = "tls.crt"
key = "tls.key"

[audit]
folder = "audit"

[own_identity]
kind = "azure-managed-identity"
resource = "api://AzureADTokenExchange"
provider = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/azure/providers/proxy"
service_account = "pgpassport@demo-project.iam.gserviceaccount.com"

[issuer.contoso]
tenant = "6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91"
audience = "3b1f7c9e-5a44-4f0e-8a52-7f1d6d2c9b10"

[instance."demo-project:europe-west1:orders"]

[database.orders]
instance = "demo-project:europe-west1:orders"

[[rule]]
name = "people"
issuer = "contoso"
databases = ["orders"]
groups = ["0c7a5f0e-4b5d-4f5e-9a3b-6f1f2d3e4a5b"]
grant = { kind = "workforce", provider = "//iam.googleapis.com/locations/global/workforcePools/contoso/providers/entra", subject_claim = "upn" }
"#;

/// Another rule for `MINIMAL`, of software.
const APP_RULE: &str = r#"
[[rule]]
name = "apps"
issuer = "contoso"
databases = ["orders"]
kind = "app"
apps = ["8D1E2F3A-4B5C-4D6E-8F70-8192A3B4C5D6"]
grant = { kind = "service_account", provider = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/entra/providers/contoso", service_account = "orders-app@demo-project.iam.gserviceaccount.com" }
"#;

fn checked(text: &str) -> Result<Loaded, Vec<Problem>> {
    let folder = folder();
    let path = folder.path().join("p.toml");
    fs::write(&path, text).unwrap();
    load(&path)
}

/// `LINE: KEY: REASON` of each, with the folder's path taken out.
fn shown(problems: &[Problem]) -> Vec<String> {
    let show = |problem: &Problem| {
        let folder = format!("{}/", problem.file.parent().unwrap().display());
        let text = problem.to_string().replace(&folder, "");
        text.strip_prefix("p.toml:").expect("each names its file").to_owned()
    };
    problems.iter().map(show).collect()
}

fn problems(text: &str) -> Vec<String> {
    shown(&checked(text).expect_err("must be refused"))
}

/// `MINIMAL` with one line changed; the edit must be possible.
fn edited(from: &str, to: &str) -> String {
    assert_eq!(MINIMAL.matches(from).count(), 1, "{from}");
    MINIMAL.replace(from, to)
}

#[test]
fn a_copy_of_the_records_is_a_regular_file_that_not_everybody_reads() {
    for device in ["/dev/null", "/dev/full"] {
        let found = problems(&edited("folder = \"audit\"", &format!("folder = \"audit\"\njsonl = \"{device}\"")));
        assert_eq!(found, [format!("8: audit.jsonl: {device} is not a regular file")]);
    }
    let folder = folder();
    let (path, log) = (folder.path().join("p.toml"), folder.path().join("audit.jsonl"));
    fs::write(&path, edited("folder = \"audit\"", "folder = \"audit\"\njsonl = \"audit.jsonl\"")).unwrap();
    fs::write(&log, "").unwrap();
    for (mode, warnings) in [(0o640, 0), (0o644, 1)] {
        fs::set_permissions(&log, fs::Permissions::from_mode(mode)).unwrap();
        let found = shown(&load(&path).map_err(|problems| shown(&problems)).unwrap().warnings);
        assert_eq!(found.len(), warnings, "{mode:o}: {found:?}");
        assert!(found.iter().all(|warning| warning.contains("audit.jsonl: can be read by every user")), "{found:?}");
    }
}

#[test]
fn the_minimal_file_gets_every_default() {
    let loaded = checked(MINIMAL).unwrap();
    assert_eq!(shown(&loaded.warnings), [""; 0]);
    let config = loaded.config;
    assert_eq!(config.admin, Some("127.0.0.1:9090".parse().unwrap()));
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.tag, Template::default());
    assert_eq!(config.deadlines, Deadlines::default());
    assert_eq!(config.audit.unverified_refusals_per_minute, 60);
    assert_eq!(config.google.sts, "https://sts.googleapis.com");
    assert_eq!(config.google.iam_credentials, "https://iamcredentials.googleapis.com");
    assert_eq!(config.google.sql_admin, "https://sqladmin.googleapis.com");
    assert_eq!(config.issuers[0].url(), "https://login.microsoftonline.com/6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91/v2.0");
    assert_eq!((config.issuers[0].leeway, config.issuers[0].max_token_age), (LEEWAY, None));
    assert!(config.issuers[0].allowed_apps.is_empty());
    assert_eq!(config.instances[0].ip_type, IpType::Public);
    assert_eq!(
        (config.instances[0].route, config.instances[0].login),
        (Route::Connector, LoginMethod::TokenAsPassword)
    );
    let target = config.policy.databases().next().unwrap();
    assert_eq!((target.alias.as_str(), target.database.as_str(), target.tag), ("orders", "orders", true));
    assert_eq!(config.policy.rules()[0].who.kind, None);
    assert_eq!((config.listen.trusted_proxies.len(), config.listen.proxy_protocol), (0, ProxyProtocol::Off));
    assert!(config.listen.certificate.is_absolute(), "relative paths start at the file's folder");
}

#[test]
fn the_example_loads_and_says_the_defaults_it_claims() {
    let text =
        EXAMPLE.replace("/etc/pgpassport/", "").replace("/var/log/pgpassport/", "").replace("/var/lib/pgpassport/", "");
    let loaded = checked(&text).map_err(|problems| shown(&problems)).unwrap();
    assert_eq!(shown(&loaded.warnings), [""; 0]);
    assert_eq!(loaded.config.limits, Limits::default());
    assert_eq!(loaded.config.deadlines, Deadlines::default());
    assert_eq!(loaded.config.instances[0].ip_type, IpType::Private);
    let [people, app] = loaded.config.policy.rules() else { panic!("two rules") };
    assert!(matches!(&people.how, How::Workforce { subject_claim, .. } if subject_claim == "upn"));
    assert!(matches!(&app.how, How::ServiceAccount { account, .. } if account.as_str().starts_with("orders-app@")));
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_file() {
    let text = MINIMAL
        .replace("127.0.0.1:5432", "here")
        .replace("folder = \"audit\"", "")
        .replace("upn", "email")
        .replace("[database.orders]", "[databases.orders]");
    assert_eq!(
        problems(&text),
        [
            "1: database: is required",
            "2: listen.address: is not IP:PORT, such as \"0.0.0.0:5432\" or \"[::]:5432\"",
            "6: audit.folder: is required",
            "21: databases: is not a known key; did you mean \"database\"?",
            "27: rule.people.databases[0]: names no [database.…]: \"orders\" is not there",
            "29: rule.people.grant.subject_claim: guests choose their own e-mail address, so `email` proves nobody; \
             use `upn`, `oid` or `sub`",
        ]
    );
    let required: Vec<String> = ["audit", "database", "instance", "issuer", "listen", "own_identity", "rule"]
        .iter()
        .map(|section| format!("1: {section}: is required"))
        .collect();
    let mut found = problems("");
    found.sort();
    assert_eq!(found, required);
}

#[test]
fn syntax_errors_come_with_the_problems_they_cannot_have_caused() {
    let text = MINIMAL.replace("folder = \"audit\"", "folder = audit").replace("127.0.0.1:5432", "here");
    let found = problems(&text);
    assert_eq!(found[0], "2: listen.address: is not IP:PORT, such as \"0.0.0.0:5432\" or \"[::]:5432\"");
    assert!(found[1].starts_with("7: audit.folder: "), "{found:#?}");
    assert_eq!(found.len(), 2, "a line that is no TOML is said once: {found:#?}");

    let twice = problems(&edited("key = \"tls.key\"", "key = \"tls.key\"\nkey = \"tls.key\""));
    assert!(twice.len() == 1 && twice[0].starts_with("5: listen.key: duplicate key"), "{twice:#?}");
}

#[test]
fn rules_must_have_names_of_their_own_and_issuers_tenants() {
    let found = problems(&format!("{MINIMAL}{}", APP_RULE.replace("\"apps\"", "\"people\"")));
    assert_eq!(found, ["31: rule.people: is the name of the rule on line 24 as well"]);
    let twin = |audience: &str| {
        let tenant = "6F9B1C52-0f0e-4c0a-9d5c-2d6f3a7b8c91";
        format!("{MINIMAL}[issuer.again]\ntenant = \"{tenant}\"\naudience = \"{audience}\"\n")
    };
    let found = problems(&twin("3b1f7c9e-5a44-4f0e-8a52-7f1d6d2c9b10"));
    assert_eq!(found, ["15: issuer.contoso: is for the same issuer and audience as issuer.again; join them"]);
    assert!(checked(&twin("8d1e2f3a-4b5c-4d6e-8f70-8192a3b4c5d6")).is_ok(), "another registration of the tenant");
}

#[test]
fn ids_are_written_as_tokens_write_them() {
    let loaded = checked(&format!("{MINIMAL}{APP_RULE}")).unwrap();
    assert_eq!(loaded.config.policy.rules()[1].who.apps, ["8d1e2f3a-4b5c-4d6e-8f70-8192a3b4c5d6"]);
}

#[test]
fn a_service_account_whose_user_would_be_cut_is_refused() {
    let rule = APP_RULE.replace("orders-app@demo-project", &format!("{}@demo-project", "a".repeat(50)));
    let found = problems(&format!("{MINIMAL}{rule}"));
    assert_eq!(
        found,
        [
            "37: rule.apps.grant.service_account: gives a database user that is 67 bytes long; PostgreSQL names end at 63"
        ]
    );
}

#[test]
fn warnings_are_said_and_do_not_refuse() {
    let untagged = "instance = \"demo-project:europe-west1:orders\"\ntag = false\n[database.spare]\ninstance = \"demo-project:europe-west1:orders\"\n";
    let text = edited("instance = \"demo-project:europe-west1:orders\"\n", untagged).replace(
        "[listen]",
        "[admin]\naddress = \"0.0.0.0:9090\"\n[limits]\nsessions = 10\nsessions_per_caller = 20\n\
         logins = 5\nlogins_per_address = 6\n[listen]\n\
         trusted_proxies = [\"10.0.0.0/8\"]\nproxy_protocol = \"optional\"",
    );
    let loaded = checked(&text).map_err(|problems| shown(&problems)).unwrap();
    assert_eq!(
        shown(&loaded.warnings),
        [
            "2: admin.address: is not loopback: health and metrics are served there in the clear, to anybody who asks",
            "5: limits.sessions_per_caller: is more than limits.sessions, so it is never reached",
            "7: limits.logins_per_address: is more than limits.logins, so it is never reached",
            "10: listen.proxy_protocol: lets a client behind a balancer that adds no header write one, with any \
             address; \"required\" does not",
            "32: database.orders.tag: turns the caller's tag off: the database's own logs will not say who asked",
            "33: database.spare: is in no rule: nobody can reach it",
        ]
    );
}

#[test]
fn paths_and_logins_that_can_be_gone_round_are_warned_of() {
    let section = "[instance.\"demo-project:europe-west1:orders\"]";
    let with = |lines: &str| checked(&edited(section, &format!("{section}\n{lines}"))).unwrap();
    let instance = |lines: &str| {
        let loaded = with(lines);
        let said = loaded.warnings.iter().map(|warning| warning.key.rsplit('.').next().unwrap().to_owned()).collect();
        (loaded.config.instances[0].route, loaded.config.instances[0].login, said)
    };
    let direct = |port| Route::Direct { port };
    let none: Vec<String> = Vec::new();
    let warned = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
    let (password, certificate) = (LoginMethod::TokenAsPassword, LoginMethod::TokenInCertificate);
    for (lines, expected) in [
        ("path = \"connector\"\nlogin = \"token-as-password\"", (Route::Connector, password, none)),
        ("login = \"token-in-certificate\"", (Route::Connector, certificate, warned(&["login"]))),
        ("path = \"direct\"", (direct(5432), password, warned(&["path"]))),
        ("path = \"direct\"\nport = 6432", (direct(6432), password, warned(&["path"]))),
        (
            "path = \"direct\"\nlogin = \"token-in-certificate\"",
            (direct(5432), certificate, warned(&["path", "login", "login"])),
        ),
    ] {
        assert_eq!(instance(lines), expected, "{lines}");
    }
    let shown = shown(&with("path = \"direct\"").warnings);
    assert!(shown[0].contains("can go round the proxy"), "{shown:#?}");
}

#[test]
fn googles_own_identities_need_no_provider() {
    let start = MINIMAL.find("kind = \"azure").unwrap();
    let end = MINIMAL.find("[issuer").unwrap();
    let with = |lines: &str| format!("{}{lines}\n{}", &MINIMAL[..start], &MINIMAL[end..]);
    let loaded = checked(&with("kind = \"google-metadata\"")).unwrap();
    assert!(matches!(loaded.config.own_identity, OwnIdentityConfig::GoogleMetadata) && loaded.warnings.is_empty());

    let folder = folder();
    let path = folder.path().join("p.toml");
    fs::write(&path, with("kind = \"google-service-account-file\"\nkey_file = \"key.json\"")).unwrap();
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let file = |email: &str, uri: &str, key: &str| {
        let content = serde_json::json!({
            "type": "service_account", "client_email": email, "token_uri": uri, "private_key": key,
        });
        fs::write(folder.path().join("key.json"), content.to_string()).unwrap();
        fs::set_permissions(folder.path().join("key.json"), fs::Permissions::from_mode(0o600)).unwrap();
        load(&path).map_err(|problems| shown(&problems))
    };
    let (email, uri) = ("pgpassport@demo-project.iam.gserviceaccount.com", "https://oauth2.googleapis.com/token");
    let loaded = file(email, uri, &key).unwrap();
    assert!(matches!(loaded.config.own_identity, OwnIdentityConfig::GoogleServiceAccountFile { .. }));
    assert_eq!(
        shown(&loaded.warnings),
        ["11: own_identity.key_file: is a secret that does not end by itself: prefer a managed identity or the \
          metadata server"]
    );
    for (email, uri, key, says) in [
        ("somebody@contoso.example", uri, key.as_str(), "client_email"),
        (email, "http://oauth2.googleapis.com/token", &key, "token_uri must be https://"),
        (email, "https://x.example/?secret", &key, "token_uri must end before"),
        (email, uri, "-----BEGIN SECRET", "private_key is no"),
    ] {
        let found = file(email, uri, key).unwrap_err();
        assert!(found.len() == 1 && found[0].contains(says) && !found[0].contains("BEGIN SECRET"), "{found:#?}");
    }
    fs::write(folder.path().join("key.json"), "{\"type\": \"external_account\"}").unwrap();
    let found = shown(&load(&path).unwrap_err());
    assert!(found[0].contains("is no service account's key"), "{found:#?}");
}

#[test]
fn a_key_that_everybody_reads_is_a_warning() {
    let folder = folder();
    fs::set_permissions(folder.path().join("tls.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let path = folder.path().join("p.toml");
    fs::write(&path, MINIMAL).unwrap();
    let warnings = shown(&load(&path).unwrap().warnings);
    assert_eq!(warnings, ["4: listen.key: can be read by every user of this machine; mode 0600 or 0640 is enough"]);
}

#[test]
fn the_admin_listener_can_be_turned_off() {
    let off = checked(&edited("[listen]", "[admin]\nenabled = false\naddress = \"0.0.0.0:9090\"\n[listen]")).unwrap();
    assert_eq!((off.config.admin, off.warnings.len()), (None, 0));
}

#[test]
fn files_that_are_no_config_say_so() {
    let folder = folder();
    let reason = |path: &Path| load(path).unwrap_err()[0].reason.clone();
    assert!(reason(&folder.path().join("none.toml")).starts_with("cannot be read: No such file"));
    assert_eq!(reason(folder.path()), "is a folder, not a file");
    // A pipe, too, would hold the start-up for good.
    assert_eq!(reason(Path::new("/dev/zero")), "is not a regular file");
    let path = folder.path().join("p.toml");
    fs::write(&path, b"[listen]\n\xff").unwrap();
    assert_eq!(shown(&load(&path).unwrap_err()), ["2: (syntax): is not valid UTF-8"]);
    fs::write(&path, vec![b'\n'; usize::try_from(document::MAX_CONFIG_BYTES).unwrap() + 1]).unwrap();
    assert_eq!(reason(&path), "is larger than 16777216 bytes");
}

#[test]
fn nothing_in_a_problem_forges_a_line() {
    let found = problems(&format!("\"a\\nb\\u001b[2J\" = 1\n{MINIMAL}"));
    assert_eq!(found, ["1: \"a\\nb\\u{1b}[2J\": is not a known key"]);
    let found = problems(&edited("issuer = \"contoso\"", "issuer = \"a\\nb\""));
    assert_eq!(found, ["26: rule.people.issuer: has a control character"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_end_in_problems_on_lines_of_the_file(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let lines = bytes.split(|byte| *byte == b'\n').count();
        let found = check(Path::new("p.toml"), &bytes).expect_err("no such file can be served");
        prop_assert!(!found.is_empty());
        prop_assert!(found.iter().all(|problem| (1..=lines).contains(&problem.line)), "{found:?}");
        prop_assert!(found.iter().all(|problem| !problem.to_string().contains(char::is_control)), "{found:?}");
    }

    /// A good file with a piece of TOML dropped, doubled or put elsewhere neither panics nor hangs.
    #[test]
    fn a_mutilated_file_is_checked_to_the_end(
        at in 0..MINIMAL.len(), length in 0..80usize, to in 0..MINIMAL.len(),
        piece in "[\\[\\]{}=\"'.,\n a-z0-9:#\\\\]{0,12}",
    ) {
        let mut text: Vec<u8> = MINIMAL.into();
        let end = (at + length).min(text.len());
        text.drain(at..end);
        let to = to.min(text.len());
        text.splice(to..to, piece.bytes());
        if let Err(found) = check(Path::new("p.toml"), &text) {
            prop_assert!(!found.is_empty());
            prop_assert!(found.iter().all(|problem| !problem.to_string().contains('\n')), "{found:?}");
        }
    }
}

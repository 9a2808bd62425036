//! The client's settings file (`client.toml`), for people and apps that use the proxy: read like the server's own
//! config, every mistake at once with its line. And the readers of its values, which flags share.
//!
//! Keys at the top hold for every database, those in `[database.NAME]` for one. Nothing in it is a secret.

use super::reader::{Report, Section};
use super::{Problem, document, files, suggest, values};
use crate::agent::{Settings, Via};
use crate::names::{DatabaseAlias, RoleName};
use rustls::pki_types::ServerName;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::de::DeValue;

/// What `via` may be.
const VIAS: &[(&str, Via)] =
    &[("az", Via::AzureCli), ("device", Via::DeviceCode), ("managed-identity", Via::ManagedIdentity)];

/// A settings file; empty when there is none.
#[derive(Debug, Default)]
pub struct ClientFile {
    defaults: Settings,
    databases: BTreeMap<String, Settings>,
}

impl ClientFile {
    /// Reads and checks a file; all problems at once, in the order of their lines. Relative paths in the file start
    /// at its folder.
    pub fn load(path: &Path) -> Result<Self, Vec<Problem>> {
        let bytes = files::regular(path, document::MAX_CONFIG_BYTES)
            .map_err(|reason| vec![Problem { file: path.to_owned(), line: 1, key: "(file)".to_owned(), reason }])?;
        let report = Report::new(path, &bytes);
        let folder = path.parent().unwrap_or(Path::new(""));
        let read = document::parse(&bytes, &report, |root| Some(file(root, folder)));
        match (read, report.finish()) {
            (Some(file), (problems, _)) if problems.is_empty() => Ok(file),
            (_, (problems, _)) => Err(problems),
        }
    }

    /// What holds for a database; for none, what holds for all. A name that the file does not have is an error once
    /// it has any: it is a slip of the fingers, and would be sent to the proxy otherwise.
    pub fn settings(&self, name: Option<&str>) -> Result<Settings, String> {
        let Some(name) = name.filter(|_| !self.databases.is_empty()) else { return Ok(self.defaults.clone()) };
        let known = || self.databases.keys().map(String::as_str);
        match self.databases.get(name) {
            Some(own) => Ok(own.clone().or(self.defaults.clone())),
            None => Err(format!(
                "has no [database.{name}]{}; it has: {}",
                suggest::hint(name, known()),
                known().collect::<Vec<_>>().join(", ")
            )),
        }
    }
}

fn file(root: Section<'_>, folder: &Path) -> ClientFile {
    let defaults = settings(&root, folder);
    let mut databases = BTreeMap::new();
    if root.field("database").is_some() {
        for (name, section) in root.named_sections("database") {
            section.named(name, DatabaseAlias::parse);
            let mut own = settings(&section, folder);
            own.database = section.optional("database", |value| database(values::text(value)?));
            own.user = section.optional("user", |value| user(values::text(value)?));
            section.finish();
            databases.insert(name.to_owned(), own);
        }
    }
    root.finish();
    ClientFile { defaults, databases }
}

/// The keys that may stand at the top and in a database's section.
fn settings(section: &Section<'_>, folder: &Path) -> Settings {
    let certificates = |value: &DeValue<'_>| files::certificates(value, folder).map(|(path, _)| path);
    Settings {
        via: section.optional("via", values::one_of(VIAS)),
        tenant: section.optional("tenant", values::guid),
        client_id: section.optional("client_id", values::guid),
        scope: section.optional("scope", |value| scope(values::text(value)?)),
        authority: section.optional("authority", values::service_url),
        https_ca_certificate: section.optional("https_ca_certificate", certificates),
        host: section.optional("host", |value| host(values::text(value)?)),
        port: section.optional("port", port),
        ca_certificate: section.optional("ca_certificate", certificates),
        database: None,
        user: None,
    }
}

fn port(value: &DeValue<'_>) -> Result<u16, String> {
    let port = values::integer(1..=u32::from(u16::MAX))(value)?;
    u16::try_from(port).map_err(|error| error.to_string())
}

// ---- The same readers, for flags -------------------------------------------------------------------

/// A GUID: `tenant`, `client_id`.
pub fn guid(text: &str) -> Result<String, String> {
    values::guid(&string(text))
}

/// `authority`: `https://`, or `http://` towards this machine.
pub fn authority(text: &str) -> Result<String, String> {
    values::service_url(&string(text))
}

/// A PEM file with a certificate.
pub fn certificates(text: &str) -> Result<PathBuf, String> {
    files::certificates(&string(text), Path::new("")).map(|(path, _)| path)
}

/// A scope as Entra writes them: one word, the API and the permission.
pub fn scope(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~:/".contains(c);
    let shaped = text.rsplit_once('/').is_some_and(|(api, permission)| !api.is_empty() && !permission.is_empty());
    if shaped && text.chars().all(allowed) && !text.starts_with('-') {
        Ok(text.to_owned())
    } else {
        Err("is no scope, such as \"api://pgpassport/.default\"".to_owned())
    }
}

/// One host name or address; libpq's lists of hosts are not taken.
pub fn host(text: &str) -> Result<String, String> {
    let known = ServerName::try_from(text).map(drop);
    known.map(|()| text.to_owned()).map_err(|_| "is no host name or address".to_owned())
}

/// What the proxy calls a database.
pub fn database(text: &str) -> Result<String, String> {
    DatabaseAlias::parse(text).map(|name| name.to_string()).map_err(|error| error.to_string())
}

/// A PostgreSQL user.
pub fn user(text: &str) -> Result<String, String> {
    RoleName::parse(text).map(|name| name.to_string()).map_err(|error| error.to_string())
}

fn string(text: &str) -> DeValue<'_> {
    DeValue::String(Cow::Borrowed(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const FILE: &str = r#"via = "device"
tenant = "6F9B1C52-0f0e-4c0a-9d5c-2d6f3a7b8c91"
client_id = "e7f60819-2a3b-4c4d-8e5f-60718293a40e"
scope = "api://pgpassport/.default"
authority = "https://login.microsoftonline.us/"
host = "db.contoso.example"

[database.orders]
port = 6432
ca_certificate = "ca.pem"

[database.reports]
via = "az"
host = "10.0.0.7"
database = "reports_2026"
user = "reports"
"#;

    fn loaded(text: &str) -> Result<ClientFile, Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(folder.path().join("ca.pem"), pair.cert.pem()).unwrap();
        let path = folder.path().join("client.toml");
        fs::write(&path, text).unwrap();
        let prefix = format!("{}/", folder.path().display());
        let shown = |problem: &Problem| problem.to_string().replace(&prefix, "");
        ClientFile::load(&path).map_err(|problems| problems.iter().map(shown).collect())
    }

    #[test]
    fn a_databases_keys_come_before_those_of_all() {
        let file = loaded(FILE).unwrap();
        let orders = file.settings(Some("orders")).unwrap();
        assert_eq!(orders.tenant.as_deref(), Some("6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91"));
        assert_eq!(orders.authority.as_deref(), Some("https://login.microsoftonline.us"));
        assert_eq!((orders.via, orders.port), (Some(Via::DeviceCode), Some(6432)));
        assert!(orders.ca_certificate.unwrap().is_absolute());
        let reports = file.settings(Some("reports")).unwrap();
        assert_eq!((reports.via, reports.host.as_deref()), (Some(Via::AzureCli), Some("10.0.0.7")));
        assert_eq!((reports.database.as_deref(), reports.user.as_deref()), (Some("reports_2026"), Some("reports")));
        assert_eq!(file.settings(None).unwrap().port, None);
    }

    #[test]
    fn a_name_that_is_not_there_is_told_with_the_nearest() {
        let error = loaded(FILE).unwrap().settings(Some("odrers")).unwrap_err();
        assert_eq!(error, "has no [database.odrers]; did you mean \"orders\"?; it has: orders, reports");
        // Without entries the name is the proxy's to know.
        assert!(loaded("host = \"db\"").unwrap().settings(Some("any")).is_ok());
    }

    #[test]
    fn every_mistake_is_told_at_once_with_its_line() {
        let text = "via = \"browser\"\ntenant = \"contoso\"\nscope = \"api\"\nauthority = \"http://login.example\"\n\
                    host = \"a,b\"\nport = 0\nca_certificate = \"none.pem\"\nuser = \"x\"\n\n[database.orders]\n\
                    hst = \"db\"\nclient_id = 7\n";
        let problems = loaded(text).unwrap_err();
        let starts = [
            "client.toml:1: via: must be \"az\" or \"device\" or \"managed-identity\"",
            "client.toml:2: tenant: is not a hyphenated GUID",
            "client.toml:3: scope: is no scope",
            "client.toml:4: authority: must be https://",
            "client.toml:5: host: is no host name",
            "client.toml:6: port: is out of bounds: 1 to 65535",
            "client.toml:7: ca_certificate: none.pem cannot be read",
            "client.toml:8: user: is not a known key",
            "client.toml:11: database.orders.hst: is not a known key; did you mean \"host\"?",
            "client.toml:12: database.orders.client_id: must be a string, not an integer",
        ];
        assert_eq!(problems.len(), starts.len(), "{problems:#?}");
        for (problem, start) in problems.iter().zip(starts) {
            assert!(problem.starts_with(start), "{problem}\nis not {start}");
        }
        assert!(loaded("via = ").unwrap_err()[0].starts_with("client.toml:1: via"));
    }

    #[test]
    fn flags_are_read_by_the_same_rules() {
        for bad in ["", "-x/y", "api://a b/.default", "api", "/x", "x/", "a/b;c"] {
            assert!(scope(bad).is_err(), "{bad}");
        }
        for bad in ["", "a b", "a,b", "/tmp", "host=x"] {
            assert!(host(bad).is_err(), "{bad}");
        }
        for good in ["db.contoso.example", "10.0.0.7", "::1", "localhost"] {
            assert_eq!(host(good).as_deref(), Ok(good));
        }
        assert!(guid("contoso").is_err() && authority("http://x.example").is_err() && user(&"x".repeat(64)).is_err());
    }
}

//! Start-up powers: what a client may set as it starts, by the start-up packet or by its `options`.
//!
//! Names are compared as PostgreSQL compares those of settings: without regard to ASCII case (`guc_name_compare`,
//! `src/backend/utils/misc/guc.c`). Of values nothing is changed, so that they compare as bytes.
//!
//! Not for: what a session sets later, by SQL.

use super::options::{self, Switch};
use crate::wire::Parameters;
use std::collections::BTreeMap;
use std::fmt;

/// The settings that make a session act as another database user. Refused where a rule does not say otherwise, `none`
/// too: it would undo a role that the database gives its user (`ALTER ROLE … SET role`).
pub const ACTING: [&str; 2] = ["role", "session_authorization"];

/// The longest name of a setting that is repeated to a client, in bytes.
const MAX_NAME_BYTES: usize = 63;

/// What a client may do with one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Power {
    /// Set it to anything.
    Allow,
    /// Not set it.
    Refuse,
    /// Set it to one of these.
    OneOf(Vec<String>),
    /// Nothing: it starts with this value, whatever the client says.
    Fixed(String),
}

/// `[rule.startup]`: what clients may set as they start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Powers {
    named: BTreeMap<String, Power>,
    options: bool,
    others: bool,
}

/// What the instance is told at the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Startup {
    /// Start-up parameters beside user and database, in order.
    pub parameters: Parameters,
    /// The last value of `role` among them, or in their `options`.
    pub role: Option<String>,
    /// The last value of `session_authorization`.
    pub session_authorization: Option<String>,
}

/// What a client asked for and may not have. `Display` is a clause without the value: "set `role` …".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overreach {
    /// The setting, where it has a name that can be repeated.
    pub setting: String,
    /// The values that are allowed.
    pub allowed: Vec<String>,
}

impl Default for Powers {
    fn default() -> Self {
        let named = ACTING.map(|name| (name.to_owned(), Power::Refuse)).into();
        Self { named, options: true, others: true }
    }
}

impl Powers {
    /// The same with another word on one setting, whose name is written in lower case.
    #[must_use]
    pub fn with(mut self, setting: &str, power: Power) -> Self {
        self.named.insert(setting.to_owned(), power);
        self
    }

    /// The same where `options` is refused, whatever it sets.
    #[must_use]
    pub fn without_options(self) -> Self {
        Self { options: false, ..self }
    }

    /// The same where every setting is refused that is not named.
    #[must_use]
    pub fn without_others(self) -> Self {
        Self { others: false, ..self }
    }

    /// The name of a setting as it is looked up, or why it is none that a rule can speak of.
    pub fn setting(name: &str) -> Result<String, &'static str> {
        if matches!(name, "user" | "database" | "replication") || name.starts_with("_pq_") {
            return Err("is not a client's to set: the grant decides it");
        }
        let part = |part: &str| {
            let mut bytes = part.bytes();
            let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
            bytes.next().is_some_and(letter) && bytes.all(|byte| letter(byte) || byte.is_ascii_digit() || byte == b'$')
        };
        if name.len() > MAX_NAME_BYTES || !name.split('.').all(part) {
            return Err("is not the name of a setting, such as role, search_path or my.own");
        }
        Ok(canonical(name.as_bytes()))
    }

    /// Each setting that has a word of its own, in the order of names.
    pub fn named(&self) -> impl Iterator<Item = (&str, &Power)> {
        self.named.iter().map(|(name, power)| (name.as_str(), power))
    }

    /// Whether `options` may be sent.
    pub fn allows_options(&self) -> bool {
        self.options
    }

    /// Whether settings may be sent that are not named.
    pub fn allows_others(&self) -> bool {
        self.others
    }

    /// What the instance is told: what the client sent, as far as it may, and what is fixed.
    ///
    /// PostgreSQL applies `options` first and then each parameter in order (`process_startup_options`, `postinit.c`), so
    /// that what is fixed stands last.
    pub fn apply(&self, given: &[(Vec<u8>, Vec<u8>)]) -> Result<Startup, Overreach> {
        let mut parameters = Vec::with_capacity(given.len());
        let (mut earlier, mut later) = (Startup::default(), Startup::default());
        for (name, value) in given {
            // Neither is a setting: `replication` was judged as the session's purpose.
            match name.as_slice() {
                b"replication" => parameters.push((name.clone(), value.clone())),
                b"options" => parameters.push((name.clone(), self.options(value, &mut earlier)?)),
                _ if self.keeps(name, value)? => {
                    later.note(name, value);
                    parameters.push((name.clone(), value.clone()));
                }
                _ => {}
            }
        }
        for (name, power) in &self.named {
            if let Power::Fixed(value) = power {
                later.note(name.as_bytes(), value.as_bytes());
                parameters.push((name.clone().into_bytes(), value.clone().into_bytes()));
            }
        }
        let (role, session_authorization) =
            (later.role.or(earlier.role), later.session_authorization.or(earlier.session_authorization));
        Ok(Startup { parameters, role, session_authorization })
    }

    /// The same options without what is fixed. They stay as they came where nothing is taken out.
    fn options(&self, text: &[u8], noted: &mut Startup) -> Result<Vec<u8>, Overreach> {
        let switches = options::parse(text).map_err(|_| Overreach::of(b"options", &[]))?;
        if !self.options && !switches.is_empty() {
            return Err(Overreach::of(b"options", &[]));
        }
        let mut kept = Vec::with_capacity(switches.len());
        for switch in &switches {
            if self.keeps_switch(switch)? {
                if let Switch::Setting { name, value } = switch {
                    noted.note(name, value);
                }
                kept.push(switch);
            }
        }
        // What is a blank beyond ASCII depends on the server's locale; escaped it is none.
        if kept.len() == switches.len() && text.is_ascii() {
            return Ok(text.to_vec());
        }
        Ok(options::render(kept.into_iter()))
    }

    fn keeps_switch(&self, switch: &Switch) -> Result<bool, Overreach> {
        match switch {
            Switch::Setting { name, value } => self.keeps(name, value),
            Switch::Letter { .. } => {
                let settings = switch.stands_for();
                // What a letter makes of its setting is not compared with what is allowed or fixed.
                let spoken_of =
                    settings.iter().find(|name| self.named.get(**name).is_some_and(|power| *power != Power::Allow));
                match spoken_of {
                    Some(name) => Err(Overreach::of(name.as_bytes(), &[])),
                    None if !self.others && !settings.iter().all(|name| self.named.contains_key(*name)) => {
                        Err(Overreach::of(b"options", &[]))
                    }
                    None if !self.others && settings.is_empty() => Err(Overreach::of(b"options", &[])),
                    None => Ok(true),
                }
            }
        }
    }

    /// Whether a setting goes on as the client gave it.
    fn keeps(&self, name: &[u8], value: &[u8]) -> Result<bool, Overreach> {
        match self.named.get(&canonical(name)) {
            Some(Power::Allow) => Ok(true),
            Some(Power::Fixed(_)) => Ok(false),
            Some(Power::OneOf(values)) if values.iter().any(|allowed| allowed.as_bytes() == value) => Ok(true),
            Some(Power::OneOf(values)) => Err(Overreach::of(name, values)),
            None if self.others => Ok(true),
            Some(Power::Refuse) | None => Err(Overreach::of(name, &[])),
        }
    }
}

/// As PostgreSQL looks a setting up: in lower case, by its newer name (`map_old_guc_names`, `guc.c`).
fn canonical(name: &[u8]) -> String {
    match String::from_utf8_lossy(name).to_ascii_lowercase().as_str() {
        "sort_mem" => "work_mem".to_owned(),
        "vacuum_mem" => "maintenance_work_mem".to_owned(),
        "ssl_ecdh_curve" => "ssl_groups".to_owned(),
        name => name.to_owned(),
    }
}

impl Startup {
    /// Remembers who the session acts as.
    fn note(&mut self, name: &[u8], value: &[u8]) {
        let value = || Some(String::from_utf8_lossy(value).into_owned());
        if name.eq_ignore_ascii_case(b"role") {
            self.role = value();
        } else if name.eq_ignore_ascii_case(b"session_authorization") {
            self.session_authorization = value();
        }
    }
}

impl Overreach {
    fn of(name: &[u8], allowed: &[String]) -> Self {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$');
        let named = !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.iter().all(plain);
        let setting = if named { String::from_utf8_lossy(name).to_ascii_lowercase() } else { String::new() };
        Self { setting, allowed: allowed.to_vec() }
    }
}

impl fmt::Display for Overreach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.setting.as_str() {
            "" => f.write_str("set something that is no setting's name at its start"),
            "options" => f.write_str("start with these options"),
            setting if self.allowed.is_empty() => write!(f, "set {setting} at its start"),
            setting => write!(f, "set {setting} at its start to that value"),
        }
    }
}

#[cfg(test)]
mod tests;

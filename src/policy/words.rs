//! Rules in words: who, how, and what bounds them. For people; what scripts read is built elsewhere.

use super::{AtExpiry, How, Lifetime, Limits, Over, Power, Powers, Rate, Rule, Who};
use crate::audit::sealing::Texts;
use crate::audit::{Durability, Parameters, UnrecordedCommit};
use crate::identity::CallerKind;

impl Rule {
    /// Whom it is for: "user and group … of contoso".
    pub fn who_in_words(&self) -> String {
        format!("{} of {}", self.who.in_words(), self.issuer)
    }

    /// As whom they arrive: "themselves, by upn", or the service account.
    pub fn how_in_words(&self) -> String {
        match &self.how {
            How::Workforce { subject_claim, subject_prefix, .. } => {
                format!("themselves, by {subject_prefix}{subject_claim}")
            }
            How::ServiceAccount { account, .. } => account.to_string(),
        }
    }

    /// What is given or taken besides, as clauses; empty where the rule says nothing of it.
    pub fn bounds_in_words(&self) -> Vec<String> {
        let mut bounds = Vec::new();
        if self.replication {
            bounds.push("replication too".to_owned());
        }
        bounds.extend(self.startup.in_words());
        bounds.extend(self.limits.in_words());
        bounds.extend(self.lifetime.in_words());
        match self.durability {
            Durability::Strict => bounds.push("each record on the disk first".to_owned()),
            Durability::Batch => {}
            Durability::None => bounds.push("records of the last second lost if the proxy is killed".to_owned()),
        }
        if self.texts == Texts::Sealed {
            bounds.push("texts sealed in the record".to_owned());
        }
        if self.unrecorded_commit == UnrecordedCommit::Passes {
            bounds.push("COMMIT even where it cannot be recorded".to_owned());
        }
        match self.recorded_parameters {
            Parameters::Off => {}
            Parameters::Hmac => bounds.push("parameters recorded as HMACs".to_owned()),
            Parameters::Full => bounds.push("parameters recorded".to_owned()),
        }
        bounds
    }
}

impl Who {
    fn in_words(&self) -> String {
        let software = self.kind == Some(CallerKind::App) && !self.apps.is_empty();
        let named = [&self.object_ids, &self.groups, &self.roles].iter().any(|list| !list.is_empty()) || software;
        let kind = match self.kind {
            Some(kind) if named => Some(kind.as_str().to_owned()),
            Some(kind) => Some(format!("every {}", kind.as_str())),
            None => (!named).then(|| "everyone".to_owned()),
        };
        let guest = self.guest.map(|guest| if guest { "guest" } else { "no guest" }.to_owned());
        let networks: Vec<String> = self.networks.iter().map(ToString::to_string).collect();
        let conditions = [
            kind,
            guest,
            listed("object", &self.object_ids),
            listed("group", &self.groups),
            listed("role", &self.roles),
            listed("app", &self.apps),
            listed("at", &networks),
        ];
        conditions.into_iter().flatten().collect::<Vec<_>>().join(" and ")
    }
}

impl Powers {
    /// What differs from the default.
    fn in_words(&self) -> Vec<String> {
        let default = Powers::default();
        let usual: Vec<(&str, &Power)> = default.named().collect();
        let mut words: Vec<String> =
            self.named().filter(|own| !usual.contains(own)).map(|(name, power)| format!("{name} {power}")).collect();
        if !self.allows_options() {
            words.push("options refused".to_owned());
        }
        if !self.allows_others() {
            words.push("other settings refused".to_owned());
        }
        words.into_iter().map(|word| format!("at the start {word}")).collect()
    }
}

impl Limits {
    /// What is bounded.
    fn in_words(&self) -> Vec<String> {
        let Self { sessions, sessions_per_caller, connects_per_minute, line, .. } = self;
        let rate = |rate: &Rate, what: &str| {
            let over = match rate.over {
                Over::Wait => "more waits",
                Over::Refuse => "more is refused",
            };
            format!("{} {what} a second of one caller, {} at once; {over}", rate.per_second, rate.burst)
        };
        let words = [
            sessions.map(|count| format!("{count} sessions of all its callers")),
            sessions_per_caller.map(|count| format!("{count} sessions of one caller")),
            connects_per_minute.map(|count| format!("{count} connects a minute of one caller")),
            line.map(|line| format!("{} logins of one caller wait, up to {:?}", line.places, line.patience)),
            self.one_address_per_token.then(|| "one address for each token".to_owned()),
            self.statements.as_ref().map(|limit| rate(limit, "statements")),
            self.bytes.as_ref().map(|limit| rate(limit, "bytes")),
            self.audit_mib_per_day.map(|limit| format!("{limit} MiB of audit records a day of one caller")),
            self.idle_in_transaction.map(|limit| format!("transactions idle for {limit:?} at most")),
        ];
        words.into_iter().flatten().collect()
    }
}

impl Lifetime {
    /// What differs from the default.
    fn in_words(&self) -> Vec<String> {
        let default = Self::default();
        let at_expiry = match self.at_expiry {
            AtExpiry::Drain => None,
            AtExpiry::Keep => Some("sessions go on when the token has expired".to_owned()),
            AtExpiry::End => Some("sessions end at once when the token has expired".to_owned()),
        };
        let grace = (self.grace != default.grace).then(|| format!("a grace of {:?} at the end", self.grace));
        let length = self.max_session.map(|length| format!("sessions of {length:?} at most"));
        [at_expiry, grace, length].into_iter().flatten().collect()
    }
}

impl std::fmt::Display for Power {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Allow => f.write_str("as the client says"),
            Self::Refuse => f.write_str("refused"),
            Self::OneOf(values) => write!(f, "one of {values:?}"),
            Self::Fixed(value) => write!(f, "always {value:?}"),
        }
    }
}

fn listed(title: &str, list: &[String]) -> Option<String> {
    (!list.is_empty()).then(|| format!("{title} {}", list.join(" or ")))
}

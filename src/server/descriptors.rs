//! File descriptors: as many as the system lets this process have, and a word where that is too few.

use crate::config::Limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors beside clients' and instances': listeners, the log, calls to Entra and Google, the runtime's own.
const OTHERS: u64 = 100;
/// Connections over a limit and cancels that the door keeps at once, with the cancels' own connections.
const AT_THE_DOOR: u64 = 512 + 2 * 512;

/// Raises the soft limit to the hard one, which needs no privilege, and warns where `[limits]` can need more.
pub(super) fn make_room(limits: &Limits) {
    let now = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: now.maximum, maximum: now.maximum };
    let have = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => now.maximum,
        Err(error) => {
            tracing::debug!(%error, "the limit of file descriptors cannot be raised");
            now.current
        }
    };
    let needed = needed(limits);
    if have.is_some_and(|have| have < needed) {
        tracing::warn!(
            have,
            needed,
            "fewer file descriptors than [limits] can need: raise the process's limit (systemd: LimitNOFILE), or lower \
             limits.sessions and limits.logins; without one, nobody can connect"
        );
    }
}

/// A session has two connections, a login one until it is a session, and as many as there may be logins wait in line.
fn needed(limits: &Limits) -> u64 {
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let sessions = count(limits.sessions).saturating_mul(2);
    sessions.saturating_add(count(limits.logins).saturating_mul(2)).saturating_add(AT_THE_DOOR).saturating_add(OTHERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_counts() {
        let default = Limits::default();
        assert_eq!(needed(&default), 4636);
        assert_eq!(needed(&Limits { sessions: default.sessions + 1, ..default }), 4638);
        assert_eq!(needed(&Limits { logins: default.logins + 1, ..default }), 4638);
        make_room(&default);
        let after = getrlimit(Resource::Nofile);
        assert_eq!(after.current, after.maximum);
    }
}

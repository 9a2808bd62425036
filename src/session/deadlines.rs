//! How long each hop of a session may take.

use std::time::Duration;

/// `[deadlines]`: each bounds one hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// From accept until the client's token has arrived.
    pub startup: Duration,
    /// An issuer's discovery document or keys.
    pub keys: Duration,
    /// Entra's answer to a trade on behalf of a caller, its retries included.
    pub on_behalf_of: Duration,
    /// STS, each call.
    pub sts: Duration,
    /// `generateAccessToken`, each call.
    pub iam_credentials: Duration,
    /// The proxy's own identity endpoint.
    pub own_identity: Duration,
    /// Each Admin API call with its retries.
    pub admin_api: Duration,
    /// TCP to the instance.
    pub dial: Duration,
    /// TLS with the instance.
    pub handshake: Duration,
    /// The instance's answer to the login.
    pub login: Duration,
    /// A cancel, from accept to the server's close.
    pub cancel: Duration,
    /// From SIGTERM until sessions that are still busy are ended.
    pub drain: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            startup: seconds(60),
            keys: seconds(5),
            on_behalf_of: seconds(10),
            sts: seconds(10),
            iam_credentials: seconds(10),
            own_identity: seconds(10),
            admin_api: seconds(20),
            dial: seconds(10),
            handshake: seconds(10),
            login: seconds(15),
            cancel: seconds(10),
            drain: seconds(30),
        }
    }
}

//! One connection's life, top to bottom.
//!
//! accept → negotiate → verify → authorize → open the record → exchange → dial → log in → greet → relay → close the
//! record. Any error on the way becomes one [`rejection`], one record, one counter, one log line, and stays an error.

mod callers;
mod cancel;
mod deadlines;
mod host;
mod rejection;

pub use callers::{Callers, TooMany};
pub use cancel::{CancelKeys, NoKey};
pub use deadlines::Deadlines;
pub use rejection::shutdown;

use crate::audit::event::{Caller, Claimed, Event, SessionEnd, SessionOpen, SessionStart};
use crate::audit::{Auditor, Closed, Recorder};
use crate::backend::{self, Backend};
use crate::cloudsql::{self, Connector, ServerStream};
use crate::federation::{self, Exchanger};
use crate::frontend::{self, Arrival, Login, Negotiated, Peer, Place, Refused};
use crate::identity::{self, IdentityFacts, VerifiedIdentity, Verifier};
use crate::names::SessionId;
use crate::policy::{self, Grant, How, Policy};
use crate::relay::tag::{self, Tag, Template};
use crate::relay::{Ending, Relay, Summary, Wish};
use crate::telemetry::{self, Direction, Hop, Metrics};
use crate::time::Clock;
use crate::wire::Purpose;
use rejection::Rejection;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The most of what a client says of itself that is recorded, in characters.
const MAX_CLAIM_CHARS: usize = 256;

/// What every session needs; made once.
#[derive(Debug)]
pub struct Services {
    /// The listener's certificate.
    pub tls: Arc<rustls::ServerConfig>,
    /// Checks tokens.
    pub verifier: Verifier,
    /// Decides.
    pub policy: Policy,
    /// What the tag says.
    pub tag: Template,
    /// Buys database logins.
    pub exchanger: Exchanger,
    /// Dials instances.
    pub connector: Connector,
    /// The log.
    pub auditor: Auditor,
    /// Keys that sessions were given for cancels.
    pub cancel_keys: CancelKeys,
    /// How many sessions each caller has.
    pub callers: Callers,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Wall time.
    pub clock: Clock,
    /// Bounds of the hops.
    pub deadlines: Deadlines,
}

/// Why a client was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The start-up did not get to a token.
    #[error(transparent)]
    Frontend(#[from] frontend::Error),
    /// The token proves nothing.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// `user` contradicts the token.
    #[error("user {claimed:?} is neither {label:?} nor {role:?}")]
    User {
        /// What the client sent.
        claimed: String,
        /// The caller's own name.
        label: String,
        /// The database user of the grant.
        role: String,
    },
    /// No grant.
    #[error(transparent)]
    Denied(#[from] policy::Denied),
    /// There are too many sessions, or too many of this caller.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// The log cannot take the session.
    #[error(transparent)]
    Unrecorded(#[from] crate::audit::Unrecorded),
    /// No cancel key could be given.
    #[error(transparent)]
    NoKey(#[from] NoKey),
    /// No database login could be bought.
    #[error(transparent)]
    Exchange(#[from] federation::Error),
    /// The instance could not be reached.
    #[error(transparent)]
    Connect(#[from] cloudsql::Error),
    /// The instance did not let the session in.
    #[error(transparent)]
    Login(#[from] backend::Error),
    /// The instance did not answer the login in time.
    #[error("the instance did not answer the login within {0:?}")]
    LoginDeadline(Duration),
    /// The process is leaving, and this session has not begun.
    #[error("the proxy is shutting down")]
    ShuttingDown,
}

/// One connection, and what is known of it.
struct Connection<'a> {
    services: &'a Services,
    id: SessionId,
    peer: Peer,
    accepted: Instant,
    claimed: Option<Claimed>,
    caller: Option<Caller>,
}

/// Serves one connection until it is over. Never fails: what goes wrong is told, recorded and counted here.
pub async fn serve(arrival: Arrival, services: Arc<Services>, mut wish: watch::Receiver<Wish>) {
    services.metrics.connection_accepted();
    let _gauge = services.metrics.session_started();
    let mut connection = Connection {
        services: &services,
        id: SessionId::generate(),
        peer: arrival.peer(),
        accepted: arrival.accepted(),
        claimed: None,
        caller: None,
    };
    let startup = services.deadlines.startup;
    let negotiating = async {
        let incoming = arrival.introduce(startup).await?;
        connection.peer = incoming.peer;
        frontend::negotiate(incoming, &services.tls, startup).await
    };
    let negotiated = tokio::select! {
        negotiated = negotiating => negotiated,
        // The process is leaving, and this client has no session yet.
        Ok(_) = wish.wait_for(|wish| *wish != Wish::Run) => return,
    };
    connection.hop(Hop::Startup, connection.accepted);
    match negotiated {
        Ok(Negotiated::Login(login, place)) => connection.log_in(*login, place, wish).await,
        Ok(Negotiated::Cancel(request)) => cancel::serve(request, connection.peer, &services).await,
        Err(Refused { error: frontend::Error::Gone(error), .. }) => {
            tracing::debug!(session = %connection.id, client = %connection.peer.address, %error, "left during start-up");
        }
        Err(Refused { error, client }) => {
            let rejection = connection.refuse(&error.into());
            client.tell(&rejection.fields(connection.id)).await;
        }
    }
}

impl Connection<'_> {
    /// From the token to the greeting, then the relay.
    async fn log_in(&mut self, mut login: Login, place: Place, mut wish: watch::Receiver<Wish>) {
        self.claimed = Some(Claimed {
            user: Some(claim(login.user())),
            database: Some(claim(login.database())),
            application_name: login.application_name().as_deref().map(claim),
        });
        match self.open(&mut login, &mut wish).await {
            Ok(opened) => {
                drop(place);
                self.relay(login, opened, wish).await;
            }
            Err(error) => {
                let rejection = self.refuse(&error);
                login.reject(&rejection.fields(self.id)).await;
                drop(place);
            }
        }
    }

    /// Verify, authorize, open the record, exchange, dial, log in.
    async fn open(&mut self, login: &mut Login, wish: &mut watch::Receiver<Wish>) -> Result<Opened, Error> {
        let Services { verifier, policy, clock, callers, .. } = self.services;
        let started = Instant::now();
        let identity = verifier.verify(login.take_token(), self.peer.limited(), clock.now()).await;
        self.hop(Hop::Verify, started);
        let identity = identity?;
        self.caller = Some(caller(&identity));
        let asks = policy.asks_groups(&identity, login.database());
        let identity = if asks { verifier.resolve_groups(identity).await? } else { identity };
        let request = policy::Request {
            database: login.database(),
            purpose: login.purpose(),
            address: self.peer.limited(),
            parameters: login.parameters(),
        };
        let grant = policy.authorize(&identity, &request)?;
        check_user(login.user(), &identity, &grant)?;
        let facts = identity.facts();
        let seat = callers.enter(facts)?;
        let mut recorder = self.open_record(&identity, &grant, login.purpose())?;
        let tag = self.tag(facts, &grant);
        let reached = tokio::select! {
            biased;
            Ok(_) = wish.wait_for(|wish| *wish != Wish::Run) => Err(Error::ShuttingDown),
            reached = self.reach(&identity, &grant) => reached,
        };
        match reached {
            Ok(backend) => Ok(Opened { backend, recorder, tag, grant, _seat: seat }),
            Err(error) => {
                let reason = if matches!(error, Error::ShuttingDown) { "drain" } else { "refused" };
                self.close_record(&mut recorder, reason, None);
                Err(error)
            }
        }
    }

    fn tag(&self, caller: &IdentityFacts, grant: &Grant) -> Tag {
        let target = grant.target();
        if !target.tag {
            return Tag::none();
        }
        Tag::of(&self.services.tag, tag::Subject { caller, rule: grant.rule(), database: &target.alias })
    }

    /// Exchange, dial, log in.
    async fn reach(&self, identity: &VerifiedIdentity, grant: &Grant) -> Result<Backend, Error> {
        let Services { exchanger, connector, deadlines, .. } = self.services;
        let started = Instant::now();
        let token = exchanger.exchange(grant, identity).await;
        self.hop(Hop::Exchange, started);
        let token = token?;
        let started = Instant::now();
        let caller = cloudsql::Caller { role: grant.role(), own: identity.token(), login: &token };
        let server = connector.dial(&grant.target().instance, caller).await;
        self.hop(Hop::Dial, started);
        let request = backend::LoginRequest {
            role: grant.role(),
            database: &grant.target().database,
            parameters: grant.parameters(),
            password: &token.token,
        };
        let started = Instant::now();
        let result = tokio::time::timeout(deadlines.login, backend::login(server?, request)).await;
        self.hop(Hop::Login, started);
        match result {
            Ok(Err(error @ backend::Error::Broken(_))) => {
                // A TLS 1.3 server refuses a client certificate only here, on the first read.
                connector.forget(&grant.target().instance, caller);
                Err(error.into())
            }
            Ok(result) => Ok(result?),
            Err(_) => Err(Error::LoginDeadline(deadlines.login)),
        }
    }

    /// Greets the client, relays, closes the record.
    async fn relay(&self, login: Login, opened: Opened, wish: watch::Receiver<Wish>) {
        let Opened { backend, mut recorder, tag, grant, _seat } = opened;
        let purpose = login.purpose();
        let Backend { server: ServerStream { stream: server, address, .. }, greeting, key, status } = backend;
        let open =
            SessionOpen { backend_pid: key.pid, instance_address: address, login_us: micros(self.accepted.elapsed()) };
        if let Err(unrecorded) = recorder.record(&Event::SessionOpen(open)) {
            let rejection = self.refuse(&unrecorded.into());
            return login.reject(&rejection.fields(self.id)).await;
        }
        let instance = grant.target().instance.clone();
        let gate = Arc::default();
        let target = cancel::Target { session: self.id, instance, address, key, gate: Arc::clone(&gate) };
        let registered = match self.services.cancel_keys.register(target, login.cancel_secret_bytes()) {
            Ok(registered) => registered,
            Err(error) => {
                self.close_record(&mut recorder, "refused", None);
                let rejection = self.refuse(&error.into());
                return login.reject(&rejection.fields(self.id)).await;
            }
        };
        let greeting = login.accept(&greeting, registered.pid(), registered.secret(), status);
        let greeted = tokio::time::timeout(self.services.deadlines.login, greeting).await;
        let Ok(Ok(client)) = greeted else {
            return self.close_record(&mut recorder, "client", None);
        };
        self.services.metrics.login_accepted();
        let host = host::Host { services: self.services, session: self.id, cancels: &registered };
        let relay = Relay::new(tag, recorder, gate).serving(purpose);
        let summary = relay.run(client.stream, server, wish, &host).await;
        self.finish(summary);
    }

    fn finish(&self, mut summary: Summary) {
        let metrics = &self.services.metrics;
        metrics.statements(summary.recorder.statements());
        metrics.bytes(Direction::ToServer, summary.bytes_in);
        metrics.bytes(Direction::ToClient, summary.bytes_out);
        let last = rejection::farewell(&summary.ending);
        let (reason, sqlstate) = match &summary.ending {
            Ending::Client => ("client", None),
            Ending::Server { fatal } => ("server", fatal.clone()),
            Ending::Wished => ("drain", Some(rejection::ADMIN_SHUTDOWN.to_owned())),
            Ending::Violated(_) => ("refused", None),
            Ending::Misbehaved(_) => ("server_misbehaved", None),
            Ending::Unrecorded => ("unrecorded", None),
            Ending::CancelUnanswered => ("cancel_unanswered", None),
        };
        if summary.busy {
            tracing::warn!(session = %self.id, "the instance may still work for a session that has ended");
        }
        let sqlstate = sqlstate.or_else(|| last.map(|last| last.sqlstate));
        if let Some(state) = &sqlstate {
            tracing::warn!(session = %self.id, reason, sqlstate = %state, "the session was ended");
        }
        let end = SessionEnd {
            reason,
            sqlstate: sqlstate.as_deref(),
            duration_us: micros(self.accepted.elapsed()),
            statements: summary.recorder.statements(),
            bytes_in: summary.bytes_in,
            bytes_out: summary.bytes_out,
        };
        self.write_end(&mut summary.recorder, end);
    }

    fn open_record(&self, identity: &VerifiedIdentity, grant: &Grant, purpose: Purpose) -> Result<Recorder, Error> {
        let target = grant.target();
        let caller = self.caller.clone().unwrap_or_else(|| caller(identity));
        let start = SessionStart {
            caller: &caller,
            claimed: &self.claimed.clone().unwrap_or_default(),
            rule: grant.rule(),
            grant: match grant.how() {
                How::Workforce { .. } => "workforce",
                How::ServiceAccount { .. } => "service_account",
            },
            database: &target.alias,
            database_name: &target.database,
            instance: &target.instance,
            database_user: grant.role(),
            role: grant.startup().role.as_deref(),
            session_authorization: grant.startup().session_authorization.as_deref(),
            client: self.peer.address,
            via: self.peer.via,
            tag: target.tag,
            replication: purpose == Purpose::Replication,
            token_expires: grant.expires_at(),
        };
        Ok(Recorder::open(self.services.auditor.clone(), self.id, start)?)
    }

    /// Ends the record of a session in which nothing ran.
    fn close_record(&self, recorder: &mut Recorder, reason: &str, sqlstate: Option<&str>) {
        let duration_us = micros(self.accepted.elapsed());
        let end = SessionEnd { reason, sqlstate, duration_us, statements: 0, bytes_in: 0, bytes_out: 0 };
        self.write_end(recorder, end);
    }

    fn write_end(&self, recorder: &mut Recorder, end: SessionEnd<'_>) {
        let closed = recorder.close(&Event::SessionEnd(end));
        if closed != Closed::Written {
            self.services.metrics.audit_failed();
            tracing::error!(session = %self.id, lines = ?closed, "the audit log could not take the session's end");
        }
    }

    /// One rejection, one record, one counter, one log line.
    fn refuse(&self, error: &Error) -> Rejection {
        let mut rejection = Rejection::of(error);
        if let Err(unrecorded) = self.record_refusal(error, &rejection) {
            self.services.metrics.audit_failed();
            tracing::error!(session = %self.id, error = %chain(&unrecorded), "a refusal could not be recorded");
            rejection = Rejection::of(&Error::Unrecorded(unrecorded));
        }
        self.services.metrics.login_refused(rejection.metric(), rejection.blame);
        tracing::info!(
            session = %self.id,
            client = %self.peer.address,
            via = self.peer.via.map(tracing::field::display),
            sqlstate = %rejection.sqlstate,
            blame = rejection.blame.as_str(),
            reason = %chain(error),
            "refused"
        );
        rejection
    }

    fn record_refusal(&self, error: &Error, rejection: &Rejection) -> Result<(), crate::audit::Unrecorded> {
        let reason = chain(error);
        let event = Event::Refused(Box::new(crate::audit::event::Refused {
            correlation: self.id.to_string(),
            sqlstate: &rejection.sqlstate,
            message: &rejection.message,
            reason: &reason,
            blame: rejection.blame.as_str(),
            caller: self.caller.as_ref(),
            claimed: self.claimed.as_ref(),
            client: Some(self.peer.address),
            via: self.peer.via,
        }));
        match self.caller {
            Some(_) => self.services.auditor.record(self.id, &event),
            None => self.services.auditor.record_stranger(self.id, &event),
        }
    }

    fn hop(&self, hop: Hop, started: Instant) {
        self.services.metrics.hop(hop, started.elapsed());
    }
}

/// A logged-in server and everything that lives as long as its session.
struct Opened {
    backend: Backend,
    recorder: Recorder,
    tag: Tag,
    grant: Grant,
    _seat: callers::Seat,
}

/// The client's `user` is a hint: the caller's own name or the grant's database user, nothing else.
fn check_user(claimed: &str, identity: &VerifiedIdentity, grant: &Grant) -> Result<(), Error> {
    let label = &identity.facts().label;
    if claimed == label || claimed == grant.role().as_str() {
        return Ok(());
    }
    let (claimed, label, role) = (claimed.to_owned(), label.clone(), grant.role().to_string());
    Err(Error::User { claimed, label, role })
}

/// What a client says of itself, as it may stand in a record: cut, and without what looks like a credential that
/// was put into the wrong field.
fn claim(text: &str) -> String {
    telemetry::redact(text).chars().take(MAX_CLAIM_CHARS).collect()
}

fn caller(identity: &VerifiedIdentity) -> Caller {
    let facts = identity.facts();
    Caller {
        label: facts.label.clone(),
        issuer: facts.issuer.clone(),
        tenant: facts.tenant.clone(),
        object_id: facts.object_id.clone(),
        kind: facts.kind.as_str(),
        app: facts.app.clone(),
        token_id: facts.token_id.clone(),
    }
}

/// An error with its causes, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

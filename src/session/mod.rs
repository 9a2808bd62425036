//! One connection's life, top to bottom.
//!
//! accept → negotiate → verify → authorize → open the record → exchange → dial → log in → greet → relay → close the
//! record. Any error on the way becomes one [`rejection`], one record, one counter, one log line, and stays an error.

mod callers;
mod cancel;
#[cfg(test)]
mod churn_tests;
mod deadlines;
mod host;
mod limits;
mod live;
mod records;
mod rejection;

pub use callers::{Callers, TooMany};
pub use cancel::{CancelKeys, NoKey};
pub use deadlines::Deadlines;
pub use limits::{Limits, Over, TokenAddresses};
pub use live::{Ask, Judge, LOOK_EVERY, Live, Presence, Sessions, keep_time};

use crate::audit::event::{Caller, Claimed, Event, SessionOpen};
use crate::audit::{Auditor, Recorder, Recording};
use crate::backend::{self, Backend};
use crate::cloudsql::{self, Connector, ServerStream};
use crate::federation::{self, Exchanger};
use crate::frontend::{self, Arrival, Asked, ClientStream, Login, Negotiated, Peer, Place, Refused, Silent};
use crate::http::chain;
use crate::identity::{self, CallerId, IdentityFacts, IssuerConfig, VerifiedIdentity, Verifier};
use crate::names::SessionId;
use crate::policy::{self, Grant, Policy};
use crate::relay::tag::{self, Tag, Template};
use crate::relay::{Bounds, Cause, Relay};
use crate::telemetry::{Hop, Metrics};
use crate::time::Clock;
use records::{caller, claim, exchanged, micros};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What every session needs: one generation of what the config says, and, shared by all generations, what lives as long
/// as the process. A connection keeps the one that it came to; what has changed by the time that its caller is known is
/// looked up by [`Judge`].
#[derive(Debug)]
pub struct Services {
    /// The listener's certificate.
    pub tls: Arc<rustls::ServerConfig>,
    /// Checks tokens.
    pub verifier: Arc<Verifier>,
    /// Decides.
    pub policy: Arc<Policy>,
    /// The two together, for sessions of other generations.
    pub judge: Arc<Judge>,
    /// What the tag says.
    pub tag: Template,
    /// Buys database logins.
    pub exchanger: Exchanger,
    /// Dials instances. The next generation has the same, unless what it is made of has changed.
    pub connector: Arc<Connector>,
    /// How much of what clients send is recorded.
    pub recording: Recording,
    /// The log. From here on, but for the deadlines, all is shared by every generation.
    pub auditor: Auditor,
    /// Who is there, and how each is told to end.
    pub sessions: Sessions,
    /// Keys that sessions were given for cancels.
    pub cancel_keys: CancelKeys,
    /// How many sessions each caller has.
    pub callers: Callers,
    /// What each rule's callers have used up.
    pub limits: Limits,
    /// Where tokens were seen.
    pub tokens: TokenAddresses,
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
    /// A limit of the rule is reached.
    #[error(transparent)]
    OverLimit(#[from] Over),
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
    /// The session was to end before it had begun.
    #[error("the session was ended before it began ({})", .0.as_str())]
    Ended(Cause),
    /// The client left while it was being logged in.
    #[error("the client left before it was logged in")]
    Gone,
}

/// One connection, and what is known of it.
struct Connection<'a> {
    services: &'a Services,
    id: SessionId,
    peer: Peer,
    accepted: Instant,
    presence: Presence,
    /// What the client says of itself, and who it is, for a refusal: gone once it is greeted.
    claimed: Option<Box<Claimed>>,
    caller: Option<Box<Caller>>,
}

/// Serves one connection until it is over. Never fails: what goes wrong is told, recorded and counted here.
pub async fn serve(arrival: Box<Arrival>, services: Arc<Services>) {
    services.metrics.connection_accepted();
    let _gauge = services.metrics.session_started();
    let id = SessionId::generate();
    let mut connection = Connection {
        services: &services,
        id,
        peer: arrival.peer(),
        accepted: arrival.accepted(),
        presence: services.sessions.arrive(id),
        claimed: None,
        caller: None,
    };
    // Each stage's future goes with the stage: a session that runs keeps nothing of its log-in.
    if let Some(greeted) = Box::pin(connection.begin(arrival)).await {
        (connection.claimed, connection.caller) = (None, None);
        Box::pin(connection.relay(greeted)).await;
    }
}

impl Connection<'_> {
    /// From the first byte to a session that can begin, if it comes to that: a request for a cancel is none.
    async fn begin(&mut self, arrival: Box<Arrival>) -> Option<Box<Greeted>> {
        let negotiated = Box::pin(self.negotiate(arrival)).await?;
        self.hop(Hop::Startup, self.accepted);
        match negotiated {
            Ok(Negotiated::Login(login, place)) => return Box::pin(self.log_in(login, place)).await,
            Ok(Negotiated::Cancel(request)) => Box::pin(cancel::serve(request, self.peer, self.services)).await,
            Err(refused) => Box::pin(self.turn_back(*refused)).await,
        }
        None
    }

    /// TLS and the start-up packet; `None` where the process leaves before.
    async fn negotiate(&mut self, arrival: Box<Arrival>) -> Option<Result<Negotiated, Box<Refused>>> {
        let Services { tls, deadlines, .. } = self.services;
        let negotiating = async {
            let incoming = arrival.introduce(deadlines.startup).await?;
            self.peer = incoming.peer;
            frontend::negotiate(incoming, tls, deadlines.startup).await
        };
        tokio::select! {
            negotiated = negotiating => Some(negotiated.map_err(Box::new)),
            // This client has no session yet.
            _ = self.presence.to_end() => None,
        }
    }

    /// Tells a client that did not come as far as a log-in why.
    async fn turn_back(&self, Refused { error, client }: Refused) {
        if let frontend::Error::Gone(error) = error {
            tracing::debug!(session = %self.id, client = %self.peer.address, %error, "left during start-up");
            return;
        }
        let rejection = self.refuse(&error.into());
        client.tell(&rejection.fields(self.id)).await;
    }

    /// From the token to the greeting.
    async fn log_in(&mut self, mut login: Box<Login>, mut place: Place) -> Option<Box<Greeted>> {
        let (asked, mut client) = login.parts();
        self.claimed = Some(Box::new(Claimed {
            user: Some(claim(asked.user())),
            database: Some(claim(asked.database())),
            application_name: asked.application_name().as_deref().map(claim),
        }));
        match Box::pin(self.open(asked, &mut client, &mut place)).await {
            Ok(opened) => {
                drop(place);
                Box::pin(self.greet(login, opened)).await
            }
            // Nobody is there to be told, and what the client had is free at once.
            Err(error @ Error::Gone) => {
                self.refuse(&error);
                None
            }
            Err(error) => {
                let rejection = self.refuse(&error);
                login.reject(&rejection.fields(self.id)).await;
                drop(place);
                None
            }
        }
    }

    /// Verify, authorize, open the record, exchange, dial, log in. Every wait of it ends when the client leaves or speaks
    /// unasked, and when the session is to end.
    async fn open(
        &mut self,
        login: &mut Asked,
        client: &mut Silent<'_>,
        place: &mut Place,
    ) -> Result<Box<Opened>, Error> {
        let Services { verifier, policy, clock, .. } = self.services;
        let started = Instant::now();
        let token = login.take_token();
        let identity = self.unless_over(client, verifier.verify(token, self.peer.limited(), clock.now())).await;
        self.hop(Hop::Verify, started);
        let identity = identity?;
        self.caller = Some(Box::new(caller(&identity)));
        let asks = policy.asks_groups(&identity, login.database());
        let identity = if asks { self.unless_over(client, verifier.resolve_groups(identity)).await? } else { identity };
        let request = policy::Request {
            database: login.database(),
            purpose: login.purpose(),
            address: self.peer.limited(),
            parameters: login.parameters(),
        };
        let grant = policy.authorize(&identity, &request)?;
        check_user(login.user(), &identity, &grant)?;
        let facts = identity.facts();
        // Whoever cannot be judged again does not come in.
        let issuer = verifier.issuer(&facts.issuer).ok_or(identity::Error::Issuer)?;
        let seats = self.unless_over(client, self.admit(&identity, &grant, place)).await?;
        let mut recorder = self.open_record(&identity, &grant, login.purpose())?;
        let tag = self.tag(facts, &grant);
        let grant = Arc::new(grant);
        self.make_known(facts, issuer, &grant, login);
        let reached = self.unless_over(client, self.reach(&identity, &grant, &recorder)).await;
        match reached {
            Ok(backend) => Ok(Box::new(Opened { backend, recorder, tag, grant, seats })),
            Err(error) => {
                let reason = match &error {
                    Error::Ended(cause) => cause.as_str(),
                    Error::Gone => "client",
                    _ => "refused",
                };
                self.close_record(&mut recorder, reason, None);
                Err(error)
            }
        }
    }

    /// What `work` brings, unless the session is to end before, or the client leaves or speaks. `work` is dropped then.
    async fn unless_over<T, E: Into<Error>>(
        &self,
        client: &mut Silent<'_>,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            cause = self.presence.to_end() => Err(Error::Ended(cause)),
            broken = client.ends() => Err(match broken {
                frontend::Error::Gone(_) => Error::Gone,
                other => other.into(),
            }),
            done = work => done.map_err(Into::into),
        }
    }

    /// From here on the session is listed, and ended by whatever ends sessions.
    fn make_known(&self, caller: &IdentityFacts, issuer: &Arc<IssuerConfig>, grant: &Arc<Grant>, login: &Asked) {
        let Services { judge, clock, .. } = self.services;
        let now = clock.now();
        let live = Live {
            session: self.id,
            caller: caller.clone(),
            issuer: Arc::clone(issuer),
            grant: Arc::clone(grant),
            purpose: login.purpose(),
            parameters: login.parameters().to_vec(),
            client: self.peer,
            since: now,
        };
        self.presence.given(live, judge, now);
    }

    fn tag(&self, caller: &IdentityFacts, grant: &Grant) -> Tag {
        let target = grant.target();
        if !target.tag {
            return Tag::none();
        }
        Tag::of(&self.services.tag, tag::Subject { caller, rule: grant.rule(), database: &target.alias })
    }

    /// Exchange, dial, log in.
    async fn reach(&self, identity: &VerifiedIdentity, grant: &Grant, recorder: &Recorder) -> Result<Backend, Error> {
        let Services { exchanger, connector, deadlines, .. } = self.services;
        let started = Instant::now();
        let token = exchanger.exchange(grant, identity).await;
        self.hop(Hop::Exchange, started);
        let token = token?;
        recorder.record(&Event::Exchanged(exchanged(grant, &token, started.elapsed())))?;
        let started = Instant::now();
        let id = CallerId::of(identity.facts());
        let caller = cloudsql::Caller { id, role: grant.role(), own: identity.token(), login: &token };
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
            Ok(Err(error @ backend::Error::Refused(_))) => {
                // The token may have been taken back since it was bought; the next login buys another.
                exchanger.forget(grant, identity, &token);
                Err(error.into())
            }
            Ok(Err(error @ backend::Error::Broken(_))) => {
                // A TLS 1.3 server refuses a client certificate only here, on the first read.
                connector.forget(&grant.target().instance, caller);
                Err(error.into())
            }
            Ok(result) => Ok(result?),
            Err(_) => Err(Error::LoginDeadline(deadlines.login)),
        }
    }

    /// Greets the client. Who cannot be greeted has no session: its record is closed.
    async fn greet(&self, login: Box<Login>, opened: Box<Opened>) -> Option<Box<Greeted>> {
        let Opened { backend, mut recorder, tag, grant, seats } = unboxed(opened);
        let purpose = login.asked().purpose();
        let Backend { server: ServerStream { stream: server, address, .. }, greeting, key, status } = backend;
        let open =
            SessionOpen { backend_pid: key.pid, instance_address: address, login_us: micros(self.accepted.elapsed()) };
        if let Err(unrecorded) = recorder.record(&Event::SessionOpen(open)) {
            return self.turn_away(&mut recorder, unrecorded.into(), login).await;
        }
        let instance = grant.target().instance.clone();
        let gate = Arc::default();
        let connector = Arc::clone(&self.services.connector);
        let target = cancel::Target { session: self.id, instance, address, key, gate: Arc::clone(&gate), connector };
        let registered = match self.services.cancel_keys.register(target, login.asked().cancel_secret_bytes()) {
            Ok(registered) => registered,
            Err(error) => return self.turn_away(&mut recorder, error.into(), login).await,
        };
        let greeting = login.accept(&greeting, registered.pid(), registered.secret(), status);
        let Ok(Ok(client)) = tokio::time::timeout(self.services.deadlines.login, greeting).await else {
            self.close_record(&mut recorder, "client", None);
            return None;
        };
        self.services.metrics.login_accepted();
        let bounds = Bounds::of(grant.limits(), seats.of_rule.meter());
        let relay = Relay::new(tag, recorder, gate).serving(purpose).within(bounds);
        let relay = relay.committing(grant.unrecorded_commit());
        Some(Box::new(Greeted { client: client.stream, server, relay, registered, grant, seats }))
    }

    async fn turn_away(&self, recorder: &mut Recorder, error: Error, login: Box<Login>) -> Option<Box<Greeted>> {
        self.close_record(recorder, "refused", None);
        let rejection = self.refuse(&error);
        login.reject(&rejection.fields(self.id)).await;
        None
    }

    /// Relays, and closes the record.
    async fn relay(&self, greeted: Box<Greeted>) {
        let Greeted { client, server, relay, registered, grant, seats: _seats } = unboxed(greeted);
        let host = host::Host::new(self.services, self.id, &registered, grant.rule());
        let summary = relay.run(client, server, self.presence.wish(), &host).await;
        host.close(&summary.ending);
        self.finish(summary);
    }

    fn hop(&self, hop: Hop, started: Instant) {
        self.services.metrics.hop(hop, started.elapsed());
    }
}

/// Its box goes at once: moved out of in place, it would stay to the end of the future that has it.
#[expect(clippy::boxed_local, reason = "that it goes is what this is for")]
fn unboxed<T>(boxed: Box<T>) -> T {
    *boxed
}

/// A logged-in server and everything that lives as long as its session.
struct Opened {
    backend: Backend,
    recorder: Recorder,
    tag: Tag,
    grant: Arc<Grant>,
    seats: limits::Seats,
}

/// A session that can begin.
struct Greeted {
    client: ClientStream,
    server: tokio_rustls::client::TlsStream<tokio::net::TcpStream>,
    relay: Relay,
    registered: cancel::Registered,
    grant: Arc<Grant>,
    seats: limits::Seats,
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

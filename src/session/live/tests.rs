//! Who is told to end, how urgently, and who is not.

use super::*;
use crate::identity::{Dialect, Entra, Overage, Settings, Verifier, Version};
use crate::names::{IssuerName, TenantId};
use crate::policy::testing::grant;
use crate::policy::{AtExpiry, Policy, Rule, Who};
use crate::relay::tag::testing::analyst;
use tokio::time::{Duration, timeout};

const MINUTE: Duration = Duration::from_secs(60);

/// When every session here began.
fn noon() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn after(time: Duration) -> Timestamp {
    later(noon(), time)
}

fn issuer() -> IssuerConfig {
    IssuerConfig {
        name: IssuerName::parse("contoso").unwrap(),
        audiences: vec!["api".to_owned()],
        allowed_apps: Vec::new(),
        allowed_kinds: Vec::new(),
        leeway: Duration::from_secs(1),
        max_token_age: None,
        dialect: Dialect::Entra(Entra {
            tenant: TenantId::parse("6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91").unwrap(),
            version: Version::V2,
            authority: "https://login.example".to_owned(),
            v1_authority: "https://sts.example".to_owned(),
            required_scopes: Vec::new(),
            required_roles: Vec::new(),
            overage: Overage::Deny,
        }),
    }
}

fn live(presence: &Presence, label: &str, grant: Grant) -> Live {
    let address = "192.0.2.7:5000".parse().unwrap();
    Live {
        session: presence.session,
        caller: IdentityFacts { label: label.to_owned(), object_id: format!("oid-of-{label}"), ..analyst() },
        issuer: Arc::new(issuer()),
        grant: Arc::new(grant),
        purpose: Purpose::Statements,
        parameters: Vec::new(),
        client: Peer { address, via: None, balancer: false },
        since: noon(),
    }
}

fn arrived(sessions: &Sessions, label: &str) -> Presence {
    granted(sessions, label, grant())
}

fn granted(sessions: &Sessions, label: &str, grant: Grant) -> Presence {
    let presence = sessions.arrive(SessionId::generate());
    presence.given(live(&presence, label, grant), &judge(issuer(), &[label]), noon());
    presence
}

/// A policy that gives `orders` to these, as the grants of these tests do.
fn judge(issuer: IssuerConfig, who: &[&str]) -> Arc<Judge> {
    let Grant { rule, target, how, lifetime, .. } = grant();
    let ids = who.iter().map(|label| format!("oid-of-{label}")).collect();
    let rule = Rule {
        name: rule,
        issuer: issuer.name.clone(),
        databases: vec![target.alias.clone()],
        who: Who { object_ids: ids, ..Who::default() },
        how,
        replication: false,
        startup: crate::policy::Powers::default(),
        limits: crate::policy::Limits::default(),
        lifetime,
        durability: crate::audit::Durability::default(),
        recorded_parameters: crate::audit::Parameters::default(),
        texts: crate::audit::sealing::Texts::default(),
        unrecorded_commit: crate::audit::UnrecordedCommit::default(),
    };
    let http = crate::http::Client::new(None).unwrap();
    let verifier = Verifier::new(vec![issuer], http, Settings { keys: MINUTE, bad_tokens_per_address: 1 });
    let policy = Policy::new(vec![target], vec![rule]);
    Arc::new(Judge { policy: Arc::new(policy), verifier: Arc::new(verifier), drain: MINUTE })
}

fn wish(presence: &Presence) -> Wish {
    *presence.wish().borrow()
}

#[test]
fn who_is_chosen_is_told_and_nobody_else() {
    let sessions = Sessions::default();
    let (one, two) = (arrived(&sessions, "one"), arrived(&sessions, "two"));
    let nameless = sessions.arrive(SessionId::generate());
    let idle = Wish::WhenIdle(Cause::Operator);
    let drain = Ask::Drain(after(MINUTE));
    assert_eq!(sessions.end(Cause::Operator, drain, |live| live.caller.label == "one"), 1);
    assert_eq!((wish(&one), wish(&two), wish(&nameless)), (idle, Wish::Run, Wish::Run));
    assert_eq!(sessions.look(after(MINUTE / 2)), 0);
    assert_eq!(sessions.look(after(MINUTE)), 1, "the limit has come");
    assert_eq!((wish(&one), wish(&two)), (Wish::Now(Cause::Operator), Wish::Run));
    assert_eq!(sessions.end(Cause::Operator, Ask::Now, |_| true), 2, "who is not logged in yet is nobody's session");
    assert_eq!((wish(&two), wish(&nameless)), (Wish::Now(Cause::Operator), Wish::Run));
}

#[test]
fn the_earliest_limit_stands() {
    let sessions = Sessions::default();
    let one = arrived(&sessions, "one");
    for limit in [MINUTE * 2, MINUTE, MINUTE * 3] {
        sessions.end(Cause::Operator, Ask::Drain(after(limit)), |_| true);
    }
    sessions.look(after(MINUTE));
    assert_eq!(wish(&one), Wish::Now(Cause::Operator));
}

#[test]
fn a_session_drains_when_its_token_expires_by_the_issuers_clock_and_ends_after_the_grace() {
    let sessions = Sessions::default();
    let lifetime = Lifetime { grace: MINUTE, ..Lifetime::default() };
    let expires_at = after(Duration::from_secs(600));
    let short = |at_expiry| Grant { lifetime: Lifetime { at_expiry, ..lifetime }, expires_at, ..grant() };
    let drained = granted(&sessions, "drained", short(AtExpiry::Drain));
    let kept = granted(&sessions, "kept", short(AtExpiry::Keep));
    let ended = granted(&sessions, "ended", short(AtExpiry::End));
    let gone = Cause::GrantExpired(expires_at);
    for (second, expected) in [
        (600, [Wish::Run, Wish::Run, Wish::Run]),
        (601, [Wish::WhenIdle(gone), Wish::Run, Wish::Now(gone)]),
        (660, [Wish::WhenIdle(gone), Wish::Run, Wish::Now(gone)]),
        (661, [Wish::Now(gone), Wish::Run, Wish::Now(gone)]),
        (999_999, [Wish::Now(gone), Wish::Run, Wish::Now(gone)]),
    ] {
        sessions.look(after(Duration::from_secs(second)));
        assert_eq!([&drained, &kept, &ended].map(wish), expected, "{second}");
    }
}

#[tokio::test]
async fn a_new_policy_ends_whom_it_does_not_give_the_session_and_nobody_else() {
    let sessions = Sessions::default();
    let (one, two) = (arrived(&sessions, "one"), arrived(&sessions, "two"));
    assert_eq!(sessions.judge(judge(issuer(), &["one", "two"]), noon()), 0);
    assert_eq!([&one, &two].map(wish), [Wish::Run; 2]);
    assert_eq!(sessions.judge(judge(issuer(), &["two"]), noon()), 1);
    assert_eq!([&one, &two].map(wish), [Wish::WhenIdle(Cause::Policy), Wish::Run]);
    sessions.look(after(MINUTE));
    assert_eq!([&one, &two].map(wish), [Wish::Now(Cause::Policy), Wish::Run]);
}

#[tokio::test]
async fn an_issuer_that_would_not_accept_the_token_takes_its_sessions_away() {
    let stricter = |change: &dyn Fn(&mut IssuerConfig)| {
        let mut issuer = issuer();
        change(&mut issuer);
        issuer
    };
    let entra = |issuer: &mut IssuerConfig, change: &dyn Fn(&mut Entra)| {
        if let Dialect::Entra(entra) = &mut issuer.dialect {
            change(entra);
        }
    };
    for (what, issuer, kept) in [
        ("another leeway", stricter(&|issuer| issuer.leeway = MINUTE), true),
        ("this app", stricter(&|issuer| issuer.allowed_apps = vec![analyst().app]), true),
        ("another app", stricter(&|issuer| issuer.allowed_apps = vec!["other".to_owned()]), false),
        ("software", stricter(&|issuer| issuer.allowed_kinds = vec![crate::identity::CallerKind::App]), false),
        ("another audience", stricter(&|issuer| issuer.audiences = vec!["other".to_owned()]), false),
        ("a scope", stricter(&|issuer| entra(issuer, &|e| e.required_scopes = vec!["x".to_owned()])), false),
        (
            "another host",
            stricter(&|issuer| entra(issuer, &|e| e.authority = "https://other.example".to_owned())),
            false,
        ),
        ("another name", stricter(&|issuer| issuer.name = IssuerName::parse("other").unwrap()), false),
    ] {
        let sessions = Sessions::default();
        let one = arrived(&sessions, "one");
        assert_eq!(sessions.judge(judge(issuer, &["one"]), noon()), usize::from(!kept), "{what}");
        assert_eq!(wish(&one) == Wish::Run, kept, "{what}");
    }
}

#[tokio::test]
async fn who_was_granted_by_what_is_no_more_is_judged_by_what_is() {
    let sessions = Sessions::default();
    let late = sessions.arrive(SessionId::generate());
    let earlier = judge(issuer(), &["one"]);
    let now = judge(issuer(), &["two"]);
    sessions.judge(Arc::clone(&now), noon());
    late.given(live(&late, "one", grant()), &earlier, noon());
    assert_eq!(wish(&late), Wish::WhenIdle(Cause::Policy), "let in by a policy that was replaced meanwhile");
    let fresh = sessions.arrive(SessionId::generate());
    fresh.given(live(&fresh, "two", grant()), &now, noon());
    assert_eq!(wish(&fresh), Wish::Run);
}

#[tokio::test]
async fn a_reload_gives_sessions_their_rules_new_length() {
    let sessions = Sessions::default();
    let one = arrived(&sessions, "one");
    let mut shorter = judge(issuer(), &["one"]);
    let mut rules = shorter.policy.rules().to_vec();
    rules[0].lifetime.max_session = Some(MINUTE);
    let targets = shorter.policy.databases().cloned().collect();
    Arc::get_mut(&mut shorter).unwrap().policy = Arc::new(Policy::new(targets, rules));
    assert_eq!(sessions.judge(shorter, after(MINUTE * 2)), 0);
    assert_eq!(wish(&one), Wish::WhenIdle(Cause::SessionLength(MINUTE)));
}

#[test]
fn a_wish_becomes_more_urgent_and_never_less() {
    let sessions = Sessions::default();
    let one = arrived(&sessions, "one");
    for (told, stands) in [
        (Wish::WhenIdle(Cause::Policy), Wish::WhenIdle(Cause::Policy)),
        (Wish::WhenIdle(Cause::Shutdown), Wish::WhenIdle(Cause::Policy)),
        (Wish::Now(Cause::Operator), Wish::Now(Cause::Operator)),
        (Wish::Now(Cause::Shutdown), Wish::Now(Cause::Operator)),
        (Wish::WhenIdle(Cause::Shutdown), Wish::Now(Cause::Operator)),
        (Wish::Run, Wish::Now(Cause::Operator)),
    ] {
        sessions.wish_everybody(told);
        assert_eq!(wish(&one), stands, "{told:?}");
    }
}

#[test]
fn a_process_that_leaves_reaches_who_is_there_and_who_comes() {
    let sessions = Sessions::default();
    let (one, nameless) = (arrived(&sessions, "one"), sessions.arrive(SessionId::generate()));
    let leaving = Wish::WhenIdle(Cause::Shutdown);
    sessions.wish_everybody(leaving);
    let late = sessions.arrive(SessionId::generate());
    assert_eq!([&one, &nameless, &late].map(wish), [leaving; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_the_end_ends_with_it_and_an_entry_with_its_connection() {
    let sessions = Sessions::default();
    let one = arrived(&sessions, "one");
    assert!(timeout(Duration::from_secs(3600), one.to_end()).await.is_err());
    let (cause, _) = tokio::join!(one.to_end(), async { sessions.end(Cause::Policy, Ask::Now, |_| true) });
    assert_eq!(cause, Cause::Policy);
    assert_eq!(one.to_end().await, Cause::Policy, "who asks later is told too");
    assert_eq!(sessions.live().len(), 1);
    drop(one);
    assert!(sessions.live().is_empty() && sessions.lock().entries.is_empty());
}

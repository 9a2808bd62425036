//! Who is told to end, how urgently, and who is not.

use super::*;
use crate::policy::testing::grant;
use crate::relay::tag::testing::analyst;
use tokio::time::{Duration, timeout};

fn live(presence: &Presence, label: &str) -> Live {
    let address = "192.0.2.7:5000".parse().unwrap();
    Live {
        session: presence.session,
        caller: IdentityFacts { label: label.to_owned(), ..analyst() },
        grant: Arc::new(grant()),
        purpose: Purpose::Statements,
        client: Peer { address, via: None, balancer: false },
        since: Timestamp::UNIX_EPOCH,
    }
}

fn arrived(sessions: &Sessions, label: &str) -> Presence {
    let presence = sessions.arrive(SessionId::generate());
    presence.given(live(&presence, label));
    presence
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
    assert_eq!(sessions.wish(idle, |live| live.caller.label == "one"), 1);
    assert_eq!(sessions.wish(idle, |live| live.caller.label == "one"), 0, "told already");
    assert_eq!((wish(&one), wish(&two), wish(&nameless)), (idle, Wish::Run, Wish::Run));
    assert_eq!(sessions.wish(idle, |_| true), 1, "who is not logged in yet is nobody's session");
    assert_eq!(wish(&nameless), Wish::Run);
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
        sessions.wish(told, |_| true);
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
    let (cause, _) = tokio::join!(one.to_end(), async { sessions.wish(Wish::Now(Cause::Policy), |_| true) });
    assert_eq!(cause, Cause::Policy);
    assert_eq!(one.to_end().await, Cause::Policy, "who asks later is told too");
    assert_eq!(sessions.live().len(), 1);
    drop(one);
    assert!(sessions.live().is_empty() && sessions.lock().entries.is_empty());
}

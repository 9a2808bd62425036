//! Who gets a session, who waits for one, and what is remembered of callers who have left.

use super::*;
use crate::policy::Line;
use crate::relay::tag::testing::analyst;
use std::cell::RefCell;
use tokio::time::{advance, timeout};

const PATIENCE: Duration = Duration::from_secs(10);

fn grant(rule: &str, limits: policy::Limits) -> Grant {
    Grant { rule: RuleName::parse(rule).unwrap(), limits, ..policy::testing::grant() }
}

fn caller(object_id: &str) -> IdentityFacts {
    IdentityFacts { object_id: object_id.to_owned(), ..analyst() }
}

fn waiting(places: usize) -> Line {
    Line { places, patience: PATIENCE }
}

async fn enter(limits: &Limits, who: &str, grant: &Grant) -> Result<Seat, Over> {
    limits.enter(&caller(who), grant, |_| true).await
}

fn rule() -> RuleName {
    RuleName::parse("people").unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_is_over_is_refused_and_others_are_not_hit() {
    let limits = Limits::default();
    let bounds = policy::Limits { sessions: Some(3), sessions_per_caller: Some(2), ..policy::Limits::default() };
    let people = grant("people", bounds);
    let own = [enter(&limits, "a", &people).await.unwrap(), enter(&limits, "a", &people).await.unwrap()];
    assert_eq!(enter(&limits, "a", &people).await.err(), Some(Over::SessionsPerCaller(rule(), 2)));
    let other = enter(&limits, "b", &people).await.unwrap();
    assert_eq!(enter(&limits, "c", &people).await.err(), Some(Over::Sessions(rule(), 3)));
    assert!(enter(&limits, "a", &grant("another", people.limits().clone())).await.is_ok(), "another rule is another");
    assert!(Arc::ptr_eq(own[0].meter(), own[1].meter()) && !Arc::ptr_eq(own[0].meter(), other.meter()));
    drop(own);
    let again = enter(&limits, "c", &people).await;
    assert!(again.is_ok());
    drop((other, again));
    assert_eq!(limits.remembered(), (0, 0));
    assert!(lock(&limits.state).rules.is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_let_in_in_order_and_no_later_than_its_patience() {
    let limits = Limits::default();
    let bounds = policy::Limits { sessions: Some(1), line: Some(waiting(2)), ..policy::Limits::default() };
    let people = grant("people", bounds);
    let first = enter(&limits, "a", &people).await.unwrap();
    let waits = RefCell::new(Vec::new());
    let wait = async |who: &'static str| {
        let told = |limit| {
            waits.borrow_mut().push(limit);
            true
        };
        let seat = limits.enter(&caller(who), &people, told).await;
        (who, seat)
    };
    let (two, three, four) = (wait("b"), wait("c"), wait("d"));
    tokio::pin!(two, three, four);
    assert!(timeout(Duration::from_secs(1), &mut two).await.is_err());
    assert!(timeout(Duration::from_secs(1), &mut three).await.is_err());
    assert!(timeout(Duration::from_secs(1), &mut four).await.is_err());
    drop(first);
    let turn = tokio::select! {
        biased;
        done = &mut four => done,
        done = &mut three => done,
        done = &mut two => done,
    };
    let (who, seat) = turn;
    assert_eq!((who, seat.is_ok()), ("b", true), "first come, first served");
    let begun = Instant::now();
    let (who, refused) = three.await;
    assert_eq!((who, refused.err()), ("c", Some(Over::Sessions(rule(), 1))));
    assert_eq!(begun.elapsed() + Duration::from_secs(2), PATIENCE, "its patience, less what it has waited");
    drop(seat);
    assert!(four.await.1.is_ok(), "who gave up is passed over");
    assert_eq!(*waits.borrow(), [Limit::Sessions; 3]);
    assert_eq!(limits.remembered(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_callers_line_is_short_and_nobody_else_stands_in_it() {
    let limits = Limits::default();
    let bounds = policy::Limits { sessions_per_caller: Some(1), line: Some(waiting(1)), ..policy::Limits::default() };
    let people = grant("people", bounds);
    let seat = enter(&limits, "a", &people).await.unwrap();
    let second = enter(&limits, "a", &people);
    tokio::pin!(second);
    assert!(timeout(Duration::from_secs(1), &mut second).await.is_err());
    let third = timeout(Duration::ZERO, enter(&limits, "a", &people)).await.expect("not even a wait");
    assert_eq!(third.err(), Some(Over::SessionsPerCaller(rule(), 1)));
    assert!(timeout(Duration::ZERO, enter(&limits, "b", &people)).await.is_ok_and(|seat| seat.is_ok()));
    drop(seat);
    assert!(timeout(Duration::ZERO, second).await.is_ok_and(|seat| seat.is_ok()));
}

#[tokio::test(start_paused = true)]
async fn where_nobody_more_may_wait_one_more_is_refused_and_leaves_nothing_behind() {
    let limits = Limits::default();
    let bounds = policy::Limits { sessions: Some(1), line: Some(waiting(9)), ..policy::Limits::default() };
    let people = grant("people", bounds.clone());
    let seat = enter(&limits, "a", &people).await.unwrap();
    let refused = timeout(Duration::ZERO, limits.enter(&caller("b"), &people, |_| false)).await.expect("no wait");
    assert_eq!(refused.err(), Some(Over::Sessions(rule(), 1)));
    assert_eq!(lock(&limits.state).rules[&rule()].line.len(), 0);
    drop(seat);
    assert_eq!(limits.remembered(), (0, 0));
    let slow = grant("people", policy::Limits { sessions: None, connects_per_minute: Some(1), ..bounds });
    let patient =
        grant("people", policy::Limits { line: Some(Line { places: 1, patience: MINUTE }), ..slow.limits().clone() });
    drop(enter(&limits, "a", &patient).await.unwrap());
    let refused = timeout(Duration::ZERO, limits.enter(&caller("a"), &patient, |_| false)).await.expect("no wait");
    assert_eq!(refused.err(), Some(Over::Connects(rule(), 1)));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_the_line_leaves_nothing_behind() {
    let limits = Limits::default();
    let bounds = policy::Limits { sessions: Some(1), line: Some(waiting(1)), ..policy::Limits::default() };
    let people = grant("people", bounds);
    let seat = enter(&limits, "a", &people).await.unwrap();
    // A seat that is given to a login which is dropped in that instant goes on to the next.
    let (gone, next) = (enter(&limits, "b", &people), enter(&limits, "c", &people));
    let (mut gone, mut next) = (Box::pin(gone), Box::pin(next));
    assert!(timeout(Duration::ZERO, &mut gone).await.is_err() && timeout(Duration::ZERO, &mut next).await.is_err());
    drop(seat);
    drop(gone);
    let seat = timeout(Duration::ZERO, next).await.expect("its turn").unwrap();
    let waiting = enter(&limits, "b", &people);
    assert!(timeout(Duration::ZERO, waiting).await.is_err());
    assert_eq!(lock(&limits.state).rules[&rule()].line.len(), 0);
    drop(seat);
    assert_eq!(limits.remembered(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn connects_are_counted_past_the_session_and_wait_their_turn() {
    let limits = Limits::default();
    let bounds = policy::Limits { connects_per_minute: Some(2), ..policy::Limits::default() };
    let people = grant("people", bounds.clone());
    for _ in 0..2 {
        drop(enter(&limits, "a", &people).await.unwrap());
    }
    assert_eq!(enter(&limits, "a", &people).await.err(), Some(Over::Connects(rule(), 2)));
    assert!(enter(&limits, "b", &people).await.is_ok());
    assert_eq!(limits.remembered(), (2, 2), "leaving gives nothing back");
    advance(Duration::from_secs(30)).await;
    assert!(enter(&limits, "a", &people).await.is_ok(), "half a minute is one connect");
    assert_eq!(enter(&limits, "a", &people).await.err(), Some(Over::Connects(rule(), 2)));

    let patient = grant("people", policy::Limits { line: Some(Line { places: 2, patience: MINUTE }), ..bounds });
    let (one, two) = (enter(&limits, "a", &patient), enter(&limits, "a", &patient));
    let (mut one, mut two) = (Box::pin(one), Box::pin(two));
    assert!(timeout(Duration::from_secs(29), &mut one).await.is_err());
    assert!(timeout(Duration::ZERO, &mut two).await.is_err());
    assert_eq!(enter(&limits, "a", &patient).await.err(), Some(Over::Connects(rule(), 2)), "no place is left");
    assert!(timeout(Duration::from_secs(1), one).await.is_ok_and(|seat| seat.is_ok()));
    let begun = Instant::now();
    assert!(two.await.is_ok());
    assert_eq!(begun.elapsed(), Duration::from_secs(30), "one after the other");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_forgotten_for_somebody_elses_sake() {
    let limits = Limits::default();
    let bounds = policy::Limits { connects_per_minute: Some(1), ..policy::Limits::default() };
    let people = grant("people", bounds);
    for n in 0..MAX_RECENT {
        drop(enter(&limits, &n.to_string(), &people).await.unwrap());
    }
    assert_eq!(limits.remembered(), (MAX_RECENT, MAX_RECENT));
    assert_eq!(enter(&limits, "new", &people).await.err(), Some(Over::Callers(rule())));
    assert_eq!(enter(&limits, "0", &people).await.err(), Some(Over::Connects(rule(), 1)), "its limit stands");
    let unlimited = grant("another", policy::Limits::default());
    assert!(enter(&limits, "new", &unlimited).await.is_ok(), "where nothing is limited nobody is refused");
    advance(MINUTE).await;
    assert!(enter(&limits, "new", &people).await.is_ok());
    assert_eq!(limits.remembered(), (1, 1), "time has made up for all the others");
}

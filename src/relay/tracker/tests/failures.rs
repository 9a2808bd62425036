//! What fails beside any event, what a failed message leaves behind, and the server's last word.

use super::*;

/// Which implicit transaction an error at Sync undid shows by its place among the ends.
#[test]
fn errors_beside_events_and_ends_stand_in_the_servers_order() {
    let mut s = Session::new();
    for _ in 0..2 {
        s.parse("", "insert into t values (1)");
        s.bind("", "");
        s.execute("");
        s.tracker.sync();
    }
    s.server("1 2 C(INSERT_0_1) E(23503) Z(I) 1 2 C(INSERT_0_1) Z(I)");
    let told = |line: &Settled| match line {
        Settled::End(end) => format!("{} {:?}", end.event, end.outcome),
        Settled::SyncError(sqlstate) => sqlstate.clone(),
    };
    let told: Vec<String> = s.tracker.take_settled().iter().map(told).collect();
    assert_eq!(told, ["0 Ok", "23503", "1 Ok"]);
}

/// The next read finds COPY's end missing, and PostgreSQL gives up: that is no further statement of the Query.
#[test]
fn a_last_word_after_an_error_is_not_of_the_query_that_has_failed() {
    let mut s = Session::new();
    s.query();
    s.server("G E(08P01)");
    s.tracker.server_fatal("08P01", s.now);
    s.tracker.finish(s.now);
    assert_eq!(s.ends(), ["0.0:error/08P01"]);
    let mut s = Session::new();
    s.tracker.function_call(30, s.now);
    s.server("E(42883)");
    s.tracker.server_fatal("57P01", s.now);
    s.tracker.finish(s.now);
    assert_eq!(s.ends(), ["0.0:unknown/42883"]);
}

#[test]
fn a_last_word_is_what_the_running_statement_ends_with() {
    let mut s = Session::new();
    s.query();
    s.server("T D C(SELECT_1) T");
    s.tracker.server_fatal("57P01", s.now);
    s.tracker.finish(s.now);
    assert_eq!(s.ends(), ["0.0:ok SELECT 1 +", "0.1:error/57P01"]);
    let mut s = Session::new();
    s.tracker.sync();
    s.tracker.server_fatal("57P01", s.now);
    assert_eq!((s.ends().len(), s.tracker.take_sync_errors()), (0, vec!["57P01".to_owned()]));
}

/// A session in a transaction, with `SELECT 1` bound to the unnamed portal.
fn bound_in_a_transaction() -> Session {
    let mut s = Session::new();
    s.query();
    s.server("C(BEGIN) Z(T)");
    s.parse("", "SELECT 1");
    s.bind("", "");
    s.tracker.sync();
    s.server("1 2 Z(T)");
    s.tracker.take_ends();
    s
}

/// PostgreSQL answers an Execute of a portal whose Bind failed with `EmptyQueryResponse`: nothing ran.
#[test]
fn what_was_bound_before_a_bind_that_failed_is_not_said_to_have_run() {
    let mut s = bound_in_a_transaction();
    s.parse("other", "SELECT $1::int");
    s.bind("", "other");
    s.tracker.sync();
    s.server("1 E(22P02) Z(E)");
    assert_eq!(s.ends(), ["2.0:error/22P02", "1.0:bound"]);
    let place = s.execute("");
    assert_eq!((place.event, place.doubtful), (3, true));
    s.tracker.sync();
    s.server("I Z(E)");
    let ends = s.tracker.take_ends();
    assert_eq!((ends[0].event, ends[0].outcome), (3, Outcome::Ok));
    assert!(ends[0].text_doubtful && ends[0].text_of.is_none(), "{ends:?}");
}

#[test]
fn a_portal_whose_bind_failed_runs_nothing_whatever_its_name() {
    let mut s = bound_in_a_transaction();
    s.parse("other", "SELECT $1::int");
    s.bind("p", "other");
    s.tracker.sync();
    s.execute("p");
    s.tracker.sync();
    s.server("1 E(22P02) Z(E) I Z(E)");
    let ends = s.tracker.take_ends();
    let end = ends.iter().find(|end| end.outcome == Outcome::Ok).unwrap();
    assert!(end.text_doubtful && end.text_of.is_none(), "{end:?}");
}

#[test]
fn after_a_query_that_failed_nothing_is_certain_of_the_unnamed_portal() {
    let mut s = bound_in_a_transaction();
    s.query();
    s.server("E(22012) Z(E)");
    assert_eq!(s.ends(), ["1.0:bound", "2.0:error/22012"]);
    let place = s.execute("");
    assert_eq!((place.event, place.doubtful), (3, true));
    s.tracker.sync();
    s.server("E(25P02) Z(E)");
    let ends = s.tracker.take_ends();
    assert_eq!((ends[0].sqlstate.as_deref(), ends[0].text_of), (Some("25P02"), None));
}

/// In a transaction that has failed these are refused before they touch it.
#[test]
fn what_is_refused_in_a_failed_transaction_leaves_the_unnamed_portal_certain() {
    let mut s = bound_in_a_transaction();
    s.parse("", "SELECT 2");
    s.tracker.sync();
    s.server("E(42601) Z(E)");
    for refused in ["E(25P02) Z(E)", "E(26000) Z(E)"] {
        s.bind("", "other");
        s.tracker.sync();
        s.server(refused);
        s.query();
        s.server("E(25P02) Z(E)");
    }
    s.tracker.take_ends();
    let place = s.execute("");
    assert_eq!((place.event, place.doubtful), (1, false));
    s.tracker.sync();
    s.server("E(25P02) Z(E)");
    s.tracker.take_ends();
    // A savepoint is gone back to, and code runs again: it may raise what it likes, at any time.
    let mut s = bound_in_a_transaction();
    s.query();
    s.server("E(25P02) Z(E)");
    assert!(s.execute("").doubtful, "the transaction had not failed before");
    let mut s = bound_in_a_transaction();
    s.parse("", "selec");
    s.tracker.sync();
    s.server("E(42601) Z(E)");
    s.parse("r", "rollback to a");
    s.bind("r", "r");
    s.execute("r");
    s.bind("", "other");
    s.tracker.sync();
    s.server("1 2 C(ROLLBACK) E(26000) Z(E)");
    assert!(s.execute("").doubtful, "code ran again");
}

/// What says nothing has an empty answer by right, and is no reason for doubt.
#[test]
fn an_empty_statement_is_what_ran() {
    let mut s = Session::new();
    for (event, text) in ["", " ; /* nothing */ -- at all"].into_iter().enumerate() {
        s.parse("", text);
        s.bind("", "");
        s.execute("");
        s.tracker.sync();
        s.server("1 2 I Z(I)");
        let ends = s.tracker.take_ends();
        assert_eq!((ends[0].event, ends[0].text_doubtful), (event as u64, false));
    }
}

//! What names mean: one text, one of several, or none that can be told.

use super::*;

/// All sent ahead: whether the second Parse succeeds is not known when the Bind's begin line is written.
#[test]
fn a_name_that_may_mean_two_texts_is_doubtful_at_first_and_told_at_the_end() {
    for (answers, text_of) in [("1 Z(I) 1 Z(I) 2 C(SELECT_1) Z(I)", 1), ("1 Z(I) E(42601) Z(I) 2 C(SELECT_1) Z(I)", 0)]
    {
        let mut s = Session::new();
        for text in ["SELECT 1", "SELECT 2"] {
            s.parse("s", text);
            s.tracker.sync();
        }
        let (bound, executed) = (s.bind("", "s"), s.execute(""));
        s.tracker.sync();
        assert!(bound.doubtful && bound.event == 2 && executed.event == 2, "neither text is continued: {bound:?}");
        s.server(answers);
        let ends = s.tracker.take_ends();
        let end = ends.iter().find(|end| end.event == 2).unwrap();
        assert_eq!((end.outcome, end.text_of), (Outcome::Ok, Some(text_of)));
    }
}

/// Names that are not ASCII are compared after conversion to the server's encoding: two spellings can be one name.
#[test]
fn names_beyond_ascii_are_always_doubtful() {
    let mut s = Session::new();
    s.parse("\u{fc}", "SELECT 1");
    s.tracker.sync();
    s.server("1 Z(I)");
    let place = s.bind("", "\u{fc}");
    s.execute("");
    s.tracker.sync();
    s.server("2 C(SELECT_1) Z(I)");
    assert!(place.doubtful && place.event == 1);
    assert!(s.tracker.take_ends().iter().all(|end| end.text_of.is_none()));
}

#[test]
fn sql_level_prepare_and_execute_are_followed_where_their_names_can_be_read() {
    let mut s = Session::new();
    let now = s.now;
    let query = |s: &mut Session, text: &str, answers: &str| {
        let event = s.tracker.query(text.as_bytes(), text.len() as u64, 20, now);
        s.server(answers);
        (event, s.tracker.take_ends().last().unwrap().executes)
    };
    s.parse("kept", "SELECT 7");
    s.tracker.sync();
    s.server("1 Z(I)");
    let (prepared, _) = query(&mut s, "prepare p as select 1", "C(PREPARE) Z(I)");
    assert_eq!(query(&mut s, "/* x */ EXECUTE P", "T D C(SELECT_1) Z(I)").1, Some(prepared));
    let by_protocol = s.bind("", "p");
    assert_eq!((&*by_protocol.text.unwrap().head, by_protocol.doubtful), (b"prepare p as select 1".as_slice(), false));
    assert!(!s.bind("x", "kept").doubtful, "another name is not touched");
    s.tracker.sync();
    s.server("2 2 Z(I)");
    query(&mut s, "deallocate p", "C(DEALLOCATE) Z(I)");
    assert_eq!(query(&mut s, "execute p", "E(26000) Z(I)").1, None);
    query(&mut s, "select 1; prepare p as select 2", "C(SELECT_1) C(PREPARE) Z(I)");
    assert_eq!(query(&mut s, "execute p", "C(SELECT_1) Z(I)").1, None, "which text that is cannot be told");
    assert!(s.bind("", "kept").doubtful);
}

/// In a transaction block an empty Query leaves the unnamed portal, which can be executed again.
#[test]
fn an_empty_query_leaves_the_unnamed_portal() {
    let mut s = Session::new();
    s.parse("", "SELECT generate_series(1, 3)");
    s.bind("", "");
    s.execute("");
    s.tracker.sync();
    s.server("1 2 D s Z(T)");
    s.tracker.query(b" ", 1, 6, s.now);
    s.server("I Z(T)");
    assert_eq!(&*s.execute("").text.unwrap().head, b"SELECT generate_series(1, 3)");
}

/// PREPARE and DEALLOCATE in SQL share the protocol's namespace: what a name means by now is not known.
#[test]
fn sql_level_names_make_remembered_texts_doubtful_and_continue_no_event() {
    let mut s = Session::new();
    s.parse("s1", "SELECT 1");
    s.tracker.sync();
    s.query();
    s.server("1 Z(I) C(DEALLOCATE) C(PREPARE) Z(I)");
    assert_eq!(s.ends(), ["1.0:ok DEALLOCATE 0 +", "1.1:ok PREPARE 0"]);
    let place = s.bind("", "s1");
    assert!(place.doubtful && place.event == 2);
    s.parse("s2", "SELECT 2");
    s.query();
    s.server("2 1 C(DISCARD_ALL) Z(I)");
    assert!(s.bind("", "s2").text.is_none(), "DISCARD ALL has dropped it");
    assert!(s.ends().contains(&"0.0:parsed".to_owned()));
}

/// PostgreSQL keys statements and portals by the first 63 bytes.
#[test]
fn a_long_name_cannot_borrow_another_statements_text() {
    let mut s = Session::new();
    let (a, b) = (format!("{}1", "k".repeat(63)), format!("{}2", "k".repeat(63)));
    s.parse(&b, "SELECT 1");
    s.server("1");
    s.tracker.close(Target::Statement, a.as_bytes()); // the server drops B: same 63 bytes
    s.server("3");
    s.parse(&a, "DELETE FROM orders");
    s.server("1");
    let place = s.bind("", &b); // the server binds the DELETE, which is event 1
    s.execute("");
    s.server("2 C(DELETE_5)");
    let ends = s.ends();
    assert!(place.event != 0, "recorded as the execution of event 0, SELECT 1: {ends:?}");
}

#[test]
fn a_failed_parse_leaves_the_earlier_statement_of_that_name() {
    let mut s = Session::new();
    s.parse("s", "SELECT 1");
    s.tracker.sync();
    s.parse("s", "SELECT 2");
    s.tracker.sync();
    s.server("1 Z(I) E(42P05) Z(I)");
    assert_eq!(s.ends(), ["1.0:error/42P05"]);
    assert_eq!(s.bind("", "s").event, 0, "the earlier one's event goes on");
    assert_eq!(&*s.bind("", "s").text.unwrap().head, b"SELECT 1");
}

#[test]
fn a_skipped_query_leaves_the_unnamed_statement() {
    let mut s = Session::new();
    s.parse("", "DELETE FROM orders");
    s.tracker.sync();
    s.server("1 Z(I)");
    s.execute("no such portal");
    s.query();
    s.tracker.sync();
    s.server("E(34000) Z(I)");
    assert_eq!(s.bind("", "").event, 0, "the text of what runs is missing");
}

/// SQL within a function gives names that nobody sees from outside.
#[test]
fn what_has_no_text_that_is_known_is_never_said_to_be_certain() {
    let mut s = Session::new();
    s.query();
    s.server("C(DO) Z(I)");
    let (bound, executed) = (s.bind("", "s"), s.execute(""));
    assert!(bound.is_unknown() && bound.doubtful && bound.text.is_none(), "{bound:?}");
    assert!(executed.is_unknown() && executed.doubtful && executed.event == bound.event, "{executed:?}");
    let cursor = s.execute("refcursor");
    assert!(cursor.is_unknown() && cursor.doubtful, "{cursor:?}");
    s.parse("", "SELECT 1");
    assert!(!s.bind("", "").is_unknown() && !s.execute("").doubtful);
}

#[test]
fn a_held_cursor_is_doubtful_once_its_transaction_is_over() {
    let mut s = Session::new();
    let declare = b"declare c cursor with hold for select 1";
    s.query();
    s.tracker.query(declare, declare.len() as u64, 50, s.now);
    s.query();
    s.server("C(BEGIN) Z(T) C(DECLARE_CURSOR) Z(T) C(COMMIT) Z(I)");
    assert!(s.execute("c").is_unknown());
    // Sent ahead: if the cursor is there, the Bind fails and the cursor runs.
    s.tracker.sync();
    s.parse("", "DELETE FROM orders");
    s.bind("c", "");
    s.tracker.sync();
    assert!(s.execute("c").doubtful);
}

#[test]
fn a_command_tag_that_the_text_cannot_end_with_makes_it_doubtful_in_the_end() {
    let mut s = Session::new();
    s.parse("s", "select 1");
    s.parse("kept", "select 2");
    s.tracker.sync();
    s.query();
    s.server("1 1 Z(I) C(DO) Z(I)");
    s.tracker.take_ends();
    assert!(!s.bind("", "s").doubtful);
    s.execute("");
    s.server("2 C(DELETE_3)");
    let ends = s.tracker.take_ends();
    assert_eq!((ends[0].text_doubtful, ends[0].text_of, ends[0].rows), (true, None, 3), "{ends:?}");
    assert!(s.bind("", "kept").doubtful, "what else has been changed is not known");
    s.tracker.close(Target::Statement, b"kept");
    s.parse("kept", "select 2");
    s.bind("", "kept");
    s.execute("");
    s.server("2 3 1 2 C(SELECT_1)");
    assert!(s.tracker.take_ends().iter().all(|end| !end.text_doubtful));
}

/// SQL's PREPARE is not refused where there are too many names, so it must not be kept.
#[test]
fn names_that_sql_makes_without_end_are_not_kept_and_not_taken_for_others() {
    let mut s = Session::new();
    let prepare = |s: &mut Session, name: &str| {
        let text = format!("prepare {name} as select");
        s.tracker.query(text.as_bytes(), text.len() as u64, 30, s.now);
        s.server("C(PREPARE) Z(I)");
        s.tracker.take_ends();
    };
    for n in 0..MAX_REMEMBERED + 10 {
        prepare(&mut s, &format!("s{n}"));
    }
    assert_eq!(s.tracker.statements.len(), MAX_REMEMBERED);
    assert!(!s.bind("", "s0").doubtful && s.bind("", &format!("s{MAX_REMEMBERED}")).doubtful);
    s.server("2 2");
    let text = "deallocate s0";
    s.tracker.query(text.as_bytes(), text.len() as u64, 30, s.now);
    s.server("C(DEALLOCATE) Z(I)");
    // The Parse fails if the name is taken, as it is.
    s.parse(&format!("s{MAX_REMEMBERED}"), "select 1");
    s.tracker.sync();
    assert!(s.bind("", &format!("s{MAX_REMEMBERED}")).doubtful);
}

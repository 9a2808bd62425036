//! Transcripts: what the client sent, what the server answered, which end lines follow.

use super::*;

mod failures;
mod model;
mod names;

impl Tracker {
    /// The end lines that are ready.
    pub fn take_ends(&mut self) -> Vec<End> {
        let of = |line: &Settled| if let Settled::End(end) = line { Some(end.clone()) } else { None };
        self.take_settled_of(of)
    }

    /// The SQLSTATEs of errors at what is no event.
    pub fn take_sync_errors(&mut self) -> Vec<String> {
        let of = |line: &Settled| if let Settled::SyncError(sqlstate) = line { Some(sqlstate.clone()) } else { None };
        self.take_settled_of(of)
    }

    fn take_settled_of<T>(&mut self, of: impl Fn(&Settled) -> Option<T>) -> Vec<T> {
        let (taken, left): (Vec<_>, Vec<_>) = self.take_settled().into_iter().partition(|line| of(line).is_some());
        self.book.put_back(left);
        taken.iter().filter_map(of).collect()
    }
}

/// A session under test: `C:` calls on one side, `S:` on the other, end lines as short text.
struct Session {
    tracker: Tracker,
    now: Instant,
}

impl Session {
    fn new() -> Self {
        Self { tracker: Tracker::new(), now: Instant::now() }
    }

    fn query(&mut self) -> u64 {
        self.tracker.query(b"select 1", 8, 20, self.now)
    }

    fn parse(&mut self, name: &str, text: &str) -> u64 {
        self.tracker.parse(name.as_bytes(), text.as_bytes(), text.len() as u64, 20, self.now)
    }

    fn bind(&mut self, portal: &str, statement: &str) -> Place {
        self.tracker.bind(portal.as_bytes(), statement.as_bytes(), 20, self.now)
    }

    fn execute(&mut self, portal: &str) -> Place {
        self.tracker.execute(portal.as_bytes(), 9, self.now)
    }

    /// The server's messages: one letter each; `C(TAG)`, `E(SQLSTATE)` and `Z(STATUS)` with their content.
    fn server(&mut self, script: &str) {
        for word in script.split_whitespace() {
            let (kind, content) = match word.split_once('(') {
                Some((kind, content)) => (kind, content.trim_end_matches(')').replace('_', " ")),
                None => (word, String::new()),
            };
            let kind = kind.as_bytes()[0];
            if kind == b'E' {
                self.tracker.server_error(&content, self.now);
            } else {
                let body = if kind == b'C' { format!("{content}\0") } else { content };
                self.tracker.server(kind, body.as_bytes(), 10, self.now).unwrap();
            }
        }
    }

    /// `EVENT.PART:outcome[/sqlstate][ COMMAND][ rows]`, `+` where more parts follow.
    fn ends(&mut self) -> Vec<String> {
        let show = |end: End| {
            let outcome = format!("{:?}", end.outcome).to_lowercase();
            let state = end.sqlstate.map(|state| format!("/{state}")).unwrap_or_default();
            let command = end.command.map(|command| format!(" {command} {}", end.rows)).unwrap_or_default();
            format!("{}.{}:{outcome}{state}{command}{}", end.event, end.part, if end.last { "" } else { " +" })
        };
        self.tracker.take_ends().into_iter().map(show).collect()
    }
}

#[test]
fn a_query_of_several_statements_has_an_end_line_for_each() {
    let mut s = Session::new();
    s.query();
    s.server("T D D C(SELECT_2) C(SET)");
    assert_eq!(s.ends(), ["0.0:ok SELECT 2 +"]);
    assert!(!s.tracker.is_idle());
    s.server("E(22012) Z(I)");
    assert_eq!(s.ends(), ["0.1:ok SET 0 +", "0.2:error/22012"]);
    assert!(s.tracker.is_idle());
}

#[test]
fn parse_bind_and_execute_are_one_event_and_each_further_execution_another() {
    let mut s = Session::new();
    s.parse("s", "SELECT $1");
    s.tracker.describe();
    s.tracker.sync();
    s.server("1 t T Z(I)");
    assert!(s.ends().is_empty());
    assert_eq!(s.bind("", "s").event, 0);
    assert_eq!(s.execute("").event, 0);
    s.tracker.sync();
    s.server("2 D C(SELECT_1) Z(I)");
    assert_eq!(s.ends(), ["0.0:ok SELECT 1"]);
    let second = s.bind("", "s");
    assert_eq!((second.event, &*second.text.unwrap().head), (1, b"SELECT $1".as_slice()));
    assert_eq!(s.execute("").event, 1);
    s.tracker.sync();
    s.server("2 C(SELECT_0) Z(I)");
    assert_eq!(s.ends(), ["1.0:ok SELECT 0"]);
}

#[test]
fn what_is_never_executed_ends_as_parsed_or_bound() {
    let mut s = Session::new();
    s.parse("", "SELECT 1");
    s.parse("", "SELECT 2");
    s.bind("", "");
    s.tracker.sync();
    assert!(s.ends().is_empty(), "the server has not accepted the first Parse yet");
    s.server("1 1 2");
    assert_eq!(s.ends(), ["0.0:parsed"]);
    s.server("Z(I)");
    assert_eq!(s.ends(), ["1.0:bound"], "the transaction's end closed the portal");
    s.parse("keep", "SELECT 3");
    s.tracker.sync();
    s.server("1 Z(I)");
    s.tracker.finish(s.now);
    assert_eq!(s.ends(), ["2.0:parsed"]);
}

#[test]
fn after_an_error_everything_up_to_sync_is_skipped() {
    let mut s = Session::new();
    s.parse("", "SELECT 1/0");
    s.bind("", "");
    s.execute("");
    s.parse("b", "SELECT 2");
    s.tracker.sync();
    s.query();
    s.server("1 2 E(22012)");
    assert_eq!(s.ends(), ["0.0:error/22012", "1.0:skipped"]);
    s.server("Z(I) C(SELECT_1) Z(I)");
    assert_eq!(s.ends(), ["2.0:ok SELECT 1"]);
    assert!(s.bind("", "b").text.is_none(), "a skipped Parse names nothing");
}

#[test]
fn what_arrives_after_an_error_and_before_sync_is_skipped_too() {
    let mut s = Session::new();
    s.parse("", "SELEC");
    s.server("E(42601)");
    s.bind("", "");
    s.execute("");
    s.query();
    assert_eq!(s.ends(), ["0.0:error/42601", "1.0:skipped", "2.0:skipped", "3.0:skipped"]);
    s.tracker.sync();
    s.server("Z(I)");
    assert!(s.tracker.is_idle());
}

#[test]
fn a_suspended_portal_executed_again_is_another_event() {
    let mut s = Session::new();
    s.parse("", "SELECT generate_series(1, 3)");
    s.bind("p", "");
    s.execute("p");
    let again = s.execute("p");
    assert_eq!(&*again.text.unwrap().head, b"SELECT generate_series(1, 3)");
    s.tracker.sync();
    s.server("1 2 D D s D C(SELECT_1) Z(I)");
    assert_eq!(s.ends(), ["0.0:suspended", "1.0:ok SELECT 1"]);
}

#[test]
fn copy_data_counts_and_a_sync_read_by_copy_has_no_answer() {
    let mut s = Session::new();
    s.parse("", "COPY t FROM STDIN");
    s.bind("", "");
    s.execute("");
    s.tracker.sync();
    s.server("1 2 G");
    s.tracker.copy_data(1000);
    s.tracker.copy_end();
    s.tracker.sync();
    s.server("C(COPY_3) Z(I)");
    assert_eq!(s.ends(), ["0.0:ok COPY 3"]);
    assert!(s.tracker.is_idle());
}

#[test]
fn a_stream_both_ways_ends_by_either_side_or_by_an_error() {
    let mut s = Session::new();
    // A walsender tells the end of a logical stream twice (`StartLogicalReplication`, `exec_replication_command`).
    s.query();
    s.server("W d d");
    s.tracker.copy_data(34);
    s.server("d");
    s.tracker.copy_end();
    s.server("d c C(COPY_0) C(START_REPLICATION) Z(I)");
    assert_eq!(s.ends(), ["0.0:ok COPY 0 +", "0.1:ok START REPLICATION 0"]);
    assert!(s.tracker.is_idle());
    // Of a timeline's end the server speaks first, and tells the next one in a row.
    s.query();
    s.server("W d c");
    s.tracker.copy_data(34);
    s.tracker.copy_end();
    s.server("T D C(SELECT) C(START_STREAMING) Z(I)");
    assert_eq!(s.ends(), ["1.0:ok SELECT 1 +", "1.1:ok START STREAMING 0"]);
    // A cancel ends it at once; what the client still sends is ignored.
    s.query();
    s.server("W d");
    s.tracker.copy_data(34);
    s.server("E(57014) Z(I)");
    s.tracker.copy_data(34);
    s.tracker.copy_end();
    assert!(s.tracker.is_idle() && s.tracker.outstanding().is_none());
    s.query();
    s.server("T D C(IDENTIFY_SYSTEM) Z(I)");
    assert_eq!(s.ends(), ["2.0:canceled/57014", "3.0:ok IDENTIFY SYSTEM 1"]);
    assert!(s.tracker.is_idle());
}

#[test]
fn a_base_backup_is_one_query_of_many_results() {
    let mut s = Session::new();
    s.query();
    s.server("T D C(SELECT) T D D C(SELECT) H d d c T D C(SELECT) C(BASE_BACKUP) Z(I)");
    assert_eq!(s.ends().len(), 4);
    assert!(s.tracker.is_idle());
}

#[test]
fn copy_ends_outside_copy_are_ignored() {
    let mut s = Session::new();
    s.tracker.copy_end();
    s.query();
    s.tracker.copy_end();
    s.server("G C(COPY_0) Z(I)");
    s.tracker.copy_end();
    s.query();
    s.server("E(42601) Z(I)");
    assert_eq!(s.ends(), ["0.0:ok COPY 0", "1.0:error/42601"]);
}

#[test]
fn a_function_call_ends_at_ready_for_query() {
    let mut s = Session::new();
    s.tracker.function_call(30, s.now);
    s.server("V Z(I)");
    s.tracker.function_call(30, s.now);
    s.server("E(42883) Z(I)");
    assert_eq!(s.ends(), ["0.0:ok", "1.0:error/42883"]);
}

#[test]
fn a_flush_with_a_body_is_an_error_that_skips_to_sync() {
    let mut s = Session::new();
    s.tracker.malformed_flush();
    s.query();
    s.tracker.sync();
    s.server("E(08P01) Z(I)");
    assert_eq!(s.ends(), ["0.0:skipped"]);
    assert_eq!(s.tracker.take_sync_errors(), ["08P01"]);
    s.tracker.malformed_flush();
    s.server("E(08P01)");
    s.parse("", "SELECT 1");
    s.tracker.sync();
    s.server("Z(I)");
    assert_eq!(s.ends(), ["1.0:skipped"]);
    assert!(s.tracker.is_idle());
}

#[test]
fn an_error_at_sync_is_no_statements_error() {
    let mut s = Session::new();
    s.tracker.sync();
    s.server("E(23503) Z(I)");
    assert_eq!((s.ends().len(), s.tracker.take_sync_errors()), (0, vec!["23503".to_owned()]));
}

#[test]
fn an_error_at_describe_belongs_to_no_event_and_is_told() {
    let mut s = Session::new();
    s.parse("", "insert into t values (1)");
    s.bind("", "");
    s.execute("");
    s.tracker.describe();
    s.tracker.sync();
    s.server("1 2 C(INSERT_0_1) E(26000) Z(I)");
    assert_eq!(s.ends(), ["0.0:ok INSERT 1"]);
    assert_eq!(s.tracker.take_sync_errors(), ["26000"], "it undid the insert: the record must show it");
}

#[test]
fn a_cancelled_statement_says_so_and_a_lost_one_is_unknown() {
    let mut s = Session::new();
    s.query();
    s.server("E(57014) Z(I)");
    s.query();
    s.tracker.finish(s.now);
    assert_eq!(s.ends(), ["0.0:canceled/57014", "1.0:unknown"]);
}

#[test]
fn a_reply_that_nobody_asked_for_is_a_desync() {
    let mut tracker = Tracker::new();
    for kind in *b"123CDGHIKRTVWZnstv" {
        assert_eq!(
            tracker.server(kind, b"", 5, Instant::now()),
            Err(Desync(kind)).map_err(|e: Desync| match kind {
                b'I' => Desync(b'C'),
                _ => e,
            })
        );
    }
    for kind in *b"NSA" {
        assert_eq!(tracker.server(kind, b"", 5, Instant::now()), Ok(()));
    }
}

#[test]
fn remembered_text_is_bounded_and_lengths_are_kept() {
    let mut s = Session::new();
    let big = vec![b'x'; 60_000];
    for n in 0..100 {
        let event = s.tracker.parse(format!("s{n}").as_bytes(), &big, 60_000, 60_010, s.now);
        let forgotten = s.tracker.wants_digest(event, 60_000);
        assert_eq!(forgotten, n >= 69, "{n}: only where nothing is remembered");
        if forgotten {
            s.tracker.text_is(event, TextDigest::of(format!("text {n}").as_bytes()));
        }
    }
    assert!(s.tracker.remembered_text.load(Ordering::Relaxed) <= MAX_REMEMBERED_TEXT);
    s.server(&"1 ".repeat(100));
    s.bind("", "s99");
    let again = s.bind("", "s99").text.unwrap();
    assert_eq!((again.head.len(), again.bytes), (0, 60_000));
    // Each of its executions ends with the digest, an event of its own or not.
    for name in ["s99", "s99", "s3"] {
        s.bind("", name);
        s.execute("");
    }
    s.server("2 2 2 C(SELECT_1) 2 C(SELECT_1) 2 C(SELECT_1)");
    let texts: Vec<Option<String>> =
        s.tracker.take_ends().iter().map(|end| end.text.as_ref().map(|text| text.sha256())).collect();
    let own = Some(TextDigest::of(b"text 99").sha256());
    // Two were bound and replaced, two executed; the last one's text is remembered.
    assert_eq!(texts, [own.clone(), own.clone(), own.clone(), own, None]);
    for n in 0..100 {
        s.tracker.close(Target::Statement, format!("s{n}").as_bytes());
    }
    s.server(&"3 ".repeat(100));
    drop(again);
    s.tracker.finish(s.now);
    assert_eq!(s.tracker.remembered_text.load(Ordering::Relaxed), 0);
}

proptest::proptest! {
    /// Whatever the server says to whatever the client did: no panic, and every event ends exactly once.
    #[test]
    fn every_event_ends_once(script in proptest::collection::vec(0u8..40, 0..200)) {
        let mut s = Session::new();
        let mut ends = Vec::new();
        for step in script {
            match step {
                0 => { s.query(); }
                1 | 2 => { s.parse(if step == 1 { "" } else { "s" }, "SELECT 1"); }
                3 | 4 => { s.bind("", if step == 3 { "" } else { "s" }); }
                5 | 6 => { s.execute(if step == 5 { "" } else { "p" }); }
                7 => { s.tracker.function_call(10, s.now); }
                8 => s.tracker.sync(),
                9 => s.tracker.copy_end(),
                10 => s.tracker.describe(),
                11 => s.tracker.close(Target::Statement, b"s"),
                12 => s.tracker.close(Target::Portal, b""),
                13 => { s.bind("p", "s"); }
                14 | 15 => s.tracker.server_error("42601", s.now),
                n => {
                    let kind = b"123CDGHITVZnst"[usize::from(n) % 14];
                    let _ = s.tracker.server(kind, if kind == b'Z' { b"I" } else { b"SELECT 1\0" }, 9, s.now);
                }
            }
            ends.extend(s.tracker.take_ends());
        }
        s.tracker.finish(s.now);
        ends.extend(s.tracker.take_ends());
        let mut finals: Vec<u64> = ends.iter().filter(|end| end.last).map(|end| end.event).collect();
        finals.sort_unstable();
        let begun = s.query();
        proptest::prop_assert_eq!(finals, (0..begun).collect::<Vec<_>>());
    }
}

/// A COPY that fails may have read the Sync behind it: whether what follows without another Sync was skipped or ran
/// cannot be told, and nothing is claimed of it.
#[test]
fn what_may_or_may_not_be_skipped_after_a_failed_copy_ends_the_session() {
    for sent_ahead in [true, false] {
        let mut s = Session::new();
        s.parse("", "COPY t FROM STDIN (FREEZE)");
        s.bind("", "");
        s.execute("");
        s.tracker.sync();
        let rest = |s: &mut Session| {
            s.parse("", "DELETE FROM orders");
            s.bind("", "");
            s.execute("");
            s.tracker.sync();
        };
        if sent_ahead {
            rest(&mut s);
        }
        s.server("1 2 G E(55000)");
        if !sent_ahead {
            rest(&mut s);
        }
        assert_eq!(s.tracker.server(b'Z', b"I", 6, s.now), Err(Desync(b'Z')));
        s.tracker.finish(s.now);
        assert_eq!(s.ends(), ["0.0:error/55000", "1.0:unknown"]);
    }
}

#[test]
fn a_query_behind_failed_copy_data_is_not_recorded_as_skipped() {
    let mut s = Session::new();
    s.query();
    s.tracker.copy_data(10);
    s.query();
    s.server("G E(22P02)");
    s.server("Z(I)");
    let ends = s.ends();
    assert!(!ends.iter().any(|end| end.contains("skipped")), "{ends:?}");
    s.server("C(DELETE_5) Z(I)");
}

#[test]
fn a_query_that_breaks_off_after_its_first_statement_is_not_final_ok() {
    let mut s = Session::new();
    s.query();
    s.server("C(INSERT_0_1)");
    s.tracker.finish(s.now);
    let ends = s.ends();
    assert!(ends.last().unwrap().contains("unknown"), "{ends:?}");
}

#[test]
fn texts_that_wait_in_the_queue_count_too() {
    let mut s = Session::new();
    let big = vec![b'x'; 65_000];
    for _ in 0..1600 {
        s.tracker.parse(b"", &big, 65_000, 65_010, s.now);
    }
    assert!(s.tracker.remembered_text.load(Ordering::Relaxed) <= MAX_REMEMBERED_TEXT);
}

/// The data of several COPYs of one Query may be sent ahead; ends that nothing waits for are not kept.
#[test]
fn copy_ends_are_kept_only_where_they_can_count() {
    let mut s = Session::new();
    for _ in 0..100_000 {
        s.tracker.copy_end();
    }
    assert!(s.tracker.queue.is_empty());
    s.query();
    s.tracker.copy_end();
    s.tracker.copy_end();
    s.server("G C(COPY_1) G C(COPY_2) Z(I)");
    assert_eq!(s.ends(), ["0.0:ok COPY 1 +", "0.1:ok COPY 2"]);
    assert!(s.tracker.is_idle());
}

/// A Sync that a failed COPY had read has no answer; the next one has.
#[test]
fn a_sync_that_a_failed_copy_may_have_read_confuses_nothing() {
    let mut s = Session::new();
    s.parse("", "COPY t FROM STDIN");
    s.bind("", "");
    s.execute("");
    s.tracker.sync();
    s.server("1 2 G");
    s.tracker.copy_data(10);
    s.tracker.copy_end();
    s.tracker.sync();
    s.server("E(22P02) Z(I)");
    s.query();
    s.server("C(SELECT_1) Z(I)");
    assert_eq!(s.ends(), ["0.0:error/22P02", "1.0:ok SELECT 1"]);
    assert!(s.tracker.is_idle());
}

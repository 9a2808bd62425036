//! Sessions within bounds: what waits, what is refused, what goes on flowing, and when an idle transaction ends.

use super::*;
use crate::policy::{Limits, Over, Rate};
use crate::relay::Meter;

const LONG: Duration = Duration::from_secs(3600);

fn meter() -> Arc<Meter> {
    Arc::new(Meter::new(Instant::now()))
}

fn rate(per_second: u32, burst: u32, over: Over) -> Rate {
    Rate { per_second, burst, over }
}

fn within(limits: &Limits, meter: &Arc<Meter>) -> Setup {
    start_within(Tag::none(), Bounds::of(limits, meter))
}

fn statements(burst: u32, over: Over) -> Limits {
    Limits { statements: Some(rate(1, burst, over)), ..Limits::default() }
}

fn query(text: &str) -> Vec<u8> {
    frame(b'Q', format!("{text}\0").as_bytes())
}

async fn answer(setup: &mut Setup, status: &[u8]) {
    setup.server.write_all(&[frame(b'C', b"SELECT 1\0"), frame(b'Z', status)].concat()).await.unwrap();
    for expected in [b'C', b'Z'] {
        assert_eq!(receive(&mut setup.client).await.0, expected);
    }
}

/// Nothing comes for this long.
async fn silent(stream: &mut DuplexStream, time: Duration) {
    let mut byte = [0];
    assert!(timeout(time, stream.read(&mut byte)).await.is_err(), "{byte:?}");
}

#[test]
fn a_rule_without_limits_costs_a_session_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _guard = runtime.enter();
    assert!(Bounds::of(&Limits::default(), &meter()).is_none());
    let of_logins = Limits { sessions: Some(1), connects_per_minute: Some(1), ..Limits::default() };
    assert!(Bounds::of(&of_logins, &meter()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_statement_over_the_limit_waits_and_answers_go_on() {
    let mut setup = within(&statements(1, Over::Wait), &meter());
    let begun = Instant::now();
    setup.client.write_all(&[query("SELECT 1"), query("SELECT 2"), query("SELECT 3")].concat()).await.unwrap();
    receive(&mut setup.server).await;
    silent(&mut setup.server, Duration::from_millis(900)).await;
    answer(&mut setup, b"I").await;
    assert!(begun.elapsed() < Duration::from_secs(1), "the answer to the first came while the second waited");
    for (text, after) in [("SELECT 2", 1), ("SELECT 3", 2)] {
        assert_eq!(receive(&mut setup.server).await.1, format!("{text}\0").as_bytes());
        assert_eq!(begun.elapsed().as_secs(), after, "{text}");
        answer(&mut setup, b"I").await;
    }
}

#[tokio::test(start_paused = true)]
async fn all_sessions_of_a_caller_share_one_rate() {
    let (meter, limits) = (meter(), statements(2, Over::Wait));
    let mut sessions = [within(&limits, &meter), within(&limits, &meter), within(&limits, &meter)];
    let begun = Instant::now();
    let mut times = Vec::new();
    for setup in &mut sessions {
        setup.client.write_all(&query("SELECT 1")).await.unwrap();
        receive(&mut setup.server).await;
        times.push(begun.elapsed().as_secs());
    }
    assert_eq!(times, [0, 0, 1]);
    let meter_of_another = Arc::new(Meter::new(Instant::now()));
    let mut other = within(&limits, &meter_of_another);
    other.client.write_all(&query("SELECT 1")).await.unwrap();
    receive(&mut other.server).await;
    assert_eq!(begun.elapsed().as_secs(), 1, "another caller is not hit");
}

#[tokio::test(start_paused = true)]
async fn a_refused_statement_fails_at_the_server_and_a_rollback_waits() {
    let mut setup = within(&statements(1, Over::Refuse), &meter());
    setup.client.write_all(&query("BEGIN")).await.unwrap();
    receive(&mut setup.server).await;
    answer(&mut setup, b"T").await;
    setup.client.write_all(&query("DELETE FROM orders")).await.unwrap();
    let (kind, body) = receive(&mut setup.server).await;
    assert!(kind == b'Q' && body.starts_with(b"\"refused by pgpassport"), "{:?}", String::from_utf8_lossy(&body));
    let error = frame(b'E', b"SERROR\0VERROR\0C42601\0Msyntax error\0\0");
    setup.server.write_all(&[error, frame(b'Z', b"E")].concat()).await.unwrap();
    let (_, error) = receive(&mut setup.client).await;
    assert!(ErrorFields::decode(&error).unwrap().message().contains("more statements"));
    assert_eq!(receive(&mut setup.client).await, (b'Z', b"E".to_vec()));
    let begun = Instant::now();
    setup.client.write_all(&query("ROLLBACK")).await.unwrap();
    assert_eq!(receive(&mut setup.server).await.1, b"ROLLBACK\0");
    assert_eq!(begun.elapsed().as_secs(), 1);
    assert_eq!(story(&setup.log)[1..4], ["begin", "end ok", "begin"]);
    assert_eq!(story(&setup.log)[4], "end refused");
}

#[tokio::test(start_paused = true)]
async fn an_execute_is_refused_and_its_pipeline_is_not_half_run() {
    let mut setup = within(&statements(1, Over::Refuse), &meter());
    setup.client.write_all(&query("SELECT 1")).await.unwrap();
    receive(&mut setup.server).await;
    answer(&mut setup, b"I").await;
    let (parse, bind) = (frame(b'P', b"\0DELETE FROM orders\0\0\0"), frame(b'B', b"\0\0\0\0\0\0\0\0"));
    let execute = frame(b'E', b"\0\0\0\0\0");
    setup.client.write_all(&[parse, bind, execute, frame(b'S', b"")].concat()).await.unwrap();
    assert_eq!((receive(&mut setup.server).await.0, receive(&mut setup.server).await.0), (b'P', b'B'));
    let (kind, body) = receive(&mut setup.server).await;
    assert!(kind == b'E' && body.starts_with(b"refused by pgpassport"), "{:?}", String::from_utf8_lossy(&body));
    assert_eq!(receive(&mut setup.server).await.0, b'S');
}

#[tokio::test(start_paused = true)]
async fn refusals_have_a_rate_of_their_own() {
    let mut setup = within(&statements(2, Over::Refuse), &meter());
    setup.client.write_all(&query("SELECT 1").repeat(5)).await.unwrap();
    let begun = Instant::now();
    for (refused, after) in [(false, 0), (false, 0), (true, 0), (true, 0)] {
        let (_, body) = receive(&mut setup.server).await;
        assert_eq!((body.starts_with(b"\"refused"), begun.elapsed().as_secs()), (refused, after));
    }
    let (_, body) = receive(&mut setup.server).await;
    assert_eq!((body.as_slice(), begun.elapsed().as_secs()), (b"SELECT 1\0".as_slice(), 1), "then the client waits");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_withdraws_the_statement_that_waits() {
    let mut setup = within(&statements(1, Over::Wait), &meter());
    setup.client.write_all(&query("SELECT 1")).await.unwrap();
    receive(&mut setup.server).await;
    answer(&mut setup, b"I").await;
    setup.client.write_all(&query("SELECT 2")).await.unwrap();
    silent(&mut setup.server, Duration::from_millis(100)).await;
    assert!(setup.gate.hold().is_none() && setup.gate.withdraw());
    let begun = Instant::now();
    let (_, body) = receive(&mut setup.server).await;
    assert!(body.starts_with(b"\"refused by pgpassport") && begun.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_while_its_statement_waits() {
    for hard in [false, true] {
        let mut setup = within(&statements(1, Over::Wait), &meter());
        setup.client.write_all(&[query("SELECT 1"), query("SELECT 2")].concat()).await.unwrap();
        receive(&mut setup.server).await;
        answer(&mut setup, b"I").await;
        let begun = Instant::now();
        if hard {
            setup.wish.send_replace(Wish::Now(Cause::Operator));
        } else {
            drop(setup.server);
        }
        assert_eq!(receive(&mut setup.client).await.0, b'E');
        assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_wait_in_both_directions_and_nothing_is_lost() {
    let limits = Limits { bytes: Some(rate(1024, 1024, Over::Wait)), ..Limits::default() };
    let mut setup = within(&limits, &meter());
    let begun = Instant::now();
    setup.client.write_all(&query("SELECT 1")).await.unwrap();
    receive(&mut setup.server).await;
    let rows = frame(b'D', &[7; 10_235]).repeat(3);
    let (mut server, expected) = (setup.server, rows.clone());
    let writer = tokio::spawn(async move {
        server.write_all(&rows).await.unwrap();
        server.write_all(&[frame(b'C', b"SELECT 3\0"), frame(b'Z', b"I")].concat()).await.unwrap();
        server
    });
    let mut got = vec![0; expected.len()];
    setup.client.read_exact(&mut got).await.unwrap();
    assert!(got == expected);
    let seconds = begun.elapsed().as_secs();
    assert!((24..=29).contains(&seconds), "30 KiB at 1 KiB a second, but for the last read: {seconds}");
    let mut server = writer.await.unwrap();
    let mut end = [0; 20];
    setup.client.read_exact(&mut end).await.unwrap();
    let asked = Instant::now();
    setup.client.write_all(&query("SELECT 2")).await.unwrap();
    assert_eq!(receive(&mut server).await.1, b"SELECT 2\0");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn bytes_are_limited_past_a_goodbye_too() {
    let limits = Limits { bytes: Some(rate(1024, 1024, Over::Wait)), ..Limits::default() };
    let mut setup = within(&limits, &meter());
    setup.client.write_all(&[query("SELECT 1"), frame(b'X', b"")].concat()).await.unwrap();
    receive(&mut setup.server).await;
    let begun = Instant::now();
    let rows = frame(b'D', &[7; 1019]).repeat(30);
    let mut server = setup.server;
    let writer = tokio::spawn(async move {
        let _ = server.write_all(&rows).await;
        server
    });
    let mut got = vec![0; 30 * 1024];
    setup.client.read_exact(&mut got).await.unwrap();
    assert!(begun.elapsed() > Duration::from_secs(20), "{:?}", begun.elapsed());
    drop(writer.await);
}

#[tokio::test(start_paused = true)]
async fn bytes_over_the_limit_refuse_statements_where_the_rule_says_so() {
    let limits = Limits { bytes: Some(rate(1024, 1024, Over::Refuse)), ..Limits::default() };
    let mut setup = within(&limits, &meter());
    let long = format!("SELECT '{}'", "x".repeat(3000));
    setup.client.write_all(&query(&long)).await.unwrap();
    receive(&mut setup.server).await;
    setup.server.write_all(&[frame(b'C', b"SELECT 1\0"), frame(b'Z', b"I")].concat()).await.unwrap();
    setup.client.write_all(&query("SELECT 2")).await.unwrap();
    let (_, body) = receive(&mut setup.server).await;
    assert!(body.starts_with(b"\"refused by pgpassport"), "{:?}", String::from_utf8_lossy(&body));
    // What executes nothing is not refused, and is no way round the limit: it waits. What ends something passes.
    let begun = Instant::now();
    setup.client.write_all(&[frame(b'S', b""), frame(b'P', b"\0SELECT 3\0\0\0")].concat()).await.unwrap();
    assert_eq!((receive(&mut setup.server).await.0, begun.elapsed().as_secs()), (b'S', 0));
    assert_eq!(receive(&mut setup.server).await.0, b'P');
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_stays_idle_ends_its_session() {
    let limits = Limits { idle_in_transaction: Some(Duration::from_secs(60)), ..Limits::default() };
    for (status, ends) in [(b"I", false), (b"T", true), (b"E", true)] {
        let mut setup = within(&limits, &meter());
        setup.client.write_all(&query("BEGIN")).await.unwrap();
        receive(&mut setup.server).await;
        // A statement may take as long as it likes.
        tokio::time::sleep(LONG).await;
        answer(&mut setup, status).await;
        let begun = Instant::now();
        if !ends {
            silent(&mut setup.client, LONG).await;
            continue;
        }
        tokio::time::sleep(Duration::from_secs(59)).await;
        setup.client.write_all(&query("SELECT 1")).await.unwrap();
        receive(&mut setup.server).await;
        answer(&mut setup, status).await;
        let (kind, body) = receive(&mut setup.client).await;
        assert!(kind == b'E' && String::from_utf8(body).unwrap().contains("IdleInTransaction"));
        assert_eq!(begun.elapsed().as_secs(), 119, "each message begins it anew");
        assert_eq!(receive(&mut setup.server).await.0, b'X', "the server is told, and takes back");
        drop(setup.server);
        assert!(matches!(setup.relay.await.unwrap().ending, Ending::IdleInTransaction));
    }
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_no_sync_ends_is_idle_too() {
    let limits = Limits { idle_in_transaction: Some(Duration::from_secs(60)), ..Limits::default() };
    let mut setup = within(&limits, &meter());
    setup.client.write_all(&[frame(b'P', b"\0SELECT 1\0\0\0"), frame(b'H', b"")].concat()).await.unwrap();
    assert_eq!((receive(&mut setup.server).await.0, receive(&mut setup.server).await.0), (b'P', b'H'));
    setup.server.write_all(&frame(b'1', b"")).await.unwrap();
    assert_eq!(receive(&mut setup.client).await.0, b'1');
    let begun = Instant::now();
    assert_eq!(receive(&mut setup.client).await.0, b'E');
    assert_eq!(begun.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_limit_is_not_idle() {
    let limits = Limits { idle_in_transaction: Some(Duration::from_millis(500)), ..statements(1, Over::Wait) };
    let mut setup = within(&limits, &meter());
    setup.client.write_all(&query("BEGIN")).await.unwrap();
    receive(&mut setup.server).await;
    setup.client.write_all(&query("SELECT 1")).await.unwrap();
    answer(&mut setup, b"T").await;
    assert_eq!(receive(&mut setup.server).await.1, b"SELECT 1\0", "it came at its turn");
    answer(&mut setup, b"T").await;
    assert_eq!(receive(&mut setup.client).await.0, b'E');
}

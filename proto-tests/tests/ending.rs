//! How sessions end at a real PostgreSQL: by the client's half, by the server's last word, by the process.

use proto_tests::chain::{Chain, Setup};
use proto_tests::script::{self, Step, alike, bind, execute, parse, query, same, send, sync, to_end, types};
use proto_tests::servers::{At, each};
use proto_tests::wire::{self, Message};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// How the session's record says that it ended, once it does.
async fn reasons(chain: &Chain, sessions: usize) -> Vec<String> {
    let records = chain.records_when("the ends", |records| records.of("session_end").len() == sessions).await;
    assert!(records.open().is_empty(), "{:#?}", records.open());
    let ends = records.of("session_end");
    ends.iter().map(|end| end["reason"].as_str().expect("a reason").to_owned()).collect()
}

/// A client that closes its sending half gets everything that it asked for before, as directly, and then the end.
#[tokio::test(flavor = "multi_thread")]
async fn who_closes_the_sending_half_gets_the_answers() {
    for At { name, chain, .. } in each(Setup::default, "").await {
        let extended = [parse("", "select 2"), bind("", ""), execute(""), sync()].concat();
        let unsynced = [parse("", "select 3"), bind("", ""), execute("")].concat();
        for (asked, expected) in [
            (vec![query("select 1 from pg_sleep(1)"), query("select 1"), extended], "TDCZTDCZ12DCZ"),
            // Without a Sync the server has not sent them yet, and nobody asks it to.
            (vec![unsynced], ""),
            (vec![query("begin"), query("insert into orders values (9000, 'open', 1, '2026-11-22')")], "CZCZ"),
            // Half a message.
            (vec![query("select 1"), query("select 2")[..9].to_vec()], "TDCZ"),
            (vec![query("create temp table t (a int)"), query("copy t from stdin")], "CZG"),
        ] {
            let answers = same(&chain, &[send(&asked), Step::Shut]).await;
            println!("{name}: {}", types(&answers));
            assert!(types(&answers).starts_with(expected), "{name}: {} for {expected}", types(&answers));
        }
        assert_eq!(reasons(&chain, 5).await, ["client"; 5], "{name}");
        assert_eq!(chain.query(&chain.person(), "select count(*) from orders where id = 9000").await, "0");
    }
}

/// Up to the end of the session, idle as it is.
async fn told<S: AsyncRead + AsyncWrite + Unpin>(chain: &Chain, mut session: S) -> Vec<Message> {
    session.write_all(&query("select pg_backend_pid()")).await.expect("sent");
    let row = wire::read_until(&mut session, b'Z').await.swap_remove(1);
    let pid = String::from_utf8(row.body[6..].to_vec()).expect("a number");
    assert_eq!(chain.query(&chain.person(), &format!("select pg_terminate_backend({pid})")).await, "t");
    to_end(&mut session).await
}

/// The server's FATAL and its end pass on as they are, to one who runs something and to one who does not.
#[tokio::test(flavor = "multi_thread")]
async fn the_servers_fatal_word_is_the_last_one() {
    for At { name, chain, .. } in each(Setup::default, "").await {
        let kill = query("select pg_terminate_backend(pg_backend_pid())");
        let answers = same(&chain, &[send(&[kill]), Step::Until(b'E')]).await;
        let idle = told(&chain, chain.session(&chain.person()).await).await;
        alike(&idle, &told(&chain, script::direct(&chain).await).await);
        for last in [answers.last(), idle.last()].map(|last| last.expect("a last word")) {
            assert_eq!((last.sqlstate().as_str(), last.field(b'V').as_deref()), ("57P01", Some("FATAL")), "{name}");
            assert!(!last.field(b'M').expect("a message").contains("pgpassport"), "the server's own: {last:?}");
        }
        assert_eq!(types(&idle), "E");
        // Both were ended by the server; who asked for it said goodbye.
        let mut reasons = reasons(&chain, 4).await;
        reasons.sort();
        assert_eq!(reasons, ["client", "client", "server", "server"], "{name}");
    }
}

/// On SIGTERM an open transaction is given until the deadline; then it is told, and nothing of it commits.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_is_told_at_the_drain_deadline_and_taken_back() {
    for At { name, mut chain, .. } in each(|| Setup::default().extra("[deadlines]\ndrain = \"1s\""), "").await {
        let mut session = chain.session(&chain.app()).await;
        for statement in ["begin", "insert into orders values (9000, 'open', 1, '2026-11-22')"] {
            session.write_all(&query(statement)).await.expect("sent");
            wire::read_until(&mut session, b'Z').await;
        }
        let asked = Instant::now();
        chain.proxy.terminate();
        let told = to_end(&mut session).await;
        let took = asked.elapsed();
        assert_eq!((types(&told).as_str(), told[0].sqlstate().as_str()), ("E", "57P01"), "{name}");
        assert!(took > Duration::from_millis(900) && took < Duration::from_secs(5), "{name}: {took:?}");
        assert!(chain.proxy.ended().await.status.success());
        assert_eq!(reasons(&chain, 1).await, ["drain"], "{name}");
        let count = [send(&[query("select count(*) from orders where id = 9000")])];
        let left = script::run(&mut script::direct(&chain).await, &count).await;
        let row = left.into_iter().find(|answer| answer.tag == b'D').expect("a row");
        assert!(row.body.ends_with(b"\x010"), "{name}: it is committed: {row:?}");
    }
}

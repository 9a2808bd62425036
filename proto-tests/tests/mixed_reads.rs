//! A log with nothing left but its reserve, and a COMMIT that comes in one read with what the log refuses: it is recorded
//! by itself, and what it means is PostgreSQL's to say.

use proto_tests::answers::{ask, until};
use proto_tests::chain::{Chain, Setup};
use proto_tests::psql::Login;
use proto_tests::records::Records;
use proto_tests::script::{bind, execute, parse, query, sync};
use proto_tests::servers;
use std::fs;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

type Raw = TlsStream<TcpStream>;

fn insert(id: u32) -> String {
    format!("insert into orders values ({id}, 'longer than what is left of the segment', 1, '2026-11-22')")
}

/// A session in a transaction that has written this row.
async fn in_transaction(chain: &Chain, login: &Login, id: u32) -> Raw {
    let mut session = chain.session(login).await;
    assert_eq!(ask(&mut session, &[query("begin")]).await, ["C BEGIN", "Z T"]);
    assert_eq!(ask(&mut session, &[query(&insert(id))]).await, ["C INSERT 0 1", "Z T"]);
    session
}

/// Fills the segment down to its reserve; no other can be begun.
async fn fill(chain: &Chain) {
    fs::create_dir(chain.segment_path().with_file_name("0000000000000002.tmp")).expect("made");
    let mut session = chain.session(&chain.app()).await;
    for length in [60_000, 400, 1] {
        let filler = format!("select '{}' is null", "x".repeat(length));
        let mut refused = false;
        for _ in 0..400 {
            refused = ask(&mut session, &[query(&filler)]).await.contains(&"E 53100".to_owned());
            if refused {
                break;
            }
        }
        assert!(refused, "{length} bytes always have room");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_in_one_read_with_what_is_refused_is_recorded_from_the_reserve() {
    let small = || Setup::default().replace("[audit]\n", "[audit]\nsegment_bytes = 4194304\n");
    for at in servers::each(small, "").await {
        let (chain, name) = (&at.chain, at.name);
        let login = chain.app();
        let mut sessions = Vec::new();
        for id in 9001..=9005 {
            sessions.push(in_transaction(chain, &login, id).await);
        }
        let [before, behind, extended, pipeline, two_syncs] = sessions.as_mut_slice() else { panic!("five sessions") };
        fill(chain).await;

        // In front of what is refused it commits what was recorded; behind it, PostgreSQL takes all back.
        assert_eq!(ask(before, &[query("commit"), query(&insert(9101))]).await, ["C COMMIT", "Z I"], "{name}");
        assert_eq!(until(before, b'Z').await, ["E 53100", "Z I"], "{name}");
        assert_eq!(ask(behind, &[query(&insert(9102)), query("commit;")]).await, ["E 53100", "Z E"], "{name}");
        assert_eq!(until(behind, b'Z').await, ["C ROLLBACK", "Z I"], "{name}");

        let execution = |text: &str| [parse("", text), bind("", ""), execute("")].concat();
        let messages = [execution("commit"), sync(), execution(&insert(9103)), sync()];
        assert_eq!(ask(extended, &messages).await, ["1", "2", "C COMMIT", "Z I"], "{name}");
        assert_eq!(until(extended, b'Z').await, ["E 53100", "Z I"], "{name}");
        let messages = [execution(&insert(9104)), execution("COMMIT"), sync()];
        assert_eq!(ask(pipeline, &messages).await, ["E 53100", "Z E"], "{name}: it is skipped with the rest");
        assert_eq!(ask(pipeline, &[query("commit")]).await, ["C ROLLBACK", "Z I"], "{name}");
        let messages = [execution(&insert(9105)), sync(), execution("end"), sync()];
        assert_eq!(ask(two_syncs, &messages).await, ["E 53100", "Z E"], "{name}");
        assert_eq!(until(two_syncs, b'Z').await, ["1", "2", "C ROLLBACK", "Z I"], "{name}");

        fs::remove_dir(chain.segment_path().with_file_name("0000000000000002.tmp")).expect("removed");
        let committed = "select string_agg(id::text, ' ' order by id) from orders where id > 9000";
        assert_eq!(chain.query(&chain.person(), committed).await, "9001 9003", "{name}");
        let records = chain.records();
        for (text, times) in [("commit", 3), ("commit;", 1), ("COMMIT", 1), ("end", 1)] {
            let began = records.began(text);
            assert_eq!(began.len(), times, "{name}: {text}: {began:#?}");
        }
        assert_eq!(records.of("end").with("outcome", "skipped").len(), 1, "{name}: the skipped COMMIT is one event");
        drop(sessions);
        let told = |records: &Records, member: &str| -> u64 {
            records.of("gap").iter().map(|gap| gap[member].as_u64().expect("a count")).sum()
        };
        // Three fillers; a Query, or the three messages of an execution, of each of the others.
        let refused = 3 + 1 + 1 + 3 + 3 + 3;
        let records = chain.records_when("their gaps", |records| told(records, "refused") >= refused).await;
        assert_eq!((told(&records, "refused"), told(&records, "passed")), (refused, 0), "{name}");
        assert!(records.open().is_empty(), "{name}: {:#?}", records.open());
    }
}

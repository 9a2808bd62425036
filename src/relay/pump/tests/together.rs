//! Begins that sessions hand in together, and what happens to a session between that and the write.

use super::durable::{fail, substitute};
use super::*;

fn session(log: &MemoryLog) -> Setup {
    let recorder = recorder(log);
    start_over(log.clone(), |gate| Relay::new(Tag::none(), recorder, gate), FakeHost::default())
}

async fn select(setup: &mut Setup) {
    setup.client.write_all(&frame(b'Q', b"select 1\0")).await.unwrap();
}

/// A session whose statement is handed in and not written yet.
async fn handed_in(log: &MemoryLog) -> Setup {
    let mut setup = session(log);
    others_first().await;
    select(&mut setup).await;
    others_first().await;
    assert_eq!((log.written(), log.joined()), (1, 1), "the relay has had one turn");
    setup
}

/// What is left for the server to read, once the relay is done with it.
async fn left(mut server: DuplexStream) -> String {
    let mut all = Vec::new();
    server.read_to_end(&mut all).await.unwrap();
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn begins_of_sessions_that_are_ready_together_are_one_write() {
    let log = MemoryLog::default();
    let mut both = [session(&log), session(&log)];
    others_first().await;
    let before = log.writes().len();
    for setup in &mut both {
        select(setup).await;
    }
    for setup in &mut both {
        assert_eq!(receive(&mut setup.server).await.0, b'Q');
    }
    assert_eq!((log.writes().len() - before, log.written()), (1, 4));
}

/// Where the group is not written each session goes on as if it were alone.
#[tokio::test]
async fn a_group_that_the_log_does_not_take_is_refused_session_by_session() {
    let log = MemoryLog::default();
    let mut both = [session(&log), session(&log)];
    others_first().await;
    log.fail(true);
    for setup in &mut both {
        select(setup).await;
    }
    for setup in &mut both {
        let refused = substitute(setup).await;
        fail(setup, &refused).await;
    }
    log.fail(false);
    assert_eq!(log.written(), 2, "the sessions' starts");
    for setup in &mut both {
        select(setup).await;
        assert_eq!(receive(&mut setup.server).await, (b'Q', b"select 1\0".to_vec()));
    }
    assert_eq!(story(&log)[2..], ["gap", "begin", "gap", "begin"]);
}

/// Runs as a task among others: what a test itself waits for is polled more seldom than tasks are.
async fn among_tasks(test: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(test).await.unwrap();
}

/// An answer that comes meanwhile is looked at when the begin is in the log: its end stands behind it.
#[tokio::test]
async fn an_answer_waits_for_what_is_handed_in() {
    among_tasks(answered()).await;
}

async fn answered() {
    let log = MemoryLog::default();
    let mut setup = handed_in(&log).await;
    setup.server.write_all(&[frame(b'C', b"SELECT 1\0"), frame(b'Z', b"I")].concat()).await.unwrap();
    assert_eq!(receive(&mut setup.server).await.0, b'Q');
    assert_eq!(receive(&mut setup.client).await.0, b'C');
    assert_eq!(story(&log), ["session_start", "begin", "end ok"]);
}

/// Whatever ends the session then, what leaves is in the log, and what is in the log has left.
#[tokio::test]
async fn what_is_handed_in_is_written_before_the_session_ends() {
    among_tasks(ended()).await;
}

async fn ended() {
    for how in ["wish", "broken gate", "client", "server"] {
        let log = MemoryLog::default();
        let Setup { client, server, wish, gate, relay, .. } = handed_in(&log).await;
        let mut client = Some(client);
        let mut received = String::new();
        match how {
            "wish" => drop(wish.send(Wish::Now(Cause::Shutdown))),
            "broken gate" => {
                let mut hold = gate.hold().unwrap();
                hold.sending();
                drop(hold);
            }
            "client" => drop(client.take()),
            _ => {}
        }
        if how == "server" {
            drop(server);
        } else {
            let reading = tokio::spawn(left(server));
            received = reading.await.unwrap();
        }
        drop(client);
        relay.await.unwrap();
        let begins = story(&log).iter().filter(|event| *event == "begin").count();
        assert_eq!(begins, 1, "{how}: {:?}", story(&log));
        assert!(how == "server" || received.contains("select 1"), "{how}: {received:?}");
        let last = story(&log).pop().unwrap();
        assert!(last.starts_with("end "), "{how}: {last}");
    }
}

/// The server's direction is polled again by itself once the begin is written, though nothing else wakes it.
#[tokio::test]
async fn what_waits_for_a_begin_goes_on_by_itself() {
    let relay = Relay::new(Tag::none(), recorder(&MemoryLog::default()), Arc::default());
    relay.handed_in.store(true, Ordering::Relaxed);
    let mut answers = pin!(std::future::ready(()));
    let one = pin!(poll_fn(|context| relay.poll_answers(answers.as_mut(), context)));
    let other = pin!(async {
        others_first().await;
        relay.handed_in.store(false, Ordering::Relaxed);
        std::future::pending::<()>().await;
    });
    let done = timeout(Duration::from_secs(20), first(one, other)).await.unwrap();
    assert_eq!(done, First::One(()));
}

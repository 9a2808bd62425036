//! `pgpassport sessions`: an operator sees who is logged in, ends sessions, and is on record.

use pgpassport::sim::world::{ANALYST, ORDERS_APP};
use proto_tests::chain::{Chain, Prepared, Setup};
use proto_tests::proxy::{self, Ended};
use proto_tests::wire::{self, Message, message, text};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

type Raw = TlsStream<TcpStream>;

async fn prepared() -> Prepared {
    Setup::default()
        .replace("[admin]\n", "[admin]\nsocket = \"admin.sock\"\n")
        .extra("[deadlines]\ndrain = \"2s\"")
        .prepare()
        .await
}

async fn start() -> Chain {
    prepared().await.start().await
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("admin.sock")
}

/// Runs `pgpassport sessions` with these arguments and the socket.
fn sessions(chain: &Chain, arguments: &[&str]) -> Ended {
    let socket = socket(chain.folder());
    let place = ["--socket", socket.to_str().expect("UTF-8")];
    proxy::run(&[&["sessions"], arguments, &place].concat(), &BTreeMap::new()).expect("runs")
}

fn well(ended: Ended) -> String {
    assert!(ended.status.success(), "{}", ended.output);
    ended.output
}

async fn told(session: &mut Raw) -> Message {
    let word = timeout(Duration::from_secs(30), wire::read_until(session, b'E')).await.expect("a last word");
    word.last().expect("a last word").clone()
}

fn by_operator(word: &Message) -> bool {
    word.sqlstate() == "57P01" && word.field(b'M').is_some_and(|message| message.contains("an operator"))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_logged_in_is_listed_and_looking_is_on_record() {
    let chain = start().await;
    assert!(well(sessions(&chain, &["list"])).contains("0 session(s)"));
    let login = chain.person();
    let psql = chain.psql(&login, &["-c", "select pg_sleep(4)"]);
    let looking = async {
        chain.records_when("psql", |records| !records.began("select pg_sleep(4)").is_empty()).await;
        (well(sessions(&chain, &["list"])), well(sessions(&chain, &["list", "--json"])))
    };
    let (printed, (table, json)) = tokio::join!(psql, looking);
    printed.well();
    assert!(
        table.contains(ANALYST.upn) && table.contains("orders-people") && table.contains("1 session(s)"),
        "{table}"
    );
    let listed: Value = serde_json::from_str(&json).expect("one object");
    let listed = &listed["sessions"][0];
    let records = chain.records();
    let start = records.of("session_start").only().clone();
    for (shown, recorded) in [
        ("session", &start["session"]),
        ("who", &start["caller"]["label"]),
        ("object_id", &start["caller"]["object_id"]),
        ("rule", &start["rule"]),
        ("database", &start["database"]),
        ("database_user", &start["database_user"]),
        ("client", &start["client"]),
        ("token_expires", &start["token_expires"]),
    ] {
        assert_eq!(&listed[shown], recorded, "{shown}");
    }
    let actions = records.of("operator_action");
    assert_eq!((actions.len(), actions.with("action", "sessions_list").len()), (3, 3));
    assert!(actions.iter().all(|action| action["uid"].is_u64()), "{actions:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_end_by_caller_by_id_and_by_database_when_idle_or_at_once() {
    let chain = start().await;
    let (mut person, mut app) = (chain.session(&chain.person()).await, chain.session(&chain.app()).await);
    assert!(well(sessions(&chain, &["end", "--who", "nobody@contoso.example"])).starts_with("0 session(s)"));
    let both = ["end", "--who", ANALYST.upn, "--database", "other"];
    assert!(well(sessions(&chain, &both)).starts_with("0 session(s)"), "all that is given must hold");
    assert!(well(sessions(&chain, &["end", "--who", ANALYST.object_id])).starts_with("1 session(s)"));
    assert!(by_operator(&told(&mut person).await));

    // Another one of the app, which does not notice what becomes of the first.
    let mut other = chain.session(&chain.app()).await;
    app.write_all(&message(b'Q', &text("select pg_sleep(60)"))).await.expect("sent");
    let records = chain.records_when("the sleep", |records| !records.began("select pg_sleep(60)").is_empty()).await;
    let id = records.began("select pg_sleep(60)").only()["session"].as_str().expect("an id").to_owned();
    let ended = well(sessions(&chain, &["end", "--session", &id, "--now", "--json"]));
    assert_eq!(ended.trim(), "{\"ended\":1}");
    assert!(by_operator(&told(&mut app).await));
    let records = chain.records_when("its end", |records| records.of("session_end").len() == 2).await;
    assert_eq!(records.of("session_end").with("reason", "operator").len(), 2);
    let slept = records.began("select pg_sleep(60)");
    assert_eq!(records.end_of(slept.only())["outcome"], "canceled", "nothing keeps running");

    // Drained while it is in a transaction: the limit is deadlines.drain.
    other.write_all(&message(b'Q', &text("begin"))).await.expect("sent");
    wire::read_until(&mut other, b'Z').await;
    assert!(well(sessions(&chain, &["end", "--database", "orders"])).starts_with("1 session(s)"));
    assert!(by_operator(&told(&mut other).await));
    let action = chain.records().of("operator_action").with("database", "orders").only().clone();
    assert_eq!((&action["sessions"], &action["now"]), (&1.into(), &false.into()));
    assert_eq!(chain.query(&chain.as_app(&ORDERS_APP), "select 1").await, "1", "who comes again is let in");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_the_proxys_own_and_goes_with_it() {
    let mut chain = start().await;
    let path = socket(chain.folder());
    let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    chain.proxy.terminate();
    assert!(chain.proxy.ended().await.status.success());
    assert!(!path.exists());
    let ended = sessions(&chain, &["list"]);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.output);
    assert!(ended.output.contains("admin.sock"), "{}", ended.output);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_without_a_socket_and_an_end_of_nobody_in_particular_are_refused() {
    let chain = Chain::start().await;
    let config = chain.config_path();
    let run = |arguments: &[&str]| proxy::run(arguments, &BTreeMap::new()).expect("runs");
    let ended = run(&["sessions", "list", "--config", config.to_str().expect("UTF-8")]);
    assert_eq!(ended.status.code(), Some(78), "{}", ended.output);
    assert!(ended.output.contains("admin.socket"), "{}", ended.output);
    assert_eq!(run(&["sessions", "end", "--now", "--socket", "x"]).status.code(), Some(2));
    assert_eq!(run(&["sessions", "list"]).status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_was_left_behind_is_replaced_and_a_file_is_not() {
    let prepared = prepared().await;
    drop(std::os::unix::net::UnixListener::bind(socket(prepared.folder())).expect("bound"));
    let chain = prepared.start().await;
    well(sessions(&chain, &["list"]));
    drop(chain);

    let prepared = self::prepared().await;
    std::fs::write(socket(prepared.folder()), "a file").expect("written");
    let path = prepared.config_path();
    let ended =
        proxy::run(&["serve", "--config", path.to_str().expect("UTF-8")], &prepared.environment()).expect("runs");
    assert_eq!(ended.status.code(), Some(78), "{}", ended.output);
    assert!(ended.output.contains("admin.socket") && ended.output.contains("is no socket"), "{}", ended.output);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_others_can_write_to_is_refused_at_the_start() {
    let prepared = prepared().await;
    std::fs::set_permissions(prepared.folder(), Permissions::from_mode(0o777)).expect("set");
    let path = prepared.config_path();
    let ended =
        proxy::run(&["serve", "--config", path.to_str().expect("UTF-8")], &prepared.environment()).expect("runs");
    assert_eq!(ended.status.code(), Some(1), "{}", ended.output);
    assert!(ended.output.contains("admin.sock") && ended.output.contains("chmod go-w"), "{}", ended.output);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_on_the_command_line_is_stronger_than_a_config_in_the_environment() {
    let chain = start().await;
    let socket = socket(chain.folder());
    let socket = socket.to_str().expect("UTF-8");
    for config in ["/nonexistent/pgpassport.toml", ""] {
        let environment = [("PGPASSPORT_CONFIG".to_owned(), config.to_owned())].into();
        let ended = proxy::run(&["sessions", "list", "--socket", socket], &environment).expect("runs");
        assert!(well(ended).contains("0 session(s)"), "{config:?}");
    }
    let config = chain.config_path();
    let environment = [("PGPASSPORT_CONFIG".to_owned(), config.to_str().expect("UTF-8").to_owned())].into();
    assert!(well(proxy::run(&["sessions", "list"], &environment).expect("runs")).contains("0 session(s)"));
    // An explicit file is stronger than the environment, too.
    let other = ["sessions", "list", "--config", "/nonexistent/pgpassport.toml"];
    assert_eq!(proxy::run(&other, &environment).expect("runs").status.code(), Some(78));
}

/// Runs a program as a user who owns nothing here; `None` where this test may not become somebody else.
fn as_nobody(program: &str, arguments: &[&str]) -> Option<Command> {
    let root = std::fs::metadata("/proc/self").expect("procfs").uid() == 0;
    if !root {
        println!("not tried: only root can become another user");
        return None;
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", program]).args(arguments);
    Some(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_proxys_user_and_root_asks_and_nobody_else_is_asked() {
    let chain = start().await;
    let path = socket(chain.folder());
    let socket = path.to_str().expect("UTF-8");
    // The mode keeps others out; where somebody has widened it, the kernel's word still does.
    std::fs::set_permissions(chain.folder(), Permissions::from_mode(0o755)).expect("set");
    std::fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("set");
    // A copy, as the folder that it was built in may be root's alone.
    let program = chain.folder().join("pgpassport");
    std::fs::copy(proxy::binary(), &program).expect("copied");
    let Some(mut asks) = as_nobody(program.to_str().expect("UTF-8"), &["sessions", "list", "--socket", socket]) else {
        return;
    };
    let asked = asks.output().expect("runs");
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert_eq!(asked.status.code(), Some(1), "{said}");
    assert!(said.contains("only the proxy's own user and root may ask"), "{said}");
    assert!(chain.records().of("operator_action").is_empty());

    // The other way round: nobody serves a socket in a folder of root's.
    let fake = chain.folder().join("fake.sock");
    let fake = fake.to_str().expect("UTF-8");
    let serve = "use Socket; socket(my $s, AF_UNIX, SOCK_STREAM, 0); \
                 bind($s, pack_sockaddr_un($ARGV[0])) or die; listen($s, 1); $| = 1; print qq(ready\\n); \
                 accept(my $c, $s); print scalar(<$c>) // 'silence'";
    std::fs::set_permissions(chain.folder(), Permissions::from_mode(0o777)).expect("set");
    let Some(mut serves) = as_nobody("perl", &["-e", serve, fake]) else { return };
    let mut serves = serves.stdout(Stdio::piped()).spawn().expect("runs");
    let mut heard = BufReader::new(serves.stdout.take().expect("piped"));
    let mut line = String::new();
    heard.read_line(&mut line).expect("it is ready");
    assert_eq!(line, "ready\n");
    let ended = proxy::run(&["sessions", "end", "--who", "secret", "--socket", fake], &BTreeMap::new()).expect("runs");
    assert_eq!(ended.status.code(), Some(1), "{}", ended.output);
    assert!(
        ended.output.contains("is served by uid 65534") && ended.output.contains("nothing was asked"),
        "{}",
        ended.output
    );
    let mut said = String::new();
    heard.read_to_string(&mut said).expect("its end");
    serves.wait().expect("ended");
    assert_eq!(said, "silence", "not a byte went there");
}

//! Names: the alias decides where, the grant decides who; what the client writes is looked up exactly or refused.

use pgpassport::sim::world::{ANALYST, ORDERS_APP, REPORTS_APP};
use proto_tests::chain::{Chain, Setup};
use proto_tests::psql::Login;
use proto_tests::refusal::{Expected, check, refused};
use proto_tests::wire;
use tokio::io::AsyncWriteExt;

/// An alias of 63 bytes, the longest there is.
const LONGEST: &str = "a23456789_b23456789_c23456789_d23456789_e23456789_f23456789_g23";

/// A name that PostgreSQL could not have had from anybody.
const INVALID_NAME: Expected<'_> = Expected { sqlstate: "42602", says: "" };

fn named(login: Login, user: &str) -> Login {
    Login { user: user.to_owned(), ..login }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_may_be_the_callers_own_name_or_the_grants() {
    let chain = Chain::start().await;
    assert_eq!(chain.query(&named(chain.person(), ANALYST.upn), "select session_user").await, ANALYST.upn);
    let app = named(chain.app(), ORDERS_APP.database_user);
    assert_eq!(chain.query(&app, "select session_user").await, ORDERS_APP.database_user);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contradicting_user_is_refused_naming_both() {
    let chain = Chain::start().await;
    for other in ["postgres", "cloudsqlsuperuser", REPORTS_APP.database_user, "ANALYST@contoso.example"] {
        let login = named(chain.person(), other);
        refused(&chain, &login, Expected { sqlstate: "28000", says: other }).await;
        refused(&chain, &login, Expected { sqlstate: "28000", says: ANALYST.upn }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_stands_for_the_real_database_and_is_matched_exactly() {
    let aliases = format!(
        "\n[database.sales]\ninstance = \"demo-project:europe-west1:orders\"\ndatabase = \"orders\"\n\
         [database.{LONGEST}]\ninstance = \"demo-project:europe-west1:orders\"\ndatabase = \"orders\"\n"
    );
    let chain = Setup::default()
        .extra(&aliases)
        .replace("databases = [\"orders\"]", &format!("databases = [\"orders\", \"sales\", \"{LONGEST}\"]"))
        .start()
        .await;
    let on = |database: &str| Login { database: database.to_owned(), ..chain.person() };
    for alias in ["sales", LONGEST] {
        assert_eq!(chain.query(&on(alias), "select current_database()").await, "orders");
    }
    for unknown in ["Sales", "sale", "sales ", "postgres", "template1", "demo-project:europe-west1:orders"] {
        refused(&chain, &on(unknown), Expected { sqlstate: "3D000", says: "" }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_postgresql_would_truncate_or_that_forge_lines_are_refused() {
    let aliases =
        format!("\n[database.{LONGEST}]\ninstance = \"demo-project:europe-west1:orders\"\ndatabase = \"orders\"\n");
    let chain = Setup::default()
        .extra(&aliases)
        .replace("databases = [\"orders\"]", &format!("databases = [\"orders\", \"{LONGEST}\"]"))
        .start()
        .await;
    let login = chain.person();
    let user = ANALYST.upn.as_bytes();
    let too_long = format!("{LONGEST}x");
    let cases: [(&str, &[u8], &[u8]); 6] = [
        ("a database of 64 bytes that begins as one of 63", user, too_long.as_bytes()),
        ("a user of 64 bytes", too_long.as_bytes(), b"orders"),
        ("a newline in the database", user, b"orders\nFATAL: forged"),
        ("an escape in the user", b"analyst\x1b[2J", b"orders"),
        ("a database that is no UTF-8", user, b"orders\xff"),
        ("a user that is no UTF-8", b"\xc3\x28", b"orders"),
    ];
    for (name, user, database) in cases {
        println!("{name}");
        let mut stream = chain.tls().await.expect("TLS");
        let answer = wire::log_in(&mut stream, user, database, &login.password).await.expect("an answer");
        let correlation = check(&answer, &login, INVALID_NAME);
        assert!(!answer.body.contains(&0x1b) && !answer.body.contains(&b'\n'), "{name}: control characters echoed");
        assert_eq!(chain.refusal(&correlation).await["sqlstate"], INVALID_NAME.sqlstate, "{name}");
    }
    assert!(!chain.database_log().contains("forged"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_the_wrong_field_is_not_repeated() {
    let chain = Chain::start().await;
    let login = chain.person();
    let token = login.password.clone().into_bytes();
    for (user, database) in [(token.as_slice(), b"orders".as_slice()), (ANALYST.upn.as_bytes(), &token)] {
        let mut stream = chain.tls().await.expect("TLS");
        let answer = wire::log_in(&mut stream, user, database, &login.password).await.expect("an answer");
        check(&answer, &login, INVALID_NAME);
    }
    let signature = login.password.rsplit('.').next().expect("three parts").to_owned();
    let log = chain.everything_recorded();
    assert!(!log.contains(&signature) && !chain.proxy.output().contains(&signature));
}

#[tokio::test(flavor = "multi_thread")]
async fn start_up_packets_that_are_wrong_get_an_error_and_not_a_session() {
    let chain = Chain::start().await;
    let packets: [(&str, Vec<u8>); 3] = [
        ("no user", wire::startup(&[(b"database", b"orders")])),
        ("an odd number of texts", [&[0, 0, 0, 14, 0, 3, 0, 0], b"user\0\0".as_slice()].concat()),
        ("replication", wire::startup(&[(b"user", b"a"), (b"database", b"orders"), (b"replication", b"true")])),
    ];
    for (name, packet) in packets {
        println!("{name}");
        let mut stream = chain.tls().await.expect("TLS");
        stream.write_all(&packet).await.unwrap();
        let answer = wire::read(&mut stream).await.expect("an answer");
        if name == "replication" && answer.tag == b'R' {
            stream.write_all(&wire::message(b'p', &wire::text(&chain.person().password))).await.unwrap();
            assert_eq!(wire::read(&mut stream).await.expect("an answer").tag, b'E', "{name}");
        } else {
            assert_eq!(answer.tag, b'E', "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_reconnects_by_alias_and_stays_when_the_name_is_unknown() {
    let chain = Chain::start().await;
    let printed = chain
        .psql(
            &chain.person(),
            &["-q", "-v", "ON_ERROR_STOP=0", "-c", "\\c orders", "-c", "select 'again'", "-c", "\\c nowhere"],
        )
        .await;
    assert!(printed.out.contains("again"), "{printed:?}");
    assert!(printed.err.contains("nowhere") && printed.err.contains("HINT:"), "{printed:?}");
}

//! Texts that only the keys of their callers open: none stands in the log, who has the keys reads them, and erasing one
//! caller's leaves the log proved and everybody else's readable.

use pgpassport::sim::world::{ANALYST, ORDERS_APP};
use proto_tests::audit::{run, stop, verify};
use proto_tests::chain::{Chain, Setup};
use serde_json::Value;
use std::path::Path;

const SEALED: [&str; 2] = ["orders-people", "orders-app"];

/// Segments, signatures and anchors agree; what the last second brought may have no anchor yet.
fn assert_sound(chain: &Chain) {
    let (code, said) = verify(chain);
    assert!(code == 0 || code == 3, "{said}");
}

fn setup() -> Setup {
    let sealing = "[audit.sealing]\nfolder = \"texts\"\nkey = \"texts.key\"\n\n[admin]\nsocket = \"admin.sock\"\n";
    SEALED.iter().fold(Setup::default().replace("[admin]\n", sealing), |setup, rule| {
        let name = format!("name = \"{rule}\"\n");
        setup.replace(&name, &format!("{name}texts = \"sealed\"\n"))
    })
}

async fn start() -> Chain {
    let prepared = setup().prepare().await;
    let key = prepared.folder().join("texts.key");
    let made = run(&["key", "--new-secret", text(&key)]);
    assert!(made.status.success() && made.stdout.is_empty(), "the key is not printed: {made:?}");
    prepared.start().await
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn items(chain: &Chain, more: &[&str]) -> (Vec<Value>, String) {
    let folder = chain.audit_folder();
    let found = run(&[&["search", text(&folder), "--json"], more].concat());
    assert!(found.status.success(), "{found:?}");
    let lines = String::from_utf8(found.stdout).expect("UTF-8");
    let items = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    (items, String::from_utf8(found.stderr).expect("UTF-8"))
}

fn unsealed(chain: &Chain, needle: &str) -> (Vec<Value>, String) {
    let (folder, key) = (chain.folder().join("texts"), chain.folder().join("texts.key"));
    items(chain, &["--text", needle, "--sealing-folder", text(&folder), "--sealing-key", text(&key)])
}

#[tokio::test(flavor = "multi_thread")]
async fn only_keys_open_texts_and_erasing_them_breaks_no_proof() {
    let mut chain = start().await;
    let (person, app) = (chain.person(), chain.app());
    chain.query(&person, "select 'SECRET-OF-PERSON' -- SECRET-TOO").await;
    chain.query(&app, "select 'SECRET-OF-APP', 12345").await;
    let client = chain.connect(&person).await.client;
    let prepared = client.prepare("select 'SECRET-PREPARED' || $1::text").await.expect("prepared");
    client.query(&prepared, &[&"x"]).await.expect("it runs");
    // Long enough to be known by its digest.
    let long = format!("select length('SECRET-{}-SECRET-AT-THE-END')", "x".repeat(100_000));
    client.simple_query(&long).await.expect("it runs");
    drop(client);
    let records = chain.records_when("four executions", |records| records.of("session_end").len() >= 3).await;
    assert_eq!(records.of("session_start").iter().next().expect("one")["texts"], "sealed");

    for (path, bytes) in chain.files() {
        let holds = bytes.windows(6).any(|window| window == b"SECRET");
        assert!(!holds, "{} has a literal", path.display());
    }
    assert!(!chain.proxy.output().contains("SECRET"));
    assert!(chain.database_log().contains("SECRET-OF-PERSON"), "the database's own log is its own");

    let (shapes, said) = items(&chain, &["--text", "select ?"]);
    let texts: Vec<&str> = shapes.iter().filter_map(|item| item["text"].as_str()).collect();
    assert!(texts.contains(&"select ?, ?") && texts.contains(&"select ? || $1::text"), "{texts:?}");
    assert!(said.contains("--unseal"), "{said}");
    let (found, said) = unsealed(&chain, "secret-");
    assert!(found.len() >= 4 && said.is_empty(), "{said} {found:#?}");
    let long_one = found.iter().find(|item| item["text_bytes"] == long.len()).expect("the long one");
    assert_eq!(unsealed(&chain, "secret-at-the-end").0.len(), 1, "more of a text is sealed as its start is");
    let more = records.of("text").iter().next().expect("more of it").clone();
    assert!(more["text"].is_null() && more["text_sealed"]["data"].is_string(), "{more}");
    assert!(long_one["text_sha256"].is_null() && long_one["text_mac"]["hmac"].is_string(), "{long_one}");
    assert_sound(&chain);

    erased(&chain);
    // A new key, from then on.
    chain.query(&person, "select 'SECRET-AFTERWARDS'").await;
    chain.records_when("one more", |records| records.of("session_end").len() >= 4).await;
    assert_eq!(unsealed(&chain, "secret-afterwards").0.len(), 1);
    stop(&mut chain).await;
    let (code, said) = verify(&chain);
    assert_eq!(code, 0, "{said}");
}

fn erased(chain: &Chain) {
    let socket = chain.folder().join("admin.sock");
    let erase = |object_id: &str, more: &[&str]| {
        let erased = run(&[&["erase", "--socket", text(&socket), "--object-id", object_id], more].concat());
        let said = String::from_utf8([erased.stdout, erased.stderr].concat()).expect("UTF-8");
        (erased.status.code(), said)
    };
    let (code, said) = erase("nobody-of-this-name", &[]);
    assert!(code == Some(1) && said.contains("nobody with the object id"), "{said}");
    let (code, said) = erase(ANALYST.object_id, &["--before", "yesterday"]);
    assert!(code == Some(1) && said.contains("YYYY-MM-DD"), "{said}");
    assert_eq!(erase(ANALYST.object_id, &["--before", "2020-01-01"]), (Some(0), told(0)));
    assert_eq!(erase(ANALYST.object_id, &[]), (Some(0), told(1)));

    let (found, said) = unsealed(chain, "secret");
    let whose: Vec<&str> = found.iter().filter_map(|item| item["caller"]["object_id"].as_str()).collect();
    assert_eq!(whose, [ORDERS_APP.object_id], "{found:#?}");
    assert!(said.contains("no key any more"), "{said}");
    assert_sound(chain);
    let actions = chain.records().of("operator_action");
    let last = actions.iter().last().expect("one");
    assert_eq!((&last["action"], &last["person"]["object_id"]), (&"texts_erase".into(), &ANALYST.object_id.into()));
}

fn told(keys: usize) -> String {
    format!("{keys} key(s) erased: the texts that they sealed cannot be read any more\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_takes_no_key_lets_nobody_in() {
    let chain = start().await;
    chain.query(&chain.app(), "select 1").await;
    // A file where the caller's folder would be made.
    let texts = chain.folder().join("texts");
    std::fs::rename(&texts, chain.folder().join("elsewhere")).expect("renamed");
    std::fs::write(&texts, "no folder").expect("written");
    let refused = chain.psql(&chain.person(), &["-c", "select 1"]).await;
    assert!(refused.refused().contains("record"), "{}", refused.err);
}

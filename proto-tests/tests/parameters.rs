//! What of statements' parameters is on record, as each rule says: nothing, an HMAC of each, or each.

use base64::Engine;
use proto_tests::audit::{run, stop, verify};
use proto_tests::chain::{Chain, Setup};
use proto_tests::script::{parse, sync};
use proto_tests::servers::{At, each};
use proto_tests::wire::{self, message};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

const SECRET: &str = "S3CRET-OF-A-PERSON";
/// `textlen(text)`.
const LENGTH: u32 = 1257;

/// A folder with a key.
fn keyed() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let made = run(&["key", "--new-secret", path(&folder).to_str().expect("UTF-8")]);
    assert!(made.status.success() && made.stdout.is_empty(), "the key is not printed: {made:?}");
    folder
}

fn path(folder: &TempDir) -> PathBuf {
    folder.path().join("values.key")
}

fn setup(key: &TempDir, lines: &str) -> Setup {
    let name = "name = \"orders-app\"\n";
    let key = format!("[audit]\nparameters_key = \"{}\"\n", path(key).display());
    Setup::default().replace("[audit]\n", &key).replace(name, &format!("{name}{lines}\n"))
}

/// Whether a file of the proxy's has the secret, as it is or in base64, and which.
fn leaks(chain: &Chain) -> Option<PathBuf> {
    let encoded = base64::engine::general_purpose::STANDARD.encode(SECRET);
    let has = |bytes: &[u8], needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    let found = chain
        .files()
        .into_iter()
        .find(|(_, bytes)| has(bytes, SECRET.as_bytes()) || has(bytes, &encoded.as_bytes()[..20]));
    assert!(!chain.proxy.output().contains(SECRET), "in the process's own log");
    found.map(|(path, _)| path)
}

/// `Bind` of one value as text and a NULL, and its Execute; then the same secret as a function's argument.
fn texts() -> Vec<u8> {
    let length = u32::try_from(SECRET.len()).expect("short").to_be_bytes();
    let bind = [b"\0\0\0\0\0\x02".as_slice(), &length, SECRET.as_bytes(), &[0xff; 4], b"\0\0"].concat();
    let call = [&LENGTH.to_be_bytes()[..], &[0, 0, 0, 1], &length, SECRET.as_bytes(), &[0, 0]].concat();
    let statement = parse("", "select $1::text is null, $2::text is null");
    [statement, message(b'B', &bind), message(b'E', b"\0\0\0\0\0"), sync(), message(b'F', &call)].concat()
}

/// Runs the secret in binary by tokio-postgres, as text and as an argument by hand; the begin records that have values.
async fn ran(chain: &Chain) -> Vec<Value> {
    let client = chain.connect(&chain.app()).await.client;
    let row = client.query_one("select $1::text, $2::int4", &[&SECRET, &7_i32]).await.expect("it runs");
    assert_eq!((row.get::<_, &str>(0), row.get::<_, i32>(1)), (SECRET, 7));
    let mut session = chain.session(&chain.app()).await;
    session.write_all(&texts()).await.expect("sent");
    let mut ready = 0;
    while ready < 2 {
        let answer = wire::read(&mut session).await.expect("an answer");
        assert_ne!(answer.tag, b'E', "{answer:?}");
        ready += usize::from(answer.tag == b'Z');
    }
    let told = |begin: &&Value| begin["stage"] == "bind" || begin["stage"] == "function_call";
    let records = chain.records();
    let begins = records.of("begin").apart();
    begins.iter().filter(told).map(|begin| begin["parameters"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_has_parameters_recorded_as_it_says_and_not_otherwise() {
    let key = keyed();
    for parameters in ["off", "hmac", "full"] {
        let line = format!("parameters = \"{parameters}\"");
        for At { name, mut chain, .. } in each(|| setup(&key, &line), "").await {
            let lists = ran(&chain).await;
            assert_eq!(lists.len(), 3, "{name}, {parameters}: {lists:#?}");
            let start = chain.records().of("session_start").iter().last().expect("one").clone();
            match parameters {
                "off" => assert!(lists.iter().all(Value::is_null) && start["parameters"].is_null(), "{lists:#?}"),
                "hmac" => hmacs(&lists, &start),
                _ => full(&lists, &start),
            }
            assert_eq!(leaks(&chain).is_some(), parameters == "full", "{name}, {parameters}: {:?}", leaks(&chain));
            stop(&mut chain).await;
            assert_eq!(verify(&chain).0, 0, "{name}, {parameters}");
        }
    }
}

fn hmacs(lists: &[Value], start: &Value) {
    let of = |list: &Value, at: usize| list[at]["hmac_sha256"].as_str().expect("an HMAC").to_owned();
    let hmac = of(&lists[0], 0);
    assert_eq!(hmac.len(), 64);
    assert!(lists.iter().all(|list| of(list, 0) == hmac), "equal values are told: {lists:#?}");
    assert_ne!(of(&lists[0], 1), hmac);
    assert_eq!(lists[1][1], json!({"is_null": true}));
    assert!(lists[0][0]["bytes"].is_null(), "a length says much of a short value");
    let named = (start["parameters"].as_str(), start["parameters_key"].as_str().map(str::len));
    assert_eq!(named, (Some("hmac"), Some(16)));
}

fn full(lists: &[Value], start: &Value) {
    let encoded = base64::engine::general_purpose::STANDARD.encode(SECRET);
    let binary = json!({"format": 1, "bytes": SECRET.len(), "value_base64": encoded});
    let seven = json!({"format": 1, "bytes": 4, "value_base64": "AAAABw=="});
    let text = json!({"bytes": SECRET.len(), "value": SECRET});
    assert_eq!(lists, [json!([binary, seven]), json!([text, {"is_null": true}]), json!([text])]);
    assert_eq!(start["parameters"], "full");
}

/// As what its records outlive: a session keeps what its rule said when it began.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_counts_for_sessions_that_begin_after_it() {
    let key = keyed();
    let chain = setup(&key, "parameters = \"full\"").start().await;
    let before = chain.connect(&chain.app()).await.client;
    chain.reload("parameters = \"full\"", "parameters = \"off\"").await;
    let after = chain.connect(&chain.app()).await.client;
    for (client, text) in [(&before, "before"), (&after, "after")] {
        client.query_one("select $1::text", &[&text]).await.expect("it runs");
    }
    let binds = chain.records().messages("bind");
    let listed: Vec<usize> = binds.iter().map(|bind| bind["parameters"].as_array().map_or(0, Vec::len)).collect();
    assert_eq!(listed, [1, 0], "{binds:#?}");
}

/// Where texts are sealed, so are parameters, and who has the keys reads both.
#[tokio::test(flavor = "multi_thread")]
async fn sealed_parameters_are_opened_by_their_callers_keys_only() {
    let key = keyed();
    let sealing = format!("[audit.sealing]\nfolder = \"texts\"\nkey = \"{}\"\n\n[admin]\n", path(&key).display());
    let setup = setup(&key, "texts = \"sealed\"\nparameters = \"full\"").replace("[admin]\n", &sealing);
    let chain = setup.start().await;
    ran(&chain).await;
    assert_eq!(leaks(&chain), None);
    let binds = chain.records().messages("bind");
    assert!(binds.iter().all(|bind| bind["parameters"].is_null() && bind["parameters_sealed"]["data"].is_string()));
    let (folder, texts) = (chain.audit_folder(), chain.folder().join("texts"));
    let utf8 = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let (folder, texts, wrapping) = (utf8(&folder), utf8(&texts), utf8(&path(&key)));
    let found = run(&["search", &folder, "--json", "--sealing-folder", &texts, "--sealing-key", &wrapping]);
    let lines = String::from_utf8(found.stdout).expect("UTF-8");
    let items: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(items.iter().any(|item| item["parameters"][0]["value"] == SECRET), "{items:#?}");
}

//! What every refused client must get, whatever the reason: tried with psql and on the bare wire, compared with the
//! record that has the same correlation id.

use crate::chain::Chain;
use crate::psql::Login;
use crate::wire::Message;
use serde_json::Value;

/// What a refusal must say.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The code on the wire and in the record.
    pub sqlstate: &'a str,
    /// Text that the message or its detail has, in any case.
    pub says: &'a str,
}

/// Refused through psql and on the wire; returns the record of psql's refusal.
pub async fn refused(chain: &Chain, login: &Login, expected: Expected<'_>) -> Value {
    let record = refused_by_psql(chain, login, expected).await;
    if login.sslmode != "disable" {
        let mut stream = chain.tls().await.expect("TLS");
        let answer = chain.attempt(&mut stream, login).await;
        let correlation = check(&answer, login, expected);
        assert_eq!(chain.refusal(&correlation).await["sqlstate"], expected.sqlstate);
    }
    record
}

/// Refused through psql alone, where a second attempt would find another state.
pub async fn refused_by_psql(chain: &Chain, login: &Login, expected: Expected<'_>) -> Value {
    let printed = chain.psql(login, &["-c", "select 'must not run'"]).await;
    let text = printed.refused();
    for part in ["FATAL:", "DETAIL:", "HINT:"] {
        assert!(text.contains(part), "{expected:?}: no {part} in {text}");
    }
    assert!(text.to_lowercase().contains(&expected.says.to_lowercase()), "{expected:?}: {text}");
    assert_no_token(text, login);
    let record = chain.refusal(&printed.correlation()).await;
    assert_eq!(record["sqlstate"], expected.sqlstate, "{expected:?}: {record}");
    assert_eq!(record["session"], record["correlation"], "{record}");
    assert!(record["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{record}");
    assert_no_token(&record.to_string(), login);
    record
}

/// The error on the wire has every field; returns its correlation id.
#[track_caller]
pub fn check(answer: &Message, login: &Login, expected: Expected<'_>) -> String {
    assert_eq!(answer.sqlstate(), expected.sqlstate, "{expected:?}: {:?}", answer.field(b'M'));
    assert_eq!((answer.field(b'S').as_deref(), answer.field(b'V').as_deref()), (Some("FATAL"), Some("FATAL")));
    let hint = answer.field(b'H').unwrap_or_default();
    assert!(!hint.trim().is_empty(), "{expected:?}: a next step");
    let detail = answer.field(b'D').unwrap_or_default();
    assert_no_token(&String::from_utf8_lossy(&answer.body), login);
    crate::correlation(&detail).unwrap_or_else(|| panic!("{expected:?}: no correlation id in {detail:?}"))
}

/// Within a few tries the caller is let in: a limit or fault has passed.
pub async fn until_let_in(chain: &Chain, login: &Login) {
    let mut last = String::new();
    for _ in 0..20 {
        let printed = chain.psql(login, &["-c", "select 1"]).await;
        if printed.code == 0 {
            return;
        }
        last = printed.err;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    panic!("still refused: {last}");
}

#[track_caller]
fn assert_no_token(text: &str, login: &Login) {
    for segment in login.password.split('.').filter(|segment| segment.len() > 16) {
        assert!(!text.contains(segment), "a part of the token shows in {text}");
    }
}

//! Graph's answers, right and wrong, and how often it is asked.

use super::super::claims;
use super::super::testing::{app, contoso, now, person};
use super::*;
use crate::http::testing::{Seen, Server, client};
use crate::http::{ATTEMPTS, MAX_CALLS, MAX_WAITING};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const GROUP: &str = "11111111-1111-4111-8111-111111111111";
const OTHER: &str = "22222222-2222-4222-8222-222222222222";

#[derive(Debug)]
struct Token(Result<&'static str, &'static str>);

#[async_trait::async_trait]
impl DirectoryToken for Token {
    async fn token(&self) -> Result<Secret<String>, String> {
        self.0.map(|token| Secret::new(token.to_owned())).map_err(str::to_owned)
    }
}

fn directory(url: &str, token: Token) -> Directory {
    let asked = HashSet::from([GROUP.to_owned()]);
    Directory::new(url, Arc::new(token), client(), Duration::from_secs(5), asked)
}

fn caller(claims: &serde_json::Value) -> IdentityFacts {
    claims::check(claims.as_object().unwrap(), &contoso("https://login.example"), now()).unwrap()
}

fn analyst() -> IdentityFacts {
    caller(&person(&contoso("https://login.example").url()))
}

async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn only_groups_that_rules_name_are_kept_and_a_storm_asks_once() {
    let graph = Server::start(|_: &Seen| (200, json!({"value": [OTHER, GROUP.to_uppercase()]}).to_string())).await;
    let directory = Arc::new(directory(&graph.url, Token(Ok("graph-token"))));
    let mut storm = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let directory = Arc::clone(&directory);
        storm.spawn(async move { directory.groups(&analyst()).await.unwrap() });
    }
    assert!(storm.join_all().await.iter().all(|groups| groups == &[GROUP]));
    assert_eq!(*directory.asked(), HashSet::from([GROUP.to_owned()]), "of others nobody knows");
    let [asked] = graph.seen().try_into().unwrap();
    assert_eq!(asked.target, format!("/v1.0/users/{}/getMemberGroups", analyst().object_id));
    assert_eq!((asked.method.as_str(), asked.header("authorization")), ("POST", Some("Bearer graph-token")));
    assert_eq!(asked.body, r#"{"securityEnabledOnly":true}"#);
    pass(MEMBERSHIP_LIFE).await;
    directory.groups(&analyst()).await.unwrap();
    let software = caller(&app(&contoso("https://login.example").url()));
    pass(MEMBERSHIP_LIFE).await;
    directory.groups(&software).await.unwrap();
    assert!(graph.seen()[2].target.starts_with("/v1.0/servicePrincipals/"), "software is elsewhere");
}

#[tokio::test]
async fn whatever_is_no_list_of_ids_is_no_membership() {
    for (status, body, expected) in [
        (200, r#"{"value":[]}"#, Ok(0)),
        (200, r#"{"value":"x"}"#, Err("cannot be understood")),
        (200, r#"{"value":[1]}"#, Err("cannot be understood")),
        (200, r#"{"value":[],"@odata.nextLink":"https://graph.example/next"}"#, Err("cannot be understood")),
        (200, "<html>", Err("cannot be understood")),
        (
            403,
            r#"{"error":{"code":"Authorization_RequestDenied","message":"m"}}"#,
            Err("forbids it: status 403, Authorization_RequestDenied"),
        ),
        (401, "", Err("forbids it: status 401")),
        (
            400,
            r#"{"error":{"code":"Directory_ResultSizeLimitExceeded"}}"#,
            Err("more groups than Microsoft Graph lists"),
        ),
        (400, r#"{"error":{"code":"Request_BadRequest"}}"#, Err("refused: status 400, Request_BadRequest")),
        (404, r#"{"error":{"code":"a\nb<c>"}}"#, Err("does not know the caller: status 404, abc")),
        (429, "", Err("takes no more questions")),
        (503, "", Err("status 503")),
        (302, "", Err("status 302")),
    ] {
        let graph = Server::start(move |_: &Seen| (status, body.to_owned())).await;
        let outcome = directory(&graph.url, Token(Ok("t"))).groups(&analyst()).await;
        match (outcome, expected) {
            (Ok(groups), Ok(count)) => assert_eq!(groups.len(), count),
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{status} {body}: {error}"),
            (outcome, _) => panic!("{status} {body}: {outcome:?}"),
        }
    }
    let outcome = directory("http://127.0.0.1:1", Token(Ok("t"))).groups(&analyst()).await;
    assert!(matches!(outcome, Err(DirectoryError::Unavailable(_))), "{outcome:?}");
    let outcome = directory("http://127.0.0.1:1", Token(Err("no identity here"))).groups(&analyst()).await;
    assert!(matches!(outcome, Err(DirectoryError::Credential(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_failure_stands_for_a_moment_and_is_asked_again() {
    let up = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&up);
    let graph = Server::start(move |_: &Seen| {
        if answers.load(Ordering::Relaxed) {
            (200, json!({"value": [GROUP]}).to_string())
        } else {
            (503, String::new())
        }
    })
    .await;
    let directory = directory(&graph.url, Token(Ok("t")));
    for _ in 0..20 {
        assert!(directory.groups(&analyst()).await.is_err());
    }
    assert_eq!(graph.seen().len(), ATTEMPTS as usize, "those who come at once share the failure");
    up.store(true, Ordering::Relaxed);
    pass(FAILURE_LIFE).await;
    assert_eq!(directory.groups(&analyst()).await.unwrap(), [GROUP]);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_members_stay_within_the_bound() {
    let directory = directory("http://127.0.0.1:1", Token(Ok("t")));
    let held: Vec<_> = (0..10).map(|n| directory.member(&format!("asking-{n}")).unwrap()).collect();
    for n in 0..10_000 {
        directory.member(&format!("member-{n}")).unwrap().learn(Ok(Vec::new()));
        assert!(directory.members.lock().unwrap().len() <= MAX_MEMBERS);
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    let known = |id: &str| directory.members.lock().unwrap().get(id).is_some_and(|member| member.recall().is_some());
    assert!(known("member-9999") && !known("member-0"));
    let kept = |id: &str| directory.members.lock().unwrap().contains_key(id);
    assert!((0..held.len()).all(|n| kept(&format!("asking-{n}"))), "who is asking gives nobody room");
}

/// A Graph that takes every question and answers none.
async fn silent() -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    (url, task)
}

#[tokio::test]
async fn a_graph_that_does_not_answer_holds_nobody_past_the_deadline_and_is_not_overrun() {
    let (url, _task) = silent().await;
    // Twice as long is what one after the other would take; a busy machine stays far below it.
    let deadline = Duration::from_secs(6);
    let asked = HashSet::from([GROUP.to_owned()]);
    let directory = Arc::new(Directory::new(&url, Arc::new(Token(Ok("t"))), client(), deadline, asked));
    let begin = Instant::now();
    let mut logins = tokio::task::JoinSet::new();
    // Each twice: the second waits for the first.
    for n in 0..(MAX_CALLS + MAX_WAITING + 20) * 2 {
        let directory = Arc::clone(&directory);
        let caller = IdentityFacts { object_id: format!("{}", n / 2), ..analyst() };
        logins.spawn(async move { directory.groups(&caller).await.unwrap_err() });
    }
    let errors = logins.join_all().await;
    assert!(begin.elapsed() < deadline * 2, "{:?}", begin.elapsed());
    let busy = errors.iter().filter(|error| matches!(error, DirectoryError::Busy)).count();
    assert!(busy >= 20 * 2, "who finds no room is told so: {busy}");
    let late = errors.iter().filter(|error| matches!(error, DirectoryError::Unavailable(_))).count();
    assert_eq!(busy + late, errors.len());
}

#[tokio::test]
async fn a_graph_that_asks_for_silence_gets_it() {
    let answer = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 30\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let graph = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let directory = directory(&url, Token(Ok("t")));
    for n in 0..20 {
        let caller = IdentityFacts { object_id: n.to_string(), ..analyst() };
        let outcome = directory.groups(&caller).await;
        assert!(matches!(outcome, Err(DirectoryError::Throttled { left: Some(_) })), "{outcome:?}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1, "it is left alone");
    graph.abort();
}

//! Entra's part of the device authorization grant, played answer by answer.

use super::*;
use crate::http::testing::{Seen, Server, client};
use serde_json::json;
use std::cell::RefCell;
use std::sync::Mutex;

const CODE: &str = "device-code-that-nobody-may-see";

/// What a whole sign-in came to: its end, the pauses between polls in seconds, and what the person was told.
struct Played {
    end: Result<Token, Error>,
    pauses: Vec<u64>,
    told: String,
    asked: Vec<Seen>,
}

fn begun(expires_in: u64, interval: Option<u64>) -> String {
    let uri = "https://login.example/device";
    json!({ "device_code": CODE, "user_code": "ABC123\u{1b}[2J", "verification_uri": uri, "expires_in": expires_in,
            "interval": interval, "message": "not shown" })
    .to_string()
}

fn refusal(error: &str) -> (u16, String) {
    let description = "AADSTS70016: Words. Trace ID: 1 Correlation ID: 2 Timestamp: 3";
    (400, json!({ "error": error, "error_description": description }).to_string())
}

fn granted() -> (u16, String) {
    (200, json!({ "token_type": "Bearer", "access_token": "e.y.J" }).to_string())
}

async fn play(first: (u16, String), polls: Vec<(u16, String)>) -> Played {
    let polls = Mutex::new(polls.into_iter());
    let server = Server::start(move |seen| {
        if seen.target.ends_with("/devicecode") { first.clone() } else { polls.lock().unwrap().next().unwrap() }
    })
    .await;
    let device = DeviceCode {
        authority: server.url.clone(),
        tenant: "tenant".to_owned(),
        client_id: "client".to_owned(),
        scope: "api://pgpassport/.default".to_owned(),
    };
    let (http, told, pauses) = (client(), RefCell::new(String::new()), RefCell::new(Vec::new()));
    let pause = async |interval: Duration| pauses.borrow_mut().push(interval.as_secs());
    let end = match begin(&http, &device).await {
        Ok(begun) => {
            told.borrow_mut().push_str(&prompt(&begun));
            wait(&http, &device, &begun, pause).await
        }
        Err(error) => Err(error),
    };
    Played { end, pauses: pauses.into_inner(), told: told.into_inner(), asked: server.seen() }
}

#[tokio::test]
async fn it_asks_as_the_rfc_says_and_never_more_often_than_it_was_told() {
    let polls =
        vec![refusal("authorization_pending"), refusal("slow_down"), refusal("authorization_pending"), granted()];
    let played = play((200, begun(900, Some(7))), polls).await;
    assert_eq!(played.end.unwrap().secret().expose(), "e.y.J");
    assert_eq!(played.pauses, [7, 7, 12, 12]);
    assert_eq!(played.told, "To sign in, open https://login.example/device in a browser and enter the code ABC123[2J");
    let (first, poll) = (&played.asked[0], &played.asked[1]);
    assert_eq!(first.target, "/tenant/oauth2/v2.0/devicecode");
    assert_eq!(first.field("client_id").as_deref(), Some("client"));
    assert_eq!(first.field("scope").as_deref(), Some("api://pgpassport/.default openid profile"));
    assert_eq!(poll.target, "/tenant/oauth2/v2.0/token");
    assert_eq!(poll.field("grant_type").as_deref(), Some(GRANT));
    assert_eq!(poll.field("device_code").as_deref(), Some(CODE));
    assert_eq!(poll.field("client_id").as_deref(), Some("client"));
    assert_eq!(played.asked.len(), 5);
}

#[tokio::test]
async fn every_end_has_its_words_and_none_its_secrets() {
    for (answer, words) in [
        (refusal("authorization_declined"), "declined in the browser"),
        (refusal("access_denied"), "declined in the browser"),
        (refusal("expired_token"), "expired before"),
        (refusal("bad_verification_code"), "Entra refused: bad_verification_code: AADSTS70016: Words."),
        ((200, "{}".to_owned()), "no token: a member is missing or no JSON"),
        ((200, json!({"access_token": "a b"}).to_string()), "the token is empty"),
        ((302, String::new()), "no token: status 302"),
        ((400, "<html>".to_owned()), "no token: status 400"),
    ] {
        let played = play((200, begun(900, Some(1))), vec![answer]).await;
        let error = played.end.unwrap_err();
        assert!(error.to_string().contains(words), "{words}: {error}");
        assert!(!error.to_string().contains("Trace ID") && !format!("{error:?}").contains(CODE), "{error:?}");
        assert_eq!(played.pauses, [1], "{words}");
    }
}

#[tokio::test]
async fn outages_are_waited_out_with_growing_pauses_but_not_for_ever() {
    let busy = || (503, "busy".to_owned());
    let played = play((200, begun(900, None)), vec![busy(), (429, String::new()), granted()]).await;
    assert!(played.end.is_ok());
    assert_eq!(played.pauses, [5, 10, 20]);
    let played = play((200, begun(900, Some(1))), (0..5).map(|_| busy()).collect()).await;
    assert_eq!(played.end.unwrap_err().to_string(), "Entra answered something that is no token: status 503");
    assert_eq!(played.pauses, [1, 2, 4, 8, 16]);
    // An answer in between starts the count anew.
    let polls = vec![busy(), busy(), busy(), busy(), refusal("authorization_pending"), busy(), granted()];
    assert!(play((200, begun(900, Some(1))), polls).await.end.is_ok());
}

#[tokio::test]
async fn a_code_that_ends_before_the_next_poll_is_not_polled() {
    let played = play((200, begun(3, Some(5))), vec![]).await;
    assert!(matches!(played.end, Err(Error::CodeExpired)));
    assert_eq!((played.pauses.len(), played.asked.len()), (0, 1));
}

#[tokio::test]
async fn what_cannot_begin_says_why() {
    let description = "AADSTS700016: Application with identifier 'client' was not found. Trace ID: 1";
    let unknown = json!({ "error": "unauthorized_client", "error_description": description }).to_string();
    let error = play((400, unknown), vec![]).await.end.unwrap_err();
    assert!(error.to_string().ends_with("'client' was not found."), "{error}");
    assert!(error.next_step().contains("`client_id`"));
    let error = play((200, "{\"device_code\": 1}".to_owned()), vec![]).await.end.unwrap_err();
    assert!(matches!(error, Error::Answer { .. }), "{error}");
    let nowhere = DeviceCode {
        authority: "http://127.0.0.1:1".to_owned(),
        tenant: "t".to_owned(),
        client_id: "c".to_owned(),
        scope: "s/x".to_owned(),
    };
    let error = token(&client(), &nowhere, |_| panic!("nothing to tell")).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable(_)), "{error}");
}

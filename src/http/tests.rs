//! The client against servers that answer, stall, break off, send too much, or are somebody else.

use super::testing::{Server, ca, client, raw};
use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(20);

fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

#[tokio::test]
async fn each_call_sends_what_it_says() {
    let server = Server::start(|_| (200, "{}".into())).await;
    let client = client();
    client.get(&format!("{}/keys?a=b", server.url), None, LONG).await.unwrap();
    client.get(&server.url, Some(&secret("t1")), LONG).await.unwrap();
    client.post_form(&server.url, &[("a", "b c"), ("d", "&=")], LONG).await.unwrap();
    client.post_json(&server.url, &secret("t2"), &serde_json::json!({"x": 1}), LONG).await.unwrap();
    let seen = server.seen();
    assert_eq!((seen[0].method.as_str(), seen[0].target.as_str()), ("GET", "/keys?a=b"));
    assert_eq!(seen[0].header("authorization"), None);
    assert_eq!(seen[1].header("authorization"), Some("Bearer t1"));
    assert_eq!(seen[2].header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!((seen[2].header("authorization"), seen[2].body.as_str()), (None, "a=b+c&d=%26%3D"));
    assert_eq!(seen[3].header("authorization"), Some("Bearer t2"));
    assert_eq!(seen[3].body, r#"{"x":1}"#);
}

#[tokio::test]
async fn redirects_are_answers_not_journeys() {
    let answer = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".to_vec();
    let (url, _task) = raw(answer).await;
    assert_eq!(client().get(&url, None, LONG).await.unwrap().status, 302);
}

#[tokio::test]
async fn a_body_ends_at_the_limit_announced_or_not() {
    let whole = format!("HTTP/1.1 200 OK\r\ncontent-length: {MAX_BODY_BYTES}\r\n\r\n");
    let (url, _task) = raw([whole.into_bytes(), vec![b'x'; MAX_BODY_BYTES]].concat()).await;
    assert_eq!(client().get(&url, None, LONG).await.unwrap().body.len(), MAX_BODY_BYTES);

    let announced = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", MAX_BODY_BYTES + 1);
    let (url, _task) = raw(announced.into_bytes()).await;
    assert!(matches!(client().get(&url, None, LONG).await, Err(Error::TooLarge { .. })));

    let endless = [b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec(), vec![b'x'; MAX_BODY_BYTES + 1]].concat();
    let (url, _task) = raw(endless).await;
    assert!(matches!(client().get(&url, None, LONG).await, Err(Error::TooLarge { .. })));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_broken() {
    for answer in ["", "HTTP/1.1 20", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfour", "not http at all\r\n\r\n"] {
        let (url, _task) = raw(answer.as_bytes().to_vec()).await;
        let outcome = client().get(&url, None, LONG).await;
        assert!(matches!(outcome, Err(Error::Broken { .. })), "{answer:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn nobody_there_is_unreachable_and_the_host_is_named() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let error = client().get(&format!("http://127.0.0.1:{port}/secret-path"), None, LONG).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    let text = chain(&error);
    assert!(text.starts_with(&format!("cannot reach 127.0.0.1:{port}: ")), "{text}");
    assert!(!text.contains("secret-path"));
}

#[tokio::test]
async fn a_request_that_cannot_be_formed_is_an_error_without_the_token() {
    for (url, token) in [("no url", "t"), ("http://127.0.0.1:1/", "line\nbreak-token")] {
        let error = client().get(url, Some(&secret(token)), LONG).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
        assert!(!format!("{error:?} {}", chain(&error)).contains("break-token"));
    }
}

#[tokio::test]
async fn silence_and_trickle_end_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            if held.len() % 2 == 1 {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx").await;
            }
            held.push(stream);
        }
    });
    for _ in 0..2 {
        let begin = std::time::Instant::now();
        let outcome = client().get(&url, None, SECOND).await;
        assert!(matches!(outcome, Err(Error::Deadline { deadline: SECOND, .. })), "{outcome:?}");
        assert!(begin.elapsed() < SECOND * 5);
    }
}

async fn tls_server(authority: &testing::Ca) -> String {
    let acceptor = testing::acceptor(authority, b"http/1.1");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                let _ = stream.shutdown().await;
            }
        }
    });
    format!("https://127.0.0.1:{port}")
}

#[tokio::test]
async fn only_the_ca_file_is_trusted() {
    let (ours, theirs) = (ca(), ca());
    let url = tls_server(&ours).await;
    let trusted = Client::new(Some(&ours.file)).unwrap().get(&url, None, LONG).await.unwrap();
    assert_eq!(trusted.body, b"ok");
    let foreign = Client::new(Some(&theirs.file)).unwrap().get(&url, None, LONG).await;
    assert!(matches!(foreign, Err(Error::Unreachable { .. })), "{foreign:?}");
    let wrong_name = url.replace("127.0.0.1", "localhost");
    let named = Client::new(Some(&ours.file)).unwrap().get(&wrong_name, None, LONG).await;
    assert!(matches!(named, Err(Error::Unreachable { .. })), "{named:?}");
}

/// The platform's roots come from the process's environment, so a child process has it.
#[tokio::test]
async fn a_ca_file_replaces_the_platforms_roots() {
    let (platform, file) = (ca(), ca());
    let (platform_url, file_url) = (tls_server(&platform).await, tls_server(&file).await);
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["http::tests::child_roots", "--exact", "--ignored", "--nocapture"])
        .env_clear()
        .env("SSL_CERT_FILE", &platform.file)
        .env("CHILD_CA", &file.file)
        .env("CHILD_URLS", format!("{platform_url} {file_url}"))
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("CHILD: platform [true, false] file [false, true]"), "{text}");
}

#[tokio::test]
#[ignore = "a child of the test above"]
async fn child_roots() {
    let (Ok(file), Ok(urls)) = (std::env::var("CHILD_CA"), std::env::var("CHILD_URLS")) else { return };
    let reached = async |client: Client| {
        let mut reached = Vec::new();
        for url in urls.split(' ') {
            reached.push(client.get(url, None, LONG).await.is_ok());
        }
        reached
    };
    let platform = reached(Client::new(None).unwrap()).await;
    let file = reached(Client::new(Some(Path::new(&file))).unwrap()).await;
    println!("CHILD: platform {platform:?} file {file:?}");
}

#[test]
fn a_bad_ca_file_says_which_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roots.pem");
    for (content, reason) in [
        (None, "roots.pem: "),
        (Some(""), "holds no certificate"),
        (Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "roots.pem: "),
    ] {
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let error = Client::new(Some(&path)).unwrap_err();
        assert!(matches!(&error, Error::SetUp(text) if text.contains(reason)), "{error}");
    }
}

#[test]
fn debug_output_shows_no_body() {
    let response = Response { status: 200, body: b"ya29.secret".to_vec(), ..Response::default() };
    assert_eq!(format!("{response:?}"), "Response { status: 200, retry_after: None, bytes: 11, .. }");
}

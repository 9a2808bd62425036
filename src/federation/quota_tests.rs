//! Whom a 429 holds back: those who share the quota, and nobody else.

use super::tests::{WORKLOAD, caller, exchanger, service_account, willing, workforce};
use super::*;
use crate::http::FIRST_REST;
use crate::http::testing::{Seen, Server};
use crate::policy::How;
use tokio::time::Instant;

/// Google counts exchanges by project: one project's 429 is none of another's business.
#[tokio::test]
async fn projects_do_not_rest_for_each_other() {
    let ours = |request: &Seen| request.field("audience").is_some_and(|audience| audience == WORKLOAD);
    let server =
        Server::start(move |request| if ours(request) { (429, String::new()) } else { willing(request) }).await;
    let exchanger = exchanger(&server.url);
    let other = |how: &mut How| {
        if let How::ServiceAccount { provider, .. } = how {
            *provider = Provider::parse(&WORKLOAD.replace("123456789012", "2")).unwrap();
        }
    };
    let throttled = exchanger.exchange(&service_account(), &caller("one")).await.unwrap_err();
    assert!(matches!(throttled, Error::Throttled { .. }), "{throttled:?}");
    let begin = Instant::now();
    let mut elsewhere = service_account();
    other(&mut elsewhere.how);
    exchanger.exchange(&elsewhere, &caller("two")).await.unwrap();
    exchanger.exchange(&workforce(None), &caller("three")).await.unwrap();
    assert!(begin.elapsed() < FIRST_REST, "nobody waited: {:?}", begin.elapsed());
    let asked = server.seen().len();
    let begin = Instant::now();
    let again = exchanger.exchange(&service_account(), &caller("four")).await;
    assert!(again.is_err() && begin.elapsed() > FIRST_REST, "who shares the quota did");
    assert!(server.seen().len() > asked);
}

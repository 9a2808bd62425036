//! File descriptors: the proxy takes as many as it may, and says when that is too few.

use proto_tests::chain::Setup;
use proto_tests::proxy::Limited;

#[tokio::test(flavor = "multi_thread")]
async fn the_soft_limit_is_raised_to_the_hard_one_and_too_few_are_said() {
    let chain = Setup::default().limited(Limited::Descriptors { soft: 256, hard: 2048 }).start().await;
    assert_eq!(chain.proxy.descriptors(), (2048, 2048));
    let output = chain.proxy.output();
    assert!(output.contains("fewer file descriptors than [limits] can need"), "{output}");
    assert!(output.contains("2048") && output.contains("4636"), "{output}");
    drop(chain);
    let few = "[limits]\nsessions = 100\nlogins = 100";
    let chain = Setup::default().extra(few).limited(Limited::Descriptors { soft: 256, hard: 2048 }).start().await;
    assert!(!chain.proxy.output().contains("fewer file descriptors"), "{}", chain.proxy.output());
    assert_eq!(chain.query(&chain.person(), "select 1").await, "1");
}

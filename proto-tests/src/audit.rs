//! `pgpassport audit` over a chain's log.

use crate::chain::Chain;
use crate::proxy::binary;
use std::path::Path;
use std::process::{Command, Output};

/// Runs `pgpassport audit`.
pub fn run(arguments: &[&str]) -> Output {
    Command::new(binary()).arg("audit").args(arguments).output().expect("the binary runs")
}

/// `audit verify` of a chain's log, with its anchor: exit code, and what it said.
pub fn verify(chain: &Chain) -> (i32, String) {
    let key = chain.cloud.audit_key();
    let (code, public) = said(&run(&["key", "--of", key.to_str().expect("a path")]));
    assert_eq!(code, 0, "{public}");
    let folder = chain.audit_folder();
    let anchor = folder.with_extension("anchor");
    let path = |path: &Path| path.to_str().expect("a path").to_owned();
    said(&run(&["verify", &path(&folder), "--public", public.trim(), "--anchor", &path(&anchor)]))
}

/// Ends the proxy as an operator does.
pub async fn stop(chain: &mut Chain) {
    chain.proxy.terminate();
    let ended = chain.proxy.ended().await;
    assert!(ended.status.success(), "{}", ended.output);
}

fn said(output: &Output) -> (i32, String) {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    (output.status.code().expect("an exit code"), String::from_utf8_lossy(&text).into_owned())
}

//! The same test at two versions of PostgreSQL: the one that Debian installed (15 on Debian 12), and 18.

use crate::chain::{Chain, Setup};
use crate::drivers::Postgres18;
use pgpassport::sim::{CloudOptions, PostgresOptions};

/// A chain in front of one of them.
#[derive(Debug)]
pub struct At {
    /// Which.
    pub name: &'static str,
    /// The chain.
    pub chain: Chain,
    /// Gone with the chain.
    _programs: Option<Postgres18>,
}

/// The setup's chain in front of each, with these lines of `postgresql.conf`.
pub async fn each(setup: impl Fn() -> Setup, settings: &str) -> [At; 2] {
    let start = async |name, programs: Option<Postgres18>| {
        let postgres = PostgresOptions { bin: programs.as_ref().map(Postgres18::bin), settings: settings.to_owned() };
        let chain = setup().options(CloudOptions { postgres, ..CloudOptions::default() }).start().await;
        At { name, chain, _programs: programs }
    };
    [start("Debian's", None).await, start("18", Some(Postgres18::unpack())).await]
}

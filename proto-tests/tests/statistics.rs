//! What the tag does to `pg_stat_statements`, which groups by what PostgreSQL computes from a statement.

use proto_tests::chain::{Chain, Setup};
use proto_tests::script::{self, direct_as, query, send};
use proto_tests::servers::{At, each};

/// The simulator's superuser.
const OWNER: &str = "cloudsqladmin";
const LOAD: &str = "shared_preload_libraries = 'pg_stat_statements'\n";

/// The columns of the only row that the owner gets.
async fn owner(chain: &Chain, statement: &str) -> Vec<String> {
    let answers = script::run(&mut direct_as(chain, OWNER).await, &[send(&[query(statement)])]).await;
    let mut rest = answers.iter().find(|answer| answer.tag == b'D').map_or(&[][..], |row| &row.body[2..]);
    let mut columns = Vec::new();
    while let Some((length, more)) = rest.split_first_chunk::<4>() {
        let (column, more) = more.split_at(usize::try_from(u32::from_be_bytes(*length)).expect("short"));
        columns.push(String::from_utf8_lossy(column).into_owned());
        rest = more;
    }
    columns
}

/// A comment is no part of what a query is known by: whoever asks, and without a tag too, it is one query. Utility
/// statements are known by their text up to PostgreSQL 15.
#[tokio::test(flavor = "multi_thread")]
async fn the_tag_splits_no_query_in_pg_stat_statements() {
    for At { name, chain, .. } in each(Setup::default, LOAD).await {
        owner(&chain, "create extension pg_stat_statements").await;
        let asked = |number| {
            ["begin".to_owned(), format!("select amount from orders where id = {number}"), "commit".to_owned()]
        };
        for (number, login) in [(1, chain.person()), (2, chain.app())] {
            let texts: Vec<Vec<u8>> = asked(number).iter().map(|text| query(text)).collect();
            script::through(&chain, &login, &[send(&texts)]).await;
        }
        let untagged: Vec<Vec<u8>> = asked(3).iter().map(|text| query(text)).collect();
        script::run(&mut script::direct(&chain).await, &[send(&untagged)]).await;
        let known = async |text: &str| {
            let of = format!("from pg_stat_statements where query like '%{text}' and query not like '%pg_stat%'");
            owner(&chain, &format!("select count(distinct queryid), count(*), sum(calls), min(query) {of}")).await
        };
        let select = known("select amount from orders where id = $1").await;
        // Two rows: of two database users, the analyst's for the tagged and the untagged one together.
        assert_eq!(select[..3], ["1", "2", "3"], "{name}: {select:?}");
        let begin = known("begin").await;
        let version = owner(&chain, "show server_version_num").await[0].parse::<u32>().expect("a number") / 10_000;
        println!("{name}, {version}: {select:?} {begin:?}");
        match version {
            ..=15 => {
                assert_eq!(begin[..3], ["3", "3", "3"], "{name}: {begin:?}");
                assert!(select[3].starts_with("/*app="), "{name}: shown with the tag of the first: {select:?}");
            }
            18.. => {
                assert_eq!(begin[..3], ["1", "2", "3"], "{name}: {begin:?}");
                assert_eq!(select[3], "select amount from orders where id = $1", "{name}");
            }
            // Of these nothing is said.
            _ => {}
        }
    }
}

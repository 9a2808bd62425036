//! Unmodified clients of Google and Microsoft against the simulators: each gets what it may have, and is refused in
//! every way that can reach it, told by its own exception.
//!
//! Which client does what, and how many cells that makes, is fixed in the families' tables and below. Each family has
//! a cloud of its own, and runs beside the others.

mod azure_identity;
mod cell;
mod connectors;
mod google_auth;
mod msal;

use cell::{Cell, Counts, State};
use std::fmt::Write as _;

/// The clients, and how many of their acts work, are refused, or go unchecked by the client: fixed here too, so that
/// nobody thins the families' tables out unseen.
const EXPECTED: [(&str, Counts); 21] = [
    ("google-auth, workload pool", Counts { works: 1, refused: 7, unchecked: 0 }),
    ("google-auth, workload pool, service account", Counts { works: 2, refused: 7, unchecked: 0 }),
    ("google-auth, workforce pool", Counts { works: 1, refused: 8, unchecked: 0 }),
    ("google-auth, workforce pool, service account", Counts { works: 1, refused: 7, unchecked: 0 }),
    ("msal, client secret", Counts { works: 2, refused: 4, unchecked: 0 }),
    ("msal, federated assertion", Counts { works: 1, refused: 6, unchecked: 0 }),
    ("msal, device code", Counts { works: 1, refused: 3, unchecked: 0 }),
    ("msal, authorization code and PKCE", Counts { works: 1, refused: 5, unchecked: 0 }),
    ("msal, refresh token", Counts { works: 1, refused: 2, unchecked: 0 }),
    ("msal, managed identity", Counts { works: 2, refused: 3, unchecked: 0 }),
    ("ClientSecretCredential", Counts { works: 2, refused: 4, unchecked: 0 }),
    ("ClientAssertionCredential", Counts { works: 1, refused: 5, unchecked: 0 }),
    ("WorkloadIdentityCredential", Counts { works: 1, refused: 5, unchecked: 0 }),
    ("DeviceCodeCredential", Counts { works: 1, refused: 2, unchecked: 0 }),
    ("AuthorizationCodeCredential", Counts { works: 1, refused: 4, unchecked: 0 }),
    ("InteractiveBrowserCredential", Counts { works: 1, refused: 1, unchecked: 0 }),
    ("ManagedIdentityCredential", Counts { works: 2, refused: 3, unchecked: 0 }),
    ("cloud-sql-python-connector, asyncpg", Counts { works: 7, refused: 7, unchecked: 1 }),
    ("cloud-sql-python-connector, pg8000", Counts { works: 7, refused: 7, unchecked: 1 }),
    ("cloud-sql-python-connector, psycopg", Counts { works: 7, refused: 7, unchecked: 1 }),
    ("@google-cloud/cloud-sql-connector, node-postgres", Counts { works: 7, refused: 8, unchecked: 0 }),
];
/// All of them together.
const TOTAL: Counts = Counts { works: 50, refused: 105, unchecked: 3 };

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_served_and_refused_as_by_the_real_services() {
    let families = [
        tokio::spawn(google_auth::run()),
        tokio::spawn(msal::run()),
        tokio::spawn(azure_identity::run()),
        tokio::spawn(connectors::run(&connectors::ASYNCPG)),
        tokio::spawn(connectors::run(&connectors::PG8000)),
        tokio::spawn(connectors::run(&connectors::PSYCOPG)),
        tokio::spawn(connectors::run(&connectors::NODE)),
    ];
    let mut cells = Vec::new();
    let mut broken = Vec::new();
    for family in families {
        match family.await {
            Ok(more) => cells.extend(more),
            Err(error) => broken.push(error.to_string()),
        }
    }
    let table = table(&cells);
    println!("{}\n{table}", details(&cells));
    std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/strangers.txt"), &table).expect("the table is written");
    let wrong: Vec<&Cell> = cells.iter().filter(|cell| cell.state == State::Wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(broken.is_empty(), "{broken:#?}");
    for (client, expected) in EXPECTED {
        assert_eq!(Counts::of(cells.iter().filter(|cell| cell.client == client)), expected, "{client}");
    }
    assert_eq!(Counts::of(&cells), TOTAL, "no other client");
}

/// Every cell, with the client's own words.
fn details(cells: &[Cell]) -> String {
    cells.iter().fold(String::new(), |mut details, cell| {
        let said: String = cell.said.chars().take(120).collect::<String>().replace('\n', " ");
        let _ = writeln!(details, "{:<9} {}: {}: {said}", cell.state.word(), cell.client, cell.act);
        details
    })
}

/// For each client its acts, by what came of them.
fn table(cells: &[Cell]) -> String {
    let mut table = String::new();
    for (client, _) in EXPECTED {
        let _ = writeln!(table, "{client}");
        for state in [State::Works, State::Refused, State::Unchecked, State::Wrong] {
            let of = cells.iter().filter(|cell| cell.client == client && cell.state == state);
            let acts: Vec<_> = of.map(|cell| cell.act).collect();
            if !acts.is_empty() {
                let _ = writeln!(table, "  {:<9} {}", state.word(), acts.join("; "));
            }
        }
    }
    let Counts { works, refused, unchecked } = Counts::of(cells);
    let _ = writeln!(
        table,
        "strangers: {works} acts work, {refused} are refused by the client's own exception, {unchecked} unchecked by it"
    );
    table
}

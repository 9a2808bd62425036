//! What both sides say in the replay: [`STATEMENTS`] statements of every kind, the same in every run.
//!
//! A server that answers in full is made up here: nothing of it was recorded from anywhere. What a client sends at once is
//! one read, and so is what the server answers to it.

mod messages;

use crate::Result;
use messages::{Rows, Stream};

/// Statements of the replay.
pub const STATEMENTS: u64 = 10_000;
/// Where the choices come from; another number is another replay.
const SEED: u64 = 0x5eed_0000_2026_1122;
/// Statements of one batch of a pipeline.
const BATCH: u64 = 8;
/// Names of prepared statements.
const NAMES: u64 = 20;
/// Rows of a COPY.
const COPY_ROWS: u64 = 200;

/// How a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A Query.
    Simple,
    /// BEGIN, an UPDATE and COMMIT, a Query each.
    Transaction,
    /// Parse, Bind, Describe, Execute, Sync, without names.
    Extended,
    /// Bind, Execute, Sync of a name; its first time with a Parse.
    Prepared,
    /// Several of those without waiting, and one Sync.
    Pipelined,
    /// A Query, or a Parse with what follows, that fails at a position.
    Error,
    /// COPY FROM STDIN.
    CopyIn,
    /// COPY TO STDOUT.
    CopyOut,
}

impl Kind {
    /// Each, with how many exchanges of it there are, and how many statements one has.
    pub const ALL: [(Self, u64, u64); 8] = [
        (Self::Simple, 2_700, 1),
        (Self::Transaction, 100, 3),
        (Self::Extended, 2_500, 1),
        (Self::Prepared, 2_500, 1),
        (Self::Pipelined, 200, BATCH),
        (Self::Error, 200, 1),
        (Self::CopyIn, 100, 1),
        (Self::CopyOut, 100, 1),
    ];

    /// Its name, which its function in [`crate::replay`] has.
    pub fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Transaction => "transaction",
            Self::Extended => "extended",
            Self::Prepared => "prepared",
            Self::Pipelined => "pipelined",
            Self::Error => "error",
            Self::CopyIn => "copy_in",
            Self::CopyOut => "copy_out",
        }
    }
}

/// Which side sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What asks.
    Client,
    /// What answers.
    Server,
}

/// A question and its answer, up to the server's readiness for the next.
#[derive(Debug)]
pub struct Exchange {
    /// How it is asked.
    pub kind: Kind,
    /// Reads, in order.
    pub reads: Vec<(Side, Vec<u8>)>,
}

/// The whole replay.
#[derive(Debug)]
pub struct Script {
    /// In order.
    pub exchanges: Vec<Exchange>,
}

impl Script {
    /// The one that the kept counts are of.
    pub fn fixed() -> Result<Self> {
        let mut random = Random(SEED);
        let mut kinds: Vec<Kind> =
            Kind::ALL.iter().flat_map(|(kind, exchanges, _)| (0..*exchanges).map(|_| *kind)).collect();
        for at in (1..kinds.len()).rev() {
            kinds.swap(at, random.index(at + 1));
        }
        let mut author = Author { random, tag_bytes: sample::tag()?.bytes().len(), prepared: 0 };
        Ok(Self { exchanges: kinds.into_iter().map(|kind| author.exchange(kind)).collect() })
    }

    /// Bytes that a side sends.
    pub fn bytes(&self, of: Side) -> u64 {
        let reads = self.exchanges.iter().flat_map(|exchange| &exchange.reads);
        reads.filter(|(side, _)| *side == of).map(|(_, read)| read.len() as u64).sum()
    }
}

/// Makes exchanges up, one after the other.
struct Author {
    random: Random,
    /// Positions of errors count in the tagged text.
    tag_bytes: usize,
    /// Names that have been given.
    prepared: u64,
}

impl Author {
    fn exchange(&mut self, kind: Kind) -> Exchange {
        let (mut client, mut server) = (Stream::default(), Stream::default());
        let reads = match kind {
            Kind::Transaction => return Exchange { kind, reads: self.transaction() },
            Kind::CopyIn => return Exchange { kind, reads: copy_in() },
            Kind::Simple => {
                client.query(&self.text());
                server.rows(self.rows(), true).ready(b'I');
                [client, server]
            }
            Kind::Extended => {
                client.parse("", &self.text()).bind("", self.random.below(1_000_000)).describe().execute().sync();
                server.parsed().bound().rows(self.rows(), true).ready(b'I');
                [client, server]
            }
            Kind::Prepared => {
                self.prepared(&mut client, &mut server);
                client.sync();
                server.ready(b'I');
                [client, server]
            }
            Kind::Pipelined => {
                for _ in 0..BATCH {
                    client.parse("", &self.text()).bind("", self.random.below(1_000_000)).describe().execute();
                    server.parsed().bound().rows(self.rows(), true);
                }
                client.sync();
                server.ready(b'I');
                [client, server]
            }
            Kind::Error => {
                let text = self.text().replace("SELECT", "SELETC").replace("FROM", "FORM");
                if self.random.below(2) == 0 {
                    client.query(&text);
                } else {
                    client.parse("", &text).bind("", 7).describe().execute().sync();
                }
                server.error(self.tag_bytes + 1).ready(b'I');
                [client, server]
            }
            Kind::CopyOut => {
                client.query("COPY (SELECT * FROM app.orders WHERE placed_at > '2026-01-01') TO STDOUT (FORMAT csv)");
                server.copy(b'H').copy_rows(COPY_ROWS).copy_done().complete(&format!("COPY {COPY_ROWS}")).ready(b'I');
                [client, server]
            }
        };
        let [client, server] = reads.map(Stream::into_bytes);
        Exchange { kind, reads: vec![(Side::Client, client), (Side::Server, server)] }
    }

    fn prepared(&mut self, client: &mut Stream, server: &mut Stream) {
        let name = if self.prepared < NAMES {
            let name = format!("s_{}", self.prepared);
            client.parse(&name, &self.text());
            server.parsed();
            self.prepared += 1;
            name
        } else {
            format!("s_{}", self.random.below(NAMES))
        };
        client.bind(&name, self.random.below(1_000_000)).execute();
        server.bound().rows(self.rows(), false);
    }

    fn transaction(&mut self) -> Vec<(Side, Vec<u8>)> {
        let id = self.random.below(1_000_000);
        let update = format!("UPDATE app.accounts SET balance = balance - 17.50, changed_at = now() WHERE id = {id}");
        let mut reads = Vec::new();
        for (text, complete, status) in
            [("BEGIN", "BEGIN", b'T'), (&update, "UPDATE 1", b'T'), ("COMMIT", "COMMIT", b'I')]
        {
            let (mut client, mut server) = (Stream::default(), Stream::default());
            client.query(text);
            server.complete(complete).ready(status);
            reads.push((Side::Client, client.into_bytes()));
            reads.push((Side::Server, server.into_bytes()));
        }
        reads
    }

    /// A statement as programs write them: 40 to 400 bytes.
    fn text(&mut self) -> String {
        let id = self.random.below(1_000_000);
        match self.random.below(6) {
            0 => format!("SELECT abalance FROM pgbench_accounts WHERE aid = {id}"),
            1 => format!(
                "SELECT o.id, o.customer, o.total, o.placed_at FROM \"app\".\"orders\" AS o WHERE o.customer = 'c-{id}' \
                 AND o.placed_at > now() - interval '30 days' ORDER BY o.placed_at DESC LIMIT 50"
            ),
            2 => format!("SELECT \"users\".* FROM \"users\" WHERE \"users\".\"id\" = {id} LIMIT 1"),
            3 => format!(
                "SELECT c.name,\n       count(*) AS orders,\n       sum(o.total) AS revenue\n  FROM app.customers c\n  JOIN \
                 app.orders o ON o.customer_id = c.id\n WHERE c.region = 'emea' AND o.status IN ('paid', 'sent')\n   AND \
                 c.id <> {id}\n GROUP BY c.name\nHAVING sum(o.total) > 1000\n ORDER BY revenue DESC\n LIMIT 20"
            ),
            4 => format!("SELECT id, payload->>'kind' AS kind FROM app.events WHERE payload @> '{{\"user\": {id}}}'"),
            _ => format!("SELECT set_config('app.user', 'u-{id}', true), current_setting('TimeZone')"),
        }
    }

    fn rows(&mut self) -> Rows {
        let count = match self.random.below(10) {
            0..6 => 1,
            6..9 => 10,
            _ => 50,
        };
        Rows { count, bytes: 20 + self.random.index(60) }
    }
}

/// Nothing of it is left to chance.
fn copy_in() -> Vec<(Side, Vec<u8>)> {
    let [mut ask, mut go, mut data, mut done] = [const { Stream::new() }; 4];
    ask.query("COPY app.orders_import (id, customer, total, placed_at) FROM STDIN (FORMAT csv)");
    go.copy(b'G');
    data.copy_rows(COPY_ROWS).copy_done();
    done.complete(&format!("COPY {COPY_ROWS}")).ready(b'I');
    let sides = [Side::Client, Side::Server, Side::Client, Side::Server];
    sides.into_iter().zip([ask, go, data, done].map(Stream::into_bytes)).collect()
}

/// xorshift64 (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }

    fn index(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_the_same_every_time_and_has_its_statements() {
        let (one, other) = (Script::fixed().unwrap(), Script::fixed().unwrap());
        let reads = |script: &Script| script.exchanges.iter().flat_map(|one| one.reads.clone()).collect::<Vec<_>>();
        assert!(reads(&one) == reads(&other));
        let statements: u64 = Kind::ALL.iter().map(|(_, exchanges, each)| exchanges * each).sum();
        assert_eq!(statements, STATEMENTS);
        for (kind, exchanges, _) in Kind::ALL {
            assert_eq!(one.exchanges.iter().filter(|one| one.kind == kind).count() as u64, exchanges);
        }
    }
}

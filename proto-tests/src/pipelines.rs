//! Random pipelines: what a lawful client may send in any order, drawn from a seed, so that a run can be repeated.
//!
//! Whatever the order, PostgreSQL's answers follow from the messages alone: nothing here depends on time, on how the
//! bytes are cut, or on a number that differs between two sessions.

use crate::script::{execute, execute_up_to, flush, parse, query, sync};
use crate::wire::{message, text};

/// What every session begins with.
pub const PROLOGUE: &str = "create temp table t (a int); create temp table u (a int unique deferrable initially \
                            deferred)";
/// Texts that work, fail, or say nothing; names are shared with the protocol's own.
const TEXTS: [&str; 39] = [
    "select 1",
    "select 1",
    "select 'ü', 2",
    "select generate_series(1, 5)",
    "select generate_series(1, 5)",
    "select id, customer from orders order by id",
    "select count(*) from t",
    "insert into t values (1), (2)",
    "insert into t values (3)",
    "update t set a = a + 1",
    "insert into u values (1)",
    "insert into u values (2), (2)",
    "select 1 / 0",
    "select 1 / 0",
    "selec 'ü'",
    "select nope from orders",
    "delete from orders where id < 0",
    "select 'x'::int",
    "",
    " ; -- nothing",
    "begin",
    "begin",
    "begin read only",
    "commit",
    "rollback",
    "savepoint a",
    "rollback to a",
    "prepare s1 as select 'prepared in SQL'",
    "execute s1",
    "execute s2",
    "deallocate s1",
    "deallocate all",
    "declare p1 cursor for select generate_series(1, 4)",
    "fetch 2 from p1",
    "close p1",
    "do $$ begin raise notice 'noticed'; end $$",
    "set application_name = 'random'",
    "copy t to stdout",
    "truncate t",
];
/// Texts of a Query alone: several statements.
const SEVERAL: [&str; 4] = [
    "select 1; select 2 union select 3; select 4",
    "select 1; select 1 / 0; select 2",
    "begin; insert into t values (4); select count(*) from t",
    "insert into t values (5); selec",
];
const COPY: &str = "copy t from stdin";
const STATEMENTS: [&str; 4] = ["", "", "s1", "s2"];
const PORTALS: [&str; 4] = ["", "", "p1", "p2"];

/// A source of choices.
#[derive(Debug)]
pub struct Seed(u64);

impl Seed {
    /// The same number gives the same choices.
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// Below `below` (`SplitMix64`).
    pub fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % u64::try_from(below).expect("small")).expect("small")
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }
}

/// Which messages a pipeline may have.
///
/// A Query that failed in a transaction leaves an unnamed portal whose statements are freed memory (`exec_simple_query`,
/// `postgres.c`, keeps them in `MessageContext`), and PostgreSQL that is told to execute it reads them: 15.18 crashes at
/// times. So where there are Queries, the unnamed portal is executed only just behind a Bind of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kinds {
    /// All, but an Execute of what a Query may have left.
    All,
    /// No Query; the unnamed portal is executed as any other.
    Extended,
}

/// So many steps, each of one message or a few; it ends with a Sync.
pub fn pipeline(seed: &mut Seed, steps: usize) -> Vec<u8> {
    let kinds = if seed.below(3) == 0 { Kinds::Extended } else { Kinds::All };
    let mut bytes = query(PROLOGUE);
    for _ in 0..steps {
        bytes.extend(step(seed, kinds));
    }
    bytes.extend(sync());
    bytes
}

fn step(seed: &mut Seed, kinds: Kinds) -> Vec<u8> {
    match seed.below(20) {
        0..5 if kinds == Kinds::Extended => run(seed),
        0..4 => query(seed.of(&TEXTS)),
        4 => query(seed.of(&SEVERAL)),
        5..8 => run(seed),
        8 | 9 => parse(seed.of(&STATEMENTS), seed.of(&TEXTS)),
        10 => parse(seed.of(&STATEMENTS), "select $1::int + 1"),
        11 | 12 => bound(seed),
        13 => limited(seed, kinds),
        14 => named(b'D', seed),
        15 => named(b'C', seed),
        16 => flush(),
        17 => sync(),
        18 => copy(seed, kinds),
        _ => call(seed),
    }
}

/// Parse, Bind, perhaps Describe, Execute, perhaps Sync.
fn run(seed: &mut Seed) -> Vec<u8> {
    let (statement, portal) = (seed.of(&STATEMENTS), seed.of(&PORTALS));
    let mut bytes = [parse(statement, seed.of(&TEXTS)), bind(portal, statement, None)].concat();
    if seed.below(2) == 0 {
        bytes.extend(message(b'D', &[b"P".to_vec(), text(portal)].concat()));
    }
    bytes.extend(execute(portal));
    if seed.below(3) > 0 {
        bytes.extend(sync());
    }
    bytes
}

/// With a parameter or without, whatever the statement wants.
fn bind(portal: &str, statement: &str, value: Option<&str>) -> Vec<u8> {
    let mut body = [text(portal), text(statement), vec![0, 0]].concat();
    match value {
        Some(value) => {
            body.extend_from_slice(&[0, 1]);
            body.extend_from_slice(&u32::try_from(value.len()).expect("short").to_be_bytes());
            body.extend_from_slice(value.as_bytes());
        }
        None => body.extend_from_slice(&[0, 0]),
    }
    body.extend_from_slice(&[0, 0]);
    message(b'B', &body)
}

fn bound(seed: &mut Seed) -> Vec<u8> {
    let value = [None, None, Some("41"), Some("no number")][seed.below(4)];
    bind(seed.of(&PORTALS), seed.of(&STATEMENTS), value)
}

/// Execute up to some rows; of a portal that is bound for it, again.
fn limited(seed: &mut Seed, kinds: Kinds) -> Vec<u8> {
    let portal = seed.of(&PORTALS);
    let rows = u32::try_from(seed.below(4)).expect("small");
    if portal.is_empty() && kinds == Kinds::All {
        let bound = bind(portal, seed.of(&STATEMENTS), None);
        return [bound, execute_up_to(portal, rows), execute_up_to(portal, rows)].concat();
    }
    execute_up_to(portal, rows)
}

/// Describe or Close of a statement or portal.
fn named(kind: u8, seed: &mut Seed) -> Vec<u8> {
    let (target, names) = if seed.below(2) == 0 { (b'S', STATEMENTS) } else { (b'P', PORTALS) };
    message(kind, &[vec![target], text(seed.of(&names))].concat())
}

/// COPY FROM STDIN with its data and end behind it, as a client sends it that does not wait; where COPY does not begin,
/// the server passes over them. Never without them: PostgreSQL would end the session and close with bytes unread, and
/// how much of its last answers then arrives over TCP is left to chance.
fn copy(seed: &mut Seed, kinds: Kinds) -> Vec<u8> {
    let data = message(b'd', [b"1\n2\n".as_slice(), b"x\n", b""][seed.below(3)]);
    let end = if seed.below(2) == 0 { message(b'c', b"") } else { message(b'f', &text("given up")) };
    let input = [data, end].concat();
    if kinds == Kinds::All && seed.below(2) == 0 {
        return [query(COPY), input].concat();
    }
    // Nothing else may execute it: it would have no data.
    let name = ["", "c"][seed.below(2)];
    let start = [parse(name, COPY), bind(name, name, None), execute(name)].concat();
    let between = if seed.below(2) == 0 { flush() } else { Vec::new() };
    let close = message(b'C', &[vec![b'S'], text(name)].concat());
    [start, between, input, sync(), close].concat()
}

/// `int4abs(int4)`, or no function.
fn call(seed: &mut Seed) -> Vec<u8> {
    let function: u32 = if seed.below(3) > 0 { 1251 } else { 0 };
    let head = [function.to_be_bytes().as_slice(), &[0, 1, 0, 1, 0, 1, 0, 0, 0, 4]].concat();
    message(b'F', &[head, (-7_i32).to_be_bytes().to_vec(), vec![0, 1]].concat())
}

//! What a lawful client may send, chosen by dice: any message at any time, but nothing other than COPY's own messages
//! where the server may be reading COPY data.

use super::server::Message;
use super::sql::{Name, Sql, Text};

/// Names that statements and portals share; the last one is kept for COPY.
const NAMES: [Name; 4] = ["", "a", "b", "copy"];

/// Choices, each from the next number; zero when they are used up.
#[derive(Debug)]
pub struct Dice<'a>(std::slice::Iter<'a, u32>);

impl<'a> Dice<'a> {
    pub fn new(numbers: &'a [u32]) -> Self {
        Self(numbers.iter())
    }

    pub fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    pub fn roll(&mut self, sides: u32) -> u32 {
        self.0.next().map_or(0, |number| number % sides)
    }

    fn name(&mut self) -> Name {
        NAMES[self.roll(3) as usize]
    }
}

/// The next messages, which are sent one after the other.
pub fn messages(dice: &mut Dice<'_>) -> Vec<Message> {
    match dice.roll(24) {
        0 | 1 => query(dice),
        2..=5 => vec![parse(dice)],
        6..=8 => vec![bind(dice)],
        9..=11 => vec![Message::Execute { portal: dice.name(), max: [0, 0, 1, 2][dice.roll(4) as usize] }],
        12 => vec![Message::Describe { statement: dice.roll(2) == 0, name: dice.name() }],
        13 => vec![Message::Close { statement: dice.roll(2) == 0, name: dice.name() }],
        14..=16 => vec![Message::Sync],
        17 => vec![Message::FunctionCall { fails: dice.roll(2) == 0 }],
        18 => vec![[Message::CopyData, Message::CopyDone, Message::CopyFail][dice.roll(3) as usize].clone()],
        19 => copy_by_name(dice),
        20 => whole_copy(dice),
        _ => vec![parse(dice), bind(dice), Message::Execute { portal: dice.name(), max: dice.roll(3) }, Message::Sync],
    }
}

fn query(dice: &mut Dice<'_>) -> Vec<Message> {
    let several = dice.roll(3) == 0;
    let mut text: Vec<Sql> = (0..if several { 1 + dice.roll(4) } else { 1 }).map(|_| sql(dice)).collect();
    text.retain(|sql| *sql != Sql::Unreadable || !several);
    let copies = dice.roll(8).saturating_sub(5);
    for _ in 0..copies {
        let at = dice.roll(5) as usize;
        text.insert(at.min(text.len()), copy_sql(dice));
    }
    if text.contains(&Sql::Unreadable) {
        text.truncate(1);
    }
    let mut out = vec![Message::Query(Text(text))];
    for _ in 0..copies {
        copy_messages(dice, &mut out);
    }
    out
}

fn parse(dice: &mut Dice<'_>) -> Message {
    Message::Parse { name: dice.name(), text: Text(vec![sql(dice)]) }
}

fn bind(dice: &mut Dice<'_>) -> Message {
    Message::Bind { portal: dice.name(), statement: dice.name(), bad: dice.roll(12) == 11 }
}

/// COPY's statement and portal are bound to each other only, so that it is known where the server may read data.
fn copy_by_name(dice: &mut Dice<'_>) -> Vec<Message> {
    let text = Text(vec![if dice.roll(4) == 0 { Sql::Select(1) } else { copy_sql(dice) }]);
    match dice.roll(4) {
        0 => vec![Message::Parse { name: "copy", text }],
        1 => vec![Message::Close { statement: dice.roll(2) == 0, name: "copy" }],
        2 => vec![Message::Bind { portal: "copy", statement: "copy", bad: false }],
        _ => {
            let mut out = vec![Message::Execute { portal: "copy", max: 0 }];
            copy_messages(dice, &mut out);
            out.push(Message::Sync);
            out
        }
    }
}

fn whole_copy(dice: &mut Dice<'_>) -> Vec<Message> {
    let text = Text(vec![copy_sql(dice)]);
    let mut out = vec![
        Message::Close { statement: true, name: "copy" },
        Message::Parse { name: "copy", text },
        Message::Close { statement: false, name: "copy" },
        Message::Bind { portal: "copy", statement: "copy", bad: false },
        Message::Execute { portal: "copy", max: 0 },
    ];
    copy_messages(dice, &mut out);
    out.push(Message::Sync);
    out
}

/// Data with Syncs between, as libpq sends them, then an end, then Syncs.
fn copy_messages(dice: &mut Dice<'_>, out: &mut Vec<Message>) {
    let kinds = [Message::CopyData, Message::Sync];
    out.extend((0..dice.roll(4)).map(|_| kinds[dice.roll(3) as usize / 2].clone()));
    out.push(if dice.roll(4) == 0 { Message::CopyFail } else { Message::CopyDone });
    out.extend((0..dice.roll(3)).map(|_| Message::Sync));
}

fn copy_sql(dice: &mut Dice<'_>) -> Sql {
    let fails_after = (dice.roll(2) == 0).then(|| dice.roll(4) as usize);
    Sql::CopyIn { rows: dice.roll(9), fails_after }
}

fn sql(dice: &mut Dice<'_>) -> Sql {
    match dice.roll(26) {
        0..=5 => Sql::Select(dice.roll(4)),
        6 => Sql::Insert(dice.roll(4)),
        7 => Sql::Deferred,
        8 => Sql::Fail { rows: dice.roll(2), sqlstate: ["22012", "57014"][dice.roll(2) as usize] },
        9 => Sql::Bad,
        10 => Sql::Unreadable,
        11 => Sql::Empty,
        12 | 13 => Sql::Begin,
        14 => Sql::Commit,
        15 => Sql::Rollback,
        16 => Sql::CopyOut(dice.roll(3)),
        17 | 18 => Sql::Prepare(NAMES[1 + dice.roll(2) as usize], dice.roll(3)),
        19 | 20 => Sql::Execute(NAMES[1 + dice.roll(2) as usize]),
        21 => Sql::Deallocate(NAMES[1 + dice.roll(2) as usize]),
        22 => Sql::DeallocateAll,
        23 | 24 => Sql::Declare(NAMES[1 + dice.roll(2) as usize], dice.roll(4)),
        _ => Sql::CloseCursor(NAMES[1 + dice.roll(2) as usize]),
    }
}

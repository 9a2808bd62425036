//! One cell of the table: a client, an act, what it must come to and what it came to.

use proto_tests::stranger::{Outcome, Stranger};
use serde_json::Value;

/// What an act must come to.
#[derive(Debug, Clone, Copy)]
pub enum Expect {
    /// It works, and what it got has this text.
    Works(&'static str),
    /// The client raises, and its exception has these texts.
    Refused(&'static [&'static str]),
    /// The client does not look at what is wrong; why that is so.
    Unchecked(&'static str),
}

/// A row of a family's table.
#[derive(Debug)]
pub struct Row {
    /// The client.
    pub client: &'static str,
    /// What it does, or what is wrong.
    pub act: &'static str,
    /// The request to its script.
    pub request: Value,
    /// What it must come to.
    pub expect: Expect,
}

/// A filled cell.
#[derive(Debug)]
pub struct Cell {
    /// The client.
    pub client: &'static str,
    /// What it did.
    pub act: &'static str,
    /// How it ended.
    pub state: State,
    /// In the client's words.
    pub said: String,
}

/// How a cell ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// As it must, well.
    Works,
    /// As it must, with the client's exception.
    Refused,
    /// As it must: the client does not look.
    Unchecked,
    /// Otherwise.
    Wrong,
}

/// How many cells ended how.
#[derive(Debug, PartialEq, Eq)]
pub struct Counts {
    pub works: usize,
    pub refused: usize,
    pub unchecked: usize,
}

impl Row {
    /// Runs it.
    pub async fn fill(self, stranger: &mut Stranger) -> Cell {
        let outcome = stranger.act(&self.request).await;
        let (state, said) = match (self.expect, outcome) {
            (Expect::Works(text), Outcome::Works(said)) if said.contains(text) => (State::Works, said),
            (Expect::Refused(texts), Outcome::Refused(said)) if texts.iter().all(|text| said.contains(text)) => {
                (State::Refused, said)
            }
            (Expect::Unchecked(why), Outcome::Works(_)) => (State::Unchecked, why.to_owned()),
            (expect, outcome) => (State::Wrong, format!("{expect:?}, not {outcome:?}")),
        };
        Cell { client: self.client, act: self.act, state, said }
    }
}

impl State {
    /// As the table says it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Refused => "refused",
            Self::Unchecked => "unchecked",
            Self::Wrong => "WRONG",
        }
    }
}

impl Counts {
    /// Counts.
    pub fn of<'a>(cells: impl IntoIterator<Item = &'a Cell>) -> Self {
        let mut counts = Self { works: 0, refused: 0, unchecked: 0 };
        for cell in cells {
            match cell.state {
                State::Works => counts.works += 1,
                State::Refused => counts.refused += 1,
                State::Unchecked => counts.unchecked += 1,
                State::Wrong => {}
            }
        }
        counts
    }
}

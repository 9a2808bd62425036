//! `audit tail`: the last executions of the log, and those that come.

use super::filter::Filter;
use super::join::{Item, Join};
use super::reading::{Flow, Folder, Growing};
use super::shown::{Form, Wish};
use super::unseal::{Keys, Opener};
use super::{Error, Place, say_lost};
use crate::cli::Outcome;
use std::collections::VecDeque;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

/// How often a log is looked at that is followed.
const POLL: Duration = Duration::from_millis(250);

/// Arguments of `audit tail`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// How many, 10000 at most
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=10_000))]
    lines: u16,
    /// Go on with what comes, until interrupted
    #[arg(long, short = 'f')]
    follow: bool,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    wish: Wish,
}

pub(super) fn run(arguments: &Arguments, out: &mut impl Write, err: &mut impl Write) -> Result<Outcome, Error> {
    let again = || {
        std::thread::sleep(POLL);
        true
    };
    follow(arguments, out, err, again)
}

/// Follows as long as `again` says so, which waits.
pub(super) fn follow(
    arguments: &Arguments,
    out: &mut impl Write,
    err: &mut impl Write,
    mut again: impl FnMut() -> bool,
) -> Result<Outcome, Error> {
    let Arguments { place, lines, follow, filter, keys, wish } = arguments;
    let path = place.folder()?;
    let (folder, form) = (Folder::open(&path, err)?, wish.form());
    let mut out = BufWriter::new(out);
    let opener = keys.opener(place)?;
    let Last { mut join, mut items, read } = last(&folder, filter, &opener, usize::from(*lines), err)?;
    if !*follow {
        items.extend(join.rest()?.into_iter().filter(|item| filter.holds(item)));
    }
    form.head(&mut out)?;
    for item in items.iter().skip(items.len().saturating_sub(usize::from(*lines))) {
        form.row(item, &mut out)?;
    }
    out.flush()?;
    if *follow {
        on(&path, &folder, read, |record| show(record, &mut join, filter, form, &mut out), &mut again)?;
    }
    say_lost(join.lost, err);
    Ok(Outcome::Done)
}

/// Hands over what comes behind the records that were read of the newest segment.
fn on(
    path: &Path,
    folder: &Folder,
    read: u64,
    mut take: impl FnMut(&[u8]) -> Result<(), Error>,
    again: &mut impl FnMut() -> bool,
) -> Result<(), Error> {
    let Some(newest) = folder.segments.last() else { return Ok(()) };
    let Some(mut growing) = Growing::new(path, newest, read)? else { return Ok(()) };
    growing.read(&mut take)?;
    while again() {
        growing.read(&mut take)?;
    }
    Ok(())
}

fn show(record: &[u8], join: &mut Join<'_>, filter: &Filter, form: Form, out: &mut impl Write) -> Result<(), Error> {
    if !filter.may_hold(record) {
        return Ok(());
    }
    for item in join.take(record)?.iter().filter(|item| filter.holds(item)) {
        form.row(item, out)?;
        out.flush()?;
    }
    Ok(())
}

/// The log's last items.
struct Last<'a> {
    join: Join<'a>,
    items: VecDeque<Item>,
    /// Records of the newest segment.
    read: u64,
}

/// Reads the last segment, and as long as it has too few, twice as many.
fn last<'a>(
    folder: &'a Folder,
    filter: &Filter,
    opener: &Opener,
    lines: usize,
    err: &mut impl Write,
) -> Result<Last<'a>, Error> {
    let span = folder.span(filter.since(), filter.until);
    let mut segments = 1_usize;
    loop {
        let start = span.end.saturating_sub(segments).max(span.start);
        let whole = start == span.start;
        let mut last =
            Last { join: Join::new(folder, start, filter.wanted(opener.clone())), items: VecDeque::new(), read: 0 };
        let newest = folder.segments.last().map(|newest| newest.number);
        // A segment that is read again is spoken of once.
        let mut said = Vec::new();
        folder.read(start..span.end, &mut said, |placed, record| {
            if Some(placed.number) == newest {
                last.read = last.read.saturating_add(1);
            }
            if filter.may_hold(record) {
                for item in last.join.take(record)?.into_iter().filter(|item| filter.holds(item)) {
                    last.items.push_back(item);
                    if last.items.len() > lines {
                        last.items.pop_front();
                    }
                }
            }
            Ok(Flow::On)
        })?;
        if whole || last.items.len() >= lines {
            let _ = err.write_all(&said);
            return Ok(last);
        }
        segments = segments.saturating_mul(2);
    }
}

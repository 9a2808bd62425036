//! `audit search`: executions and records of the log, straight from its segments.

use super::filter::Filter;
use super::join::Join;
use super::reading::{Flow, Folder};
use super::shown::Wish;
use super::unseal::Keys;
use super::{Error, Place, say_lost};
use crate::cli::Outcome;
use std::io::{BufWriter, Write};

/// What a search shows, if nobody says another number.
const DEFAULT_LIMIT: u64 = 1000;

/// Arguments of `audit search`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    wish: Wish,
    /// Stop after so many, and say so; 0 for never
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT)]
    limit: u64,
}

pub(super) fn run(arguments: &Arguments, out: &mut impl Write, err: &mut impl Write) -> Result<Outcome, Error> {
    let Arguments { place, filter, keys, wish, limit } = arguments;
    let (folder, form) = (Folder::open(&place.folder()?, err)?, wish.form());
    let which = folder.span(filter.since(), filter.until);
    let mut join = Join::new(&folder, which.start, filter.wanted(keys.opener(place)?));
    let mut out = BufWriter::new(out);
    form.head(&mut out)?;
    let mut left = if *limit == 0 { u64::MAX } else { *limit };
    let mut show = |item: &_| -> Result<Flow, Error> {
        if !filter.holds(item) {
            return Ok(Flow::On);
        }
        if left == 0 {
            return Ok(Flow::Enough);
        }
        left = left.saturating_sub(1);
        form.row(item, &mut out)?;
        Ok(Flow::On)
    };
    let mut flow = Flow::On;
    folder.read(which, err, |_, record| {
        if filter.may_hold(record) {
            for item in join.take(record)? {
                if show(&item)? == Flow::Enough {
                    flow = Flow::Enough;
                    break;
                }
            }
        }
        Ok(flow)
    })?;
    let rest = if flow == Flow::On { join.rest()? } else { Vec::new() };
    for item in rest {
        flow = show(&item)?;
        if flow == Flow::Enough {
            break;
        }
    }
    out.flush()?;
    say_lost(join.lost, err);
    if flow == Flow::Enough {
        let _ = writeln!(err, "pgpassport audit: these are the first {limit}, and there are more: see --limit");
    }
    Ok(Outcome::Done)
}

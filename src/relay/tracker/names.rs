//! What each name means: as the server has confirmed it, and as outstanding messages may change it.
//!
//! A message's begin line is written before the server has answered what was sent ahead of it. What its name will
//! mean then is certain if only one meaning is possible should the message succeed: a change in the message's own
//! segment (since the client's last Sync) has happened by then, or the server skips the message too; a change in an
//! earlier segment may have failed.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, DefaultHasher, RandomState};
use std::sync::Arc;

/// How many outstanding changes of one name are looked through; past it the name's meaning is not certain.
const MAX_LOOKED_AT: usize = 64;

/// One namespace: prepared statements, or portals.
#[derive(Debug)]
pub(super) struct Names<T> {
    unnamed: Arc<[u8]>,
    confirmed: HashMap<Arc<[u8]>, Known<T>, Hashing>,
    pending: HashMap<Arc<[u8]>, VecDeque<Change<T>>, Hashing>,
    /// Changes in `pending`.
    changes: usize,
    /// How often everything that has a name was put in doubt.
    doubts: u64,
    /// Names were given that are not kept.
    left_out: bool,
}

#[derive(Debug)]
struct Known<T> {
    to: T,
    /// [`Names::doubts`] when it got this meaning: with fewer than there are by now it is in doubt.
    doubts: u64,
}

#[derive(Debug)]
struct Change<T> {
    order: u64,
    segment: u64,
    to: Option<T>,
}

/// What a name will mean to a message that succeeds.
#[derive(Debug)]
pub(super) struct Guess<'a, T> {
    /// The likeliest meaning; `None` when it has none that is known.
    pub meaning: Option<&'a mut T>,
    /// No other meaning is possible.
    pub certain: bool,
    /// What gives it that meaning has succeeded, or fails together with the message that asks.
    pub together: bool,
}

/// Which message changes a name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Its number among the client's messages.
    pub order: u64,
    /// Number of Syncs before it.
    pub segment: u64,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self::hashed(&Hashing::Drawn(RandomState::new()))
    }
}

/// How names are hashed. Clients choose them.
#[derive(Debug, Clone)]
pub(super) enum Hashing {
    /// With keys that nobody knows: no client can make its names collide.
    Drawn(RandomState),
    /// The same in every process, for runs that are compared.
    Fixed,
}

impl BuildHasher for Hashing {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        match self {
            Self::Drawn(keys) => keys.build_hasher(),
            Self::Fixed => DefaultHasher::new(),
        }
    }
}

impl<T> Names<T> {
    /// No names yet.
    pub fn hashed(by: &Hashing) -> Self {
        let (confirmed, pending) = (HashMap::with_hasher(by.clone()), HashMap::with_hasher(by.clone()));
        Self { unnamed: Arc::from([]), confirmed, pending, changes: 0, doubts: 0, left_out: false }
    }

    /// Names that are known, without the unnamed one, and changes that are outstanding.
    pub fn len(&self) -> usize {
        let unnamed = usize::from(self.confirmed.contains_key(b"".as_slice()));
        self.confirmed.len().saturating_sub(unnamed).saturating_add(self.changes)
    }

    /// The name as a value; allocates only for a name that is not known.
    pub fn intern(&self, name: &[u8]) -> Arc<[u8]> {
        if name.is_empty() {
            return Arc::clone(&self.unnamed);
        }
        let known = self.confirmed.get_key_value(name).map(|(known, _)| known);
        let known = known.or_else(|| self.pending.get_key_value(name).map(|(known, _)| known));
        known.map_or_else(|| name.into(), Arc::clone)
    }

    /// What the name will mean to a message of this segment that succeeds.
    pub fn guess(&mut self, name: &[u8], segment: u64) -> Guess<'_, T> {
        let known = self.confirmed.get_mut(name);
        // What else than is known it could mean.
        let else_what = !name.is_empty() && known.as_ref().map_or(self.left_out, |known| known.doubts < self.doubts);
        let confirmed = known.map(|known| &mut known.to);
        let Some(pending) = self.pending.get_mut(name).filter(|pending| !pending.is_empty()) else {
            return Guess { meaning: confirmed, certain: !else_what, together: true };
        };
        if pending.back().is_some_and(|last| last.segment == segment) {
            let meaning = pending.back_mut().and_then(|last| last.to.as_mut());
            return Guess { meaning, certain: true, together: true };
        }
        let all_seen = pending.len() <= MAX_LOOKED_AT;
        let recent = pending.iter_mut().rev().take(MAX_LOOKED_AT).filter_map(|change| change.to.as_mut());
        let mut meanings = recent.chain(confirmed);
        let meaning = meanings.next();
        let certain = all_seen && meanings.next().is_none() && !else_what;
        Guess { meaning, certain, together: false }
    }

    /// A message that is about to leave will change the name if it succeeds.
    pub fn expect(&mut self, name: Arc<[u8]>, place: Place, to: Option<T>) {
        let change = Change { order: place.order, segment: place.segment, to };
        self.pending.entry(name).or_default().push_back(change);
        self.changes = self.changes.saturating_add(1);
    }

    /// The message succeeded; what the name meant before.
    pub fn confirm(&mut self, name: &Arc<[u8]>, order: u64) -> Option<T> {
        let change = self.take_change(name, order)?;
        self.set(name, change.to)
    }

    /// The message failed or was skipped.
    pub fn cancel(&mut self, name: &Arc<[u8]>, order: u64) {
        self.take_change(name, order);
    }

    /// What the name means to the server by now.
    pub fn confirmed(&self, name: &[u8]) -> Option<&T> {
        self.confirmed.get(name).map(|known| &known.to)
    }

    /// Whether what the name means to the server by now is in doubt.
    pub fn is_doubted(&self, name: &[u8]) -> bool {
        !name.is_empty() && self.confirmed.get(name).is_some_and(|known| known.doubts < self.doubts)
    }

    /// Everything that has a name may mean something else by now.
    pub fn doubt(&mut self) {
        self.doubts = self.doubts.saturating_add(1);
    }

    /// A name was given that is not kept: one that is not known may mean something all the same.
    pub fn leave_out(&mut self) {
        self.left_out = true;
    }

    /// The same, to change it.
    pub fn confirmed_mut(&mut self, name: &[u8]) -> Option<&mut T> {
        self.confirmed.get_mut(name).map(|known| &mut known.to)
    }

    /// The name means something else by now; what it meant before.
    pub fn set(&mut self, name: &Arc<[u8]>, to: Option<T>) -> Option<T> {
        let doubts = self.doubts;
        let before = match to.map(|to| Known { to, doubts }) {
            Some(to) => match self.confirmed.get_mut(name) {
                Some(known) => Some(std::mem::replace(known, to)),
                None => self.confirmed.insert(Arc::clone(name), to),
            },
            None => self.confirmed.remove(name),
        };
        before.map(|known| known.to)
    }

    /// The name means nothing any more; what it meant.
    pub fn forget(&mut self, name: &[u8]) -> Option<T> {
        self.confirmed.remove(name).map(|known| known.to)
    }

    /// Forgets what has a name; what that meant.
    pub fn take_named(&mut self) -> Vec<T> {
        self.left_out = false;
        self.confirmed.extract_if(|name, _| !name.is_empty()).map(|(_, known)| known.to).collect()
    }

    /// Forgets everything that is confirmed; what it meant.
    pub fn take_all(&mut self) -> impl Iterator<Item = T> {
        self.confirmed.drain().map(|(_, known)| known.to)
    }

    fn take_change(&mut self, name: &Arc<[u8]>, order: u64) -> Option<Change<T>> {
        let pending = self.pending.get_mut(name)?;
        let at = pending.iter().position(|change| change.order == order)?;
        let change = pending.remove(at)?;
        self.changes = self.changes.saturating_sub(1);
        // The unnamed one's place is kept: it is used again with the next statement.
        if pending.is_empty() && !name.is_empty() {
            self.pending.remove(name);
        }
        Some(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(order: u64, segment: u64) -> Place {
        Place { order, segment }
    }

    fn seen(names: &mut Names<char>, segment: u64) -> (Option<char>, bool) {
        let Guess { meaning, certain, .. } = names.guess(b"s", segment);
        (meaning.copied(), certain)
    }

    #[test]
    fn a_change_in_the_same_segment_has_happened() {
        let mut names = Names::default();
        let name = names.intern(b"s");
        assert_eq!(seen(&mut names, 0), (None, true));
        names.expect(Arc::clone(&name), at(1, 0), Some('a'));
        assert_eq!(seen(&mut names, 0), (Some('a'), true));
        names.expect(Arc::clone(&name), at(2, 0), None);
        assert_eq!(seen(&mut names, 0), (None, true));
        names.expect(Arc::clone(&name), at(3, 0), Some('b'));
        assert_eq!(seen(&mut names, 0), (Some('b'), true));
    }

    #[test]
    fn a_change_in_an_earlier_segment_may_have_failed() {
        let mut names = Names::default();
        let name = names.intern(b"s");
        names.expect(Arc::clone(&name), at(1, 0), Some('a'));
        assert_eq!(seen(&mut names, 1), (Some('a'), true), "nothing else could be meant");
        names.expect(Arc::clone(&name), at(2, 1), Some('b'));
        assert_eq!(seen(&mut names, 2), (Some('b'), false));
        names.cancel(&name, 1);
        assert_eq!(seen(&mut names, 2), (Some('b'), true));
        assert_eq!(names.confirm(&name, 2), None);
        names.expect(Arc::clone(&name), at(3, 2), None);
        assert_eq!(seen(&mut names, 3), (Some('b'), true), "if the Close succeeded, nothing will run");
        assert_eq!(names.confirm(&name, 3), Some('b'));
        assert_eq!((seen(&mut names, 3), names.len()), ((None, true), 0));
    }

    #[test]
    fn looking_through_many_changes_ends() {
        let mut names = Names::default();
        let name = names.intern(b"s");
        names.set(&name, Some('a'));
        for order in 0..1000 {
            names.expect(Arc::clone(&name), at(order, order), None);
        }
        assert_eq!(seen(&mut names, 2000), (Some('a'), false));
        assert_eq!(names.len(), 1001);
    }

    #[test]
    fn doubt_hits_every_name_that_has_its_meaning_and_none_that_gets_one_later() {
        let mut names = Names::default();
        let (unnamed, name, other) = (names.intern(b""), names.intern(b"s"), names.intern(b"t"));
        for (name, to) in [(&unnamed, 'u'), (&name, 's')] {
            names.set(name, Some(to));
        }
        names.doubt();
        names.set(&other, Some('t'));
        assert_eq!(seen(&mut names, 0), (Some('s'), false));
        assert!(names.guess(b"", 0).certain && names.guess(b"t", 0).certain && names.guess(b"v", 0).certain);
        assert!(names.is_doubted(b"s") && !names.is_doubted(b"t") && !names.is_doubted(b""));
        names.set(&name, Some('x'));
        assert_eq!(seen(&mut names, 0), (Some('x'), true));
    }

    /// A name that is not kept may be why a later message that gives it fails.
    #[test]
    fn a_name_that_is_not_kept_could_be_any() {
        let mut names = Names::default();
        let name = names.intern(b"s");
        names.leave_out();
        assert_eq!(seen(&mut names, 0), (None, false));
        names.expect(Arc::clone(&name), at(1, 0), Some('a'));
        assert_eq!(seen(&mut names, 0), (Some('a'), true), "in the same segment both fail");
        assert_eq!(seen(&mut names, 1), (Some('a'), false));
        names.confirm(&name, 1);
        assert_eq!(seen(&mut names, 1), (Some('a'), true));
        names.take_named();
        assert_eq!(seen(&mut names, 1), (None, true));
    }

    #[test]
    fn the_unnamed_one_stays_when_named_ones_go() {
        let mut names = Names::default();
        let (unnamed, name) = (names.intern(b""), names.intern(b"s"));
        names.set(&unnamed, Some('u'));
        names.set(&name, Some('s'));
        assert_eq!(names.take_named(), ['s']);
        assert_eq!((names.confirmed(b"").copied(), names.confirmed(b"s")), (Some('u'), None));
        assert_eq!(names.take_all().collect::<Vec<_>>(), ['u']);
    }
}

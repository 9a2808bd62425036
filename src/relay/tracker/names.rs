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
    /// What has no name stands apart: most statements and portals have none, and need no look-up.
    unnamed: Slot<T>,
    unnamed_name: Arc<[u8]>,
    /// None of them is empty.
    named: HashMap<Arc<[u8]>, Slot<T>, Hashing>,
    /// Of these, how many have a meaning by now.
    meanings: usize,
    /// Outstanding changes of all.
    changes: usize,
    /// How often everything that has a name was put in doubt.
    doubts: u64,
    /// Names were given that are not kept.
    left_out: bool,
}

/// What is known of one name.
#[derive(Debug)]
struct Slot<T> {
    /// What it means to the server by now.
    confirmed: Option<Known<T>>,
    pending: VecDeque<Change<T>>,
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

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { confirmed: None, pending: VecDeque::new() }
    }
}

impl<T> Slot<T> {
    fn is_empty(&self) -> bool {
        self.confirmed.is_none() && self.pending.is_empty()
    }

    fn take_change(&mut self, order: u64) -> Option<Change<T>> {
        let at = self.pending.iter().position(|change| change.order == order)?;
        self.pending.remove(at)
    }

    /// Of many names few have changes that are outstanding.
    fn give_back(&mut self) {
        if self.pending.is_empty() {
            self.pending = VecDeque::new();
        }
    }
}

impl<T> Names<T> {
    /// No names yet.
    pub fn hashed(by: &Hashing) -> Self {
        let (unnamed, named) = (Slot::default(), HashMap::with_hasher(by.clone()));
        Self { unnamed, unnamed_name: Arc::from([]), named, meanings: 0, changes: 0, doubts: 0, left_out: false }
    }

    /// Names that are known, without the unnamed one, and changes that are outstanding.
    pub fn len(&self) -> usize {
        self.meanings.saturating_add(self.changes)
    }

    /// The name as a value; allocates only for a name that is not known.
    pub fn intern(&self, name: &[u8]) -> Arc<[u8]> {
        if name.is_empty() {
            return Arc::clone(&self.unnamed_name);
        }
        self.named.get_key_value(name).map_or_else(|| name.into(), |(known, _)| Arc::clone(known))
    }

    /// What the name will mean to a message of this segment that succeeds.
    pub fn guess(&mut self, name: &[u8], segment: u64) -> Guess<'_, T> {
        let (doubts, left_out) = (self.doubts, self.left_out);
        let Some(Slot { confirmed, pending }) = self.slot_mut(name) else {
            return Guess { meaning: None, certain: !left_out, together: true };
        };
        // What else than is known it could mean.
        let else_what = !name.is_empty() && confirmed.as_ref().map_or(left_out, |known| known.doubts < doubts);
        let confirmed = confirmed.as_mut().map(|known| &mut known.to);
        if pending.is_empty() {
            return Guess { meaning: confirmed, certain: !else_what, together: true };
        }
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
        self.changes = self.changes.saturating_add(1);
        let slot = if name.is_empty() { &mut self.unnamed } else { self.named.entry(name).or_default() };
        slot.pending.push_back(change);
    }

    /// The message succeeded; what the name meant before.
    pub fn confirm(&mut self, name: &Arc<[u8]>, order: u64) -> Option<T> {
        let slot = self.slot_mut(name)?;
        let change = slot.take_change(order)?;
        // The unnamed one's place is kept: it is used again with the next statement.
        if !name.is_empty() {
            slot.give_back();
        }
        self.changes = self.changes.saturating_sub(1);
        self.set(name, change.to)
    }

    /// The message failed or was skipped.
    pub fn cancel(&mut self, name: &Arc<[u8]>, order: u64) {
        let Some(slot) = self.slot_mut(name) else { return };
        let cancelled = slot.take_change(order).is_some();
        slot.give_back();
        let is_empty = slot.is_empty();
        self.changes = self.changes.saturating_sub(usize::from(cancelled));
        if is_empty {
            self.drop_slot(name);
        }
    }

    /// What the name means to the server by now.
    pub fn confirmed(&self, name: &[u8]) -> Option<&T> {
        self.known(name).map(|known| &known.to)
    }

    /// The same, to change it.
    pub fn confirmed_mut(&mut self, name: &[u8]) -> Option<&mut T> {
        self.slot_mut(name)?.confirmed.as_mut().map(|known| &mut known.to)
    }

    /// Whether what the name means to the server by now is in doubt.
    pub fn is_doubted(&self, name: &[u8]) -> bool {
        // Where nothing ever was in doubt the name is not hashed.
        self.doubts > 0 && !name.is_empty() && self.known(name).is_some_and(|known| known.doubts < self.doubts)
    }

    /// Everything that has a name may mean something else by now.
    pub fn doubt(&mut self) {
        self.doubts = self.doubts.saturating_add(1);
    }

    /// A name was given that is not kept: one that is not known may mean something all the same.
    pub fn leave_out(&mut self) {
        self.left_out = true;
    }

    /// The name means something else by now; what it meant before.
    pub fn set(&mut self, name: &Arc<[u8]>, to: Option<T>) -> Option<T> {
        let Some(to) = to else { return self.forget(name) };
        let to = Known { to, doubts: self.doubts };
        if name.is_empty() {
            return self.unnamed.confirmed.replace(to).map(|known| known.to);
        }
        // A name that is known is not hashed twice for its entry.
        let slot = match self.named.get_mut(name) {
            Some(slot) => slot,
            None => self.named.entry(Arc::clone(name)).or_default(),
        };
        let before = slot.confirmed.replace(to);
        self.meanings = self.meanings.saturating_add(usize::from(before.is_none()));
        before.map(|known| known.to)
    }

    /// The name means nothing any more; what it meant.
    pub fn forget(&mut self, name: &[u8]) -> Option<T> {
        let slot = self.slot_mut(name)?;
        let before = slot.confirmed.take();
        if slot.is_empty() {
            self.drop_slot(name);
        }
        self.meanings = self.meanings.saturating_sub(usize::from(before.is_some() && !name.is_empty()));
        before.map(|known| known.to)
    }

    /// The unnamed one's stays, and is not looked for.
    fn drop_slot(&mut self, name: &[u8]) {
        if !name.is_empty() {
            self.named.remove(name);
        }
    }

    /// Forgets what has a name; what that meant.
    pub fn take_named(&mut self) -> Vec<T> {
        self.left_out = false;
        self.take_confirmed()
    }

    /// Forgets everything that is confirmed; what it meant.
    pub fn take_all(&mut self) -> impl Iterator<Item = T> {
        let unnamed = self.unnamed.confirmed.take().map(|known| known.to);
        // Most sessions have no portal with a name.
        let named = if self.named.is_empty() { Vec::new() } else { self.take_confirmed() };
        unnamed.into_iter().chain(named)
    }

    fn take_confirmed(&mut self) -> Vec<T> {
        self.meanings = 0;
        let taken = self.named.values_mut().filter_map(|slot| slot.confirmed.take()).map(|known| known.to).collect();
        self.named.retain(|_, slot| !slot.is_empty());
        taken
    }

    fn slot_mut(&mut self, name: &[u8]) -> Option<&mut Slot<T>> {
        if name.is_empty() { Some(&mut self.unnamed) } else { self.named.get_mut(name) }
    }

    fn known(&self, name: &[u8]) -> Option<&Known<T>> {
        let slot = if name.is_empty() { Some(&self.unnamed) } else { self.named.get(name) };
        slot.and_then(|slot| slot.confirmed.as_ref())
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

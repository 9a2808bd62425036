//! Room for records that are prepared, lent by one session of a thread to the next.
//!
//! A session that does nothing holds none, and what one session writes into was written a moment ago for another: it is in
//! the processor's caches still, however many sessions there are.

use std::cell::RefCell;

/// A thread keeps room for so many sessions that prepare at the same time; what more give back is freed.
const MAX_SPARE: usize = 16;
/// How much room, in bytes; few records are longer.
const MAX_BYTES: usize = 4 * 1024;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Room with nothing in it.
pub(super) fn take() -> Vec<u8> {
    with(Vec::pop).flatten().unwrap_or_default()
}

/// Gives room back; what is in it is forgotten.
pub(super) fn give(mut room: Vec<u8>) {
    room.clear();
    room.shrink_to(MAX_BYTES);
    if room.capacity() > 0 {
        with(|spare| {
            if spare.len() < MAX_SPARE {
                spare.push(room);
            }
        });
    }
}

/// `None` on a thread that ends.
fn with<T>(what: impl FnOnce(&mut Vec<Vec<u8>>) -> T) -> Option<T> {
    SPARE.try_with(|spare| spare.try_borrow_mut().ok().map(|mut spare| what(&mut spare))).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(bytes: usize) -> Vec<u8> {
        let mut room = Vec::with_capacity(bytes);
        room.push(b'x');
        room
    }

    #[test]
    fn what_is_given_back_is_lent_again_and_says_nothing() {
        let given = room(1000);
        let place = given.as_ptr();
        give(given);
        let taken = take();
        assert!(taken.is_empty() && taken.as_ptr() == place && taken.capacity() >= 1000);
        assert_eq!(take().capacity(), 0, "there is no other");
    }

    #[test]
    fn no_more_is_kept_than_is_said() {
        give(Vec::new());
        assert_eq!(take().capacity(), 0);
        give(room(10 * MAX_BYTES));
        assert_eq!(take().capacity(), MAX_BYTES);
        for _ in 0..=MAX_SPARE {
            give(room(100));
        }
        let lent = std::iter::repeat_with(take).take_while(|room| room.capacity() > 0).count();
        assert_eq!(lent, MAX_SPARE);
    }
}

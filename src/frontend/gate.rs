//! Places at the door: how many connections may be there that have not logged in, in all and of one address.
//!
//! No place here is a session: those are taken by callers whose token has verified, so that strangers can keep others
//! from logging in for a while, by `limits.logins`, and never take a session away. A connection over a limit gets one
//! of a few places more, for long enough to be told why or to turn out to be a cancel; past those it is closed. Who has
//! proved who it is and waits for its rule's turn has a place of another kind, so that it is in no login's way.
//!
//! An IPv6 address counts in its /64, its /56 and its /48, of which each may have twice as many places as the one before.
//!
//! Invariant: a network is in a table only while a place counts for it, so that a table is never longer than
//! [`Network::WIDTHS`] times its pool.

use crate::names::Network;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections over a limit that are kept at once …
const MAX_OVER: usize = 512;
/// … and those of one address among them.
const MAX_OVER_PER_ADDRESS: usize = 256;
/// Cancels under way at once …
const MAX_CANCELS: usize = 512;
/// … and those of one address among them.
const MAX_CANCELS_PER_ADDRESS: usize = 256;

/// The limits at the door. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate {
    logins: Pool,
    over: Pool,
    cancels: Pool,
    /// As many as logins; who is let in here is known, and its rule has bounded its own.
    waiting: Pool,
}

/// A connection's place, given back on drop.
#[derive(Debug)]
pub struct Place {
    gate: Gate,
    client: Option<IpAddr>,
    over: Option<Full>,
    waits: bool,
    seat: Seat,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// `limits.logins`.
    #[error("too many logins are under way")]
    Logins,
    /// `limits.logins_per_address`.
    #[error("too many logins are under way from this address")]
    Address,
    /// Cancels under way.
    #[error("too many cancels are under way")]
    Cancels,
}

impl Gate {
    /// A gate for this many logins at once, and of one address.
    pub fn new(logins: usize, logins_per_address: usize) -> Self {
        Self {
            logins: Pool::new(logins, logins_per_address),
            over: Pool::new(MAX_OVER, MAX_OVER_PER_ADDRESS),
            cancels: Pool::new(MAX_CANCELS, MAX_CANCELS_PER_ADDRESS),
            waiting: Pool::new(logins, logins),
        }
    }

    /// A place for a connection of this client; `None` is a balancer, which no limit of one address is for.
    /// A place over a limit is given too while there are some; then there is none.
    pub fn enter(&self, client: Option<IpAddr>) -> Option<Place> {
        let (seat, over) = match self.logins.sit(client) {
            Ok(seat) => (seat, None),
            Err(full) => (self.over.sit(client).ok()?, Some(full)),
        };
        Some(Place { gate: self.clone(), client, over, waits: false, seat })
    }
}

impl Place {
    /// The limit that this connection is over, which it is to be told.
    pub fn over(&self) -> Option<Full> {
        self.over
    }

    /// The connection has said on whose behalf it comes: from here on it counts for that client.
    pub(super) fn of_client(self, client: IpAddr) -> Option<Self> {
        let gate = self.gate.clone();
        drop(self);
        gate.enter(Some(client))
    }

    /// The connection is a cancel: from here on it is one of those, and in no login's way.
    pub(super) fn of_cancel(self) -> Result<Self, Full> {
        let seat = self.gate.cancels.sit(self.client).map_err(|_| Full::Cancels)?;
        Ok(Self { over: None, seat, ..self })
    }

    /// The login waits for its rule's turn: until it is over it is one of those who wait, and gives back what it had.
    /// `false`, and nothing changes, where as many wait already as may.
    pub fn stand_aside(&mut self) -> bool {
        if !self.waits {
            let Ok(seat) = self.gate.waiting.sit(None) else { return false };
            (self.seat, self.waits) = (seat, true);
        }
        true
    }
}

/// Places of one kind.
#[derive(Debug, Clone)]
struct Pool {
    places: Arc<Semaphore>,
    addresses: Arc<Mutex<HashMap<Network, usize>>>,
    per_address: usize,
}

#[derive(Debug)]
struct Seat {
    _place: OwnedSemaphorePermit,
    _counted: Option<Counted>,
}

/// One connection of an address, in all its networks.
#[derive(Debug)]
struct Counted {
    addresses: Arc<Mutex<HashMap<Network, usize>>>,
    client: IpAddr,
}

impl Pool {
    fn new(places: usize, per_address: usize) -> Self {
        let places = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        Self { places, addresses: Arc::default(), per_address }
    }

    fn sit(&self, client: Option<IpAddr>) -> Result<Seat, Full> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Full::Logins)?;
        let counted = client.map(|client| self.count(client)).transpose()?;
        Ok(Seat { _place: place, _counted: counted })
    }

    fn count(&self, client: IpAddr) -> Result<Counted, Full> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        for (network, times) in Network::around(client) {
            let most = self.per_address.saturating_mul(usize::try_from(times).unwrap_or(usize::MAX));
            if addresses.get(&network).is_some_and(|count| *count >= most) {
                return Err(Full::Address);
            }
        }
        for (network, _) in Network::around(client) {
            let count = addresses.entry(network).or_default();
            *count = count.saturating_add(1);
        }
        Ok(Counted { addresses: Arc::clone(&self.addresses), client })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        for (network, _) in Network::around(self.client) {
            let Some(count) = addresses.get_mut(&network) else { continue };
            *count = count.saturating_sub(1);
            if *count == 0 {
                addresses.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        text.parse().ok()
    }

    fn over(place: Option<&Place>) -> Option<Full> {
        place.expect("a place").over()
    }

    #[test]
    fn logins_are_limited_in_all_and_of_one_address_and_places_come_back() {
        let gate = Gate::new(3, 2);
        let (one, two) = (address("127.0.0.1"), address("127.0.0.2"));
        let first = [gate.enter(one), gate.enter(one)];
        assert!(first.iter().all(|place| over(place.as_ref()).is_none()));
        assert_eq!(over(gate.enter(one).as_ref()), Some(Full::Address));
        let second = gate.enter(two);
        assert_eq!(over(second.as_ref()), None, "another address is not hit");
        assert_eq!(over(gate.enter(address("127.0.0.3")).as_ref()), Some(Full::Logins));
        drop(first);
        assert_eq!(over(gate.enter(one).as_ref()), None);
        drop(second);
        for pool in [&gate.logins, &gate.over, &gate.cancels] {
            assert!(pool.addresses.lock().unwrap().is_empty(), "an address without connections is forgotten");
        }
        assert_eq!((gate.logins.places.available_permits(), gate.over.places.available_permits()), (3, MAX_OVER));
    }

    #[test]
    fn who_has_a_whole_site_of_ipv6_networks_has_no_more_than_four_addresses_places() {
        let gate = Gate::new(1000, 10);
        let places = |from: &dyn Fn(u16) -> String| {
            let enter = |n| gate.enter(address(&from(n))).filter(|place| place.over().is_none());
            (0..500).filter_map(enter).collect::<Vec<Place>>()
        };
        let of_64 = places(&|n| format!("2001:db8:1:2::{n:x}"));
        let of_56 = places(&|n| format!("2001:db8:1:{:x}::1", n % 256));
        let of_48 = places(&|n| format!("2001:db8:1:{:x}00::1", 1 + n % 250));
        assert_eq!([of_64.len(), of_56.len(), of_48.len()], [10, 10, 20], "10 of a /64, 20 of a /56, 40 of a /48");
        assert!(places(&|n| format!("2001:db8:1:{:x}::1", 0x5000 + n)).is_empty());
        let next_door = places(&|n| format!("2001:db8:2:2::{n:x}"));
        assert_eq!(next_door.len(), 10, "another site is not hit");
        drop((of_64, of_56, of_48, next_door));
        assert!(gate.logins.addresses.lock().unwrap().is_empty());
    }

    #[test]
    fn over_the_limit_there_are_a_few_places_and_then_none() {
        let gate = Gate::new(1, 1);
        let _taken = gate.enter(address("127.0.0.1"));
        let of_one: Vec<Place> = std::iter::from_fn(|| gate.enter(address("127.0.0.1"))).collect();
        assert_eq!(of_one.len(), MAX_OVER_PER_ADDRESS, "one address cannot take them all");
        let mut next = 0_u32;
        let of_others: Vec<Place> = std::iter::from_fn(|| {
            next += 1;
            gate.enter(Some(IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0000 + next))))
        })
        .collect();
        assert_eq!(of_one.len() + of_others.len(), MAX_OVER);
        assert!(gate.over.addresses.lock().unwrap().len() <= MAX_OVER, "the table ends with the pool");
    }

    #[test]
    fn a_balancer_meets_no_limit_of_one_address_until_it_says_for_whom_it_comes() {
        let gate = Gate::new(5, 1);
        let balancer: Vec<Place> = (0..3).filter_map(|_| gate.enter(None)).collect();
        assert!(balancer.len() == 3 && balancer.iter().all(|place| place.over().is_none()));
        let client = "203.0.113.7".parse().unwrap();
        let known: Vec<Place> = balancer.into_iter().filter_map(|place| place.of_client(client)).collect();
        let told: Vec<Option<Full>> = known.iter().map(Place::over).collect();
        assert_eq!(told, [None, Some(Full::Address), Some(Full::Address)]);
    }

    #[test]
    fn who_waits_is_in_no_logins_way_and_as_many_wait_as_may() {
        let gate = Gate::new(2, 2);
        let one = address("127.0.0.1");
        let mut waiting = [gate.enter(one).unwrap(), gate.enter(one).unwrap()];
        assert_eq!(over(gate.enter(one).as_ref()), Some(Full::Logins));
        assert!(waiting.iter_mut().all(Place::stand_aside) && waiting.iter_mut().all(Place::stand_aside));
        let mut next = [gate.enter(one).unwrap(), gate.enter(one).unwrap()];
        assert!(next.iter().all(|place| place.over().is_none()), "their places came back, in all and of the address");
        assert!(!next[0].stand_aside(), "two wait already");
        assert_eq!(over(gate.enter(one).as_ref()), Some(Full::Logins), "and who cannot wait keeps its place");
        drop(waiting);
        assert!(next[0].stand_aside());
        drop(next);
        assert_eq!((gate.logins.places.available_permits(), gate.waiting.places.available_permits()), (2, 2));
    }

    #[test]
    fn a_cancel_gives_its_login_place_back_and_is_limited_among_cancels() {
        let gate = Gate::new(1, 1);
        let one = address("127.0.0.1");
        let mut cancels = Vec::new();
        for _ in 0..MAX_CANCELS_PER_ADDRESS {
            cancels.push(gate.enter(one).unwrap().of_cancel().unwrap());
        }
        let login = gate.enter(one);
        assert_eq!(over(login.as_ref()), None, "cancels are in no login's way");
        // The house is full, and still a cancel comes through.
        let other = gate.enter(address("127.0.0.2")).unwrap();
        assert_eq!(other.over(), Some(Full::Logins));
        assert!(other.of_cancel().is_ok());
        assert_eq!(gate.enter(one).unwrap().of_cancel().unwrap_err(), Full::Cancels);
        drop(cancels);
        assert!(gate.enter(one).unwrap().of_cancel().is_ok());
    }
}

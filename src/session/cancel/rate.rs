//! How many cancels there may be: of one address, which may be guessing keys, and for one session.

use crate::names::Network;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Cancels for one session: this many at once and four a second after. Each costs the instance a connection.
pub const OF_SESSION: Rate = Rate { burst: 20, each: Duration::from_millis(250) };
/// Cancels from one address: this many at once (a server may give up on all its sessions together) and twenty a second
/// after, at which rate a four-byte key takes years to guess. Of IPv6 a /64; its /56 and /48 twice and four times as many.
pub const OF_ADDRESS: Rate = Rate { burst: 256, each: Duration::from_millis(50) };
/// Addresses that are told apart; further ones share one allowance until some have been quiet for long enough.
const MAX_ADDRESSES: usize = 4096;
/// How often quiet addresses are looked for, once there are too many.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// An allowance: `burst` at once, and one more after each `each`.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    burst: u32,
    each: Duration,
}

/// What is left of an allowance: the time at which it will be whole again.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowance {
    whole_at: Option<Instant>,
}

/// The allowances of all addresses.
#[derive(Debug, Default)]
pub struct Addresses {
    known: HashMap<Network, Allowance>,
    others: Allowance,
    /// When it is worth while to look for addresses that were quiet.
    sweep_at: Option<Instant>,
}

impl Rate {
    /// So many times as much.
    fn times(self, times: u32) -> Self {
        Self { burst: self.burst.saturating_mul(times), each: self.each.checked_div(times).unwrap_or(self.each) }
    }
}

impl Allowance {
    /// Whether one more is allowed at `now`; it counts if so.
    pub fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let left = self.has(rate, now);
        if left {
            self.whole_at = self.whole_at.unwrap_or(now).max(now).checked_add(rate.each);
        }
        left
    }

    fn has(self, rate: Rate, now: Instant) -> bool {
        let spent = self.whole_at.unwrap_or(now).saturating_duration_since(now);
        spent <= rate.each.saturating_mul(rate.burst.saturating_sub(1))
    }

    fn is_whole(self, now: Instant) -> bool {
        self.whole_at.is_none_or(|whole_at| whole_at <= now)
    }
}

impl Addresses {
    /// Whether this address may ask for one more cancel at `now`; it counts if so.
    pub fn take(&mut self, address: IpAddr, now: Instant) -> bool {
        // Nothing is counted, and nobody remembered, for what is refused.
        let has = |(network, times): (Network, u32)| {
            self.known.get(&network).is_none_or(|allowance| allowance.has(OF_ADDRESS.times(times), now))
        };
        if !Network::around(address).all(has) {
            return false;
        }
        for (network, times) in Network::around(address) {
            if !self.known.contains_key(&network) && self.known.len() >= MAX_ADDRESSES {
                self.sweep(now);
                if self.known.len() >= MAX_ADDRESSES {
                    return self.others.take(OF_ADDRESS, now);
                }
            }
            self.known.entry(network).or_default().take(OF_ADDRESS.times(times), now);
        }
        true
    }

    /// Forgets who was quiet; not at each cancel of a storm, whose cost this would be.
    fn sweep(&mut self, now: Instant) {
        if self.sweep_at.is_none_or(|at| at <= now) {
            self.known.retain(|_, allowance| !allowance.is_whole(now));
            self.sweep_at = now.checked_add(SWEEP_EVERY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn taken(times: u32, mut take: impl FnMut() -> bool) -> u32 {
        (0..times).map(|_| u32::from(take())).sum()
    }

    #[test]
    fn an_allowance_is_spent_at_once_and_comes_back_one_by_one() {
        let start = Instant::now();
        let mut allowance = Allowance::default();
        assert_eq!(taken(1000, || allowance.take(OF_SESSION, start)), 20);
        assert_eq!(taken(1000, || allowance.take(OF_SESSION, start + Duration::from_secs(1))), 4);
        assert_eq!(taken(1000, || allowance.take(OF_SESSION, start + Duration::from_secs(3600))), 20);
    }

    #[test]
    fn addresses_do_not_spend_each_others_allowance_but_one_network_does() {
        let now = Instant::now();
        let mut addresses = Addresses::default();
        let [storm, quiet] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().unwrap());
        assert_eq!(taken(1000, || addresses.take(storm, now)), 256);
        assert_eq!(taken(1000, || addresses.take("::ffff:192.0.2.1".parse().unwrap(), now)), 0);
        assert!(addresses.take(quiet, now));
        let mut host = 0_u128;
        let network = "2001:db8:1:2::".parse::<Ipv6Addr>().unwrap().to_bits();
        let next = |host: &mut u128| {
            *host += 1;
            IpAddr::V6(Ipv6Addr::from_bits(network + *host))
        };
        assert_eq!(taken(1000, || addresses.take(next(&mut host), now)), 256);
        // From any of its networks a site has no more than four times as much.
        let mut subnet = 0_u16;
        let site = taken(10_000, || {
            subnet += 1;
            addresses.take(format!("2001:db8:2:{subnet:x}::1").parse().unwrap(), now)
        });
        assert_eq!(site, 4 * 256);
    }

    #[test]
    fn no_storm_makes_us_remember_without_bound() {
        let now = Instant::now();
        let mut addresses = Addresses::default();
        let allowed = (0..100_000_u32).filter(|n| addresses.take(Ipv4Addr::from_bits(*n).into(), now)).count();
        assert_eq!(addresses.known.len(), MAX_ADDRESSES);
        assert_eq!(allowed, MAX_ADDRESSES + 256, "who is not told apart shares one allowance");
        let later = now + Duration::from_secs(60);
        assert!(addresses.take("192.0.2.1".parse().unwrap(), later));
        assert_eq!(addresses.known.len(), 1, "who was quiet is forgotten");
    }
}

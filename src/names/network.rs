//! Whose address it is: what limits of one address count.

use std::net::{IpAddr, Ipv6Addr};

/// Leading bits of an IPv6 address that one customer has to herself (RFC 6177 §2: at least a /64), and those of what a
/// site may have in all: limits of a /64 alone would hold 65,536 times for who has a /48.
const IPV6_PREFIX_BITS: [u32; Network::WIDTHS] = [64, 56, 48];

/// What is limited as one address: an IPv4 address itself, of IPv6 the /64, all of whose addresses one customer can
/// use; or one of the networks around it. An IPv4 address that came over an IPv6 socket is the one that it maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// How many networks an address is in, at most.
    pub const WIDTHS: usize = 3;

    /// The networks that an address is in, the narrowest first, each with how many times as much it may have as one
    /// address: an IPv4 address itself; of IPv6 the /64, the /56 with twice, the /48 with four times as much.
    pub fn around(address: IpAddr) -> impl Iterator<Item = (Self, u32)> {
        let widths = match address.to_canonical() {
            IpAddr::V4(_) => 1,
            IpAddr::V6(_) => Self::WIDTHS,
        };
        let networks = IPV6_PREFIX_BITS.into_iter().zip([1, 2, 4]);
        networks.take(widths).map(move |(bits, times)| (Self::of(address, bits), times))
    }

    fn of(address: IpAddr, bits: u32) -> Self {
        match address.to_canonical() {
            address @ IpAddr::V4(_) => Self { address, bits: u32::BITS },
            IpAddr::V6(address) => {
                let mask = u128::MAX << (u128::BITS - bits);
                Self { address: IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask)), bits }
            }
        }
    }
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        let [narrowest, ..] = IPV6_PREFIX_BITS;
        Self::of(address, narrowest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_counts_as_one_and_a_mapped_address_as_what_it_means() {
        for (left, right, same) in [
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            ("::ffff:192.0.2.1", "192.0.2.1", true),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
            ("192.0.2.1", "192.0.2.2", false),
        ] {
            let network = |address: &str| Network::from(address.parse::<IpAddr>().unwrap());
            assert_eq!(network(left) == network(right), same, "{left} and {right}");
        }
    }

    #[test]
    fn an_ipv6_address_is_in_three_networks_and_an_ipv4_address_in_itself() {
        let around = |text: &str| Network::around(text.parse().unwrap()).collect::<Vec<_>>();
        let shared = |left: &str, right: &str| {
            let right = around(right);
            around(left).iter().filter(|network| right.contains(network)).count()
        };
        assert_eq!(around("192.0.2.1").len(), 1);
        assert_eq!(around("::ffff:192.0.2.1"), around("192.0.2.1"));
        assert_eq!(around("2001:db8::").iter().map(|(_, times)| *times).collect::<Vec<_>>(), [1, 2, 4]);
        assert_eq!(shared("2001:db8:1:2::1", "2001:db8:1:2::2"), 3);
        assert_eq!(shared("2001:db8:1:2::1", "2001:db8:1:ff::1"), 2);
        assert_eq!(shared("2001:db8:1:2::1", "2001:db8:1:fff::1"), 1);
        assert_eq!(shared("2001:db8:1:2::1", "2001:db8:2:2::1"), 0);
        // The widths are told apart where the bits are the same.
        assert_eq!(around("2001:db8::").iter().collect::<std::collections::HashSet<_>>().len(), 3);
    }
}

//! Whose address it is: what limits of one address count.

use std::net::{IpAddr, Ipv6Addr};

/// Leading bits of an IPv6 address that one customer has to herself (RFC 6177 §2: at least a /64).
const IPV6_PREFIX_BITS: u32 = 64;

/// What is limited as one address: an IPv4 address itself, of IPv6 the /64, all of whose addresses one customer can
/// use. An IPv4 address that came over an IPv6 socket is the one that it maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(IpAddr);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => {
                let mask = u128::MAX << (u128::BITS - IPV6_PREFIX_BITS);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
            }
        })
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
}

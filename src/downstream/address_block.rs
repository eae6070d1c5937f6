//! The addresses that one client can have: an IPv4 address, or a network of IPv6.

use std::net::{IpAddr, Ipv6Addr};

/// Where a client is: an IPv4 address, or the /64 that one household gets of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Block(pub IpAddr);

impl Block {
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        })
    }
}

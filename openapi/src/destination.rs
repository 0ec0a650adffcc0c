//! Addresses that no request can be sent to, whatever a worker allows: a task that names one is refused when it is created, and
//! again by the worker.

use std::net::{IpAddr, Ipv4Addr};

/// The address that a packet to this one ends up at: the IPv4 address inside a mapped (RFC 4291), 6to4 (RFC 3056) or NAT64
/// (RFC 6052) one, otherwise itself.
pub fn inner(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0xffff) | (0x64, 0xff9b, 0, 0, 0, 0) => v4(g, h),
        (0x2002, ..) => v4(b, c),
        _ => address,
    }
}

/// Whether a connection to the address can mean one machine: not to an unspecified address (systems take it for their own), nor
/// to a multicast or broadcast one.
pub fn is_possible(address: IpAddr) -> bool {
    let inner = inner(address);
    let broadcast = matches!(inner, IpAddr::V4(v4) if v4.is_broadcast());
    !(inner.is_unspecified() || inner.is_multicast() || broadcast)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_no_machine_is_no_destination_in_any_disguise() {
        for (address, possible) in [
            ("0.0.0.0", false),
            ("::", false),
            ("::ffff:0.0.0.0", false),
            ("64:ff9b::", false),
            ("2002::1", false),
            ("224.0.0.251", false),
            ("ff02::1", false),
            ("::ffff:239.1.1.1", false),
            ("255.255.255.255", false),
            ("127.0.0.1", true),
            ("::1", true),
            ("10.0.0.1", true),
            ("1.1.1.1", true),
        ] {
            assert_eq!(is_possible(address.parse().unwrap()), possible, "{address}");
        }
    }
}

//! What addresses mean: those that no request can be sent to, whatever a worker allows (a task that names one is refused when it is created,
//! and again by the worker), and those of the internet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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

/// Whether the address is one of the internet: what the IANA special-purpose registries call globally reachable. Of one that carries another
/// ask about [`inner`].
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

/// IANA IPv4 Special-Purpose Address Registry, multicast, and Azure's metadata address, which lies among public ones.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let refused = match address.octets() {
        [0 | 10 | 127, ..] => true,
        [100, b, ..] => (64..128).contains(&b),
        [169, 254, ..] => true,
        [172, b, ..] => (16..32).contains(&b),
        [192, 0, 0 | 2, _] => true,
        [192, 88, 99, _] => true,
        [192, 168, ..] => true,
        [198, 18 | 19, ..] => true,
        [198, 51, 100, _] => true,
        [203, 0, 113, _] => true,
        [168, 63, 129, 16] => true,
        [a, ..] => a >= 224,
    };
    !refused
}

/// Of IPv6 only 2000::/3 is global unicast; the IANA registry takes away protocol assignments (Teredo among them) and
/// documentation. 6to4 is judged by the address inside.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let global = (0x2000..0x4000).contains(&a);
    let protocols = a == 0x2001 && b < 0x200;
    let documentation = (a == 0x2001 && b == 0xdb8) || (a == 0x3fff && b < 0x1000);
    global && !protocols && !documentation
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

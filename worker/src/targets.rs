//! Which addresses HTTP tasks may reach: public ones, and what `--allow-targets` adds.
//!
//! Tasks come from people who need not be trusted with the worker's own network (server-side request forgery), so the rule
//! is: what the IANA special-purpose registries do not call globally reachable is refused. An address that carries an IPv4
//! address (mapped, 6to4, NAT64) is judged by that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

/// A network that HTTP tasks may reach besides public ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetRule {
    /// Every address there is.
    All,
    /// 127.0.0.0/8 and ::1.
    Loopback,
    /// RFC 1918, RFC 6598 (carrier-grade NAT) and unique local IPv6 addresses, metadata services excepted.
    Private,
    /// One network.
    Network(IpNet),
}

impl FromStr for TargetRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        match text {
            "all" => Ok(Self::All),
            "loopback" => Ok(Self::Loopback),
            "private" => Ok(Self::Private),
            _ => text
                .parse()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .map(Self::Network)
                .map_err(|_| "must be a network such as 10.0.0.0/8, or `private`, `loopback` or `all`".into()),
        }
    }
}

/// Whether a task may connect to the address.
pub fn allowed(address: IpAddr, rules: &[TargetRule]) -> bool {
    let effective = effective(address);
    is_public(effective) || rules.iter().any(|rule| covers(*rule, address) || covers(*rule, effective))
}

fn covers(rule: TargetRule, address: IpAddr) -> bool {
    match rule {
        TargetRule::All => true,
        TargetRule::Loopback => address.is_loopback(),
        TargetRule::Private => is_private(address) && !is_metadata(address),
        TargetRule::Network(network) => network.contains(&address),
    }
}

/// The address that a packet to this one ends up at: the IPv4 address inside a mapped, 6to4 or NAT64 one, otherwise itself.
fn effective(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0xffff) => v4(g, h),
        (0x64, 0xff9b, 0, 0, 0, 0) => v4(g, h),
        (0x2002, ..) => v4(b, c),
        _ => address,
    }
}

fn is_public(address: IpAddr) -> bool {
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

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || matches!(v4.octets(), [100, 64..128, ..]),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

/// Metadata services that lie in private networks: Alibaba's, and the IPv6 ones of AWS and Google.
fn is_metadata(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4 == Ipv4Addr::new(100, 100, 100, 200),
        IpAddr::V6(v6) => {
            v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
                || v6 == Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_allowed(address: &str, rules: &str) -> bool {
        let rules: Vec<TargetRule> = rules.split(',').filter(|r| !r.is_empty()).map(|r| r.parse().unwrap()).collect();
        allowed(address.parse().unwrap(), &rules)
    }

    #[test]
    fn public_addresses_are_allowed() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.0.1",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "223.255.255.255",
            "2606:4700::1",
            "2a00::1",
            "2001:200::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ] {
            assert!(is_allowed(address, ""), "{address}");
        }
    }

    #[test]
    fn local_and_reserved_addresses_are_refused_in_every_notation() {
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "127.0.0.1",
            "127.255.0.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
            "2002:a00:1::",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "100::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_allowed(address, ""), "{address}");
        }
    }

    #[test]
    fn rules_open_what_they_say_and_no_more() {
        for (address, rules, expected) in [
            ("127.0.0.1", "loopback", true),
            ("::1", "loopback", true),
            ("::ffff:127.0.0.1", "loopback", true),
            ("10.0.0.1", "loopback", false),
            ("10.0.0.1", "private", true),
            ("100.64.0.1", "private", true),
            ("fd12::1", "private", true),
            ("127.0.0.1", "private", false),
            ("169.254.169.254", "private,loopback", false),
            ("100.100.100.200", "private", false),
            ("fd00:ec2::254", "private", false),
            ("fd00:ec2::254", "fd00:ec2::/32", true),
            ("10.1.2.3", "10.1.0.0/16", true),
            ("10.2.0.1", "10.1.0.0/16", false),
            ("::ffff:10.1.2.3", "10.1.0.0/16", true),
            ("10.1.2.3", "10.1.2.3", true),
            ("169.254.169.254", "all", true),
        ] {
            assert_eq!(is_allowed(address, rules), expected, "{address} with {rules}");
        }
    }

    proptest! {
        #[test]
        fn an_ipv4_address_is_judged_alike_in_every_disguise(bits: u32) {
            let v4 = Ipv4Addr::from(bits);
            let (high, low) = ((bits >> 16) as u16, bits as u16);
            let plain = allowed(v4.into(), &[]);
            prop_assert_eq!(plain, allowed(v4.to_ipv6_mapped().into(), &[]));
            prop_assert_eq!(plain, allowed(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low).into(), &[]));
            prop_assert_eq!(plain, allowed(Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1).into(), &[]));
            prop_assert!(allowed(v4.into(), &[TargetRule::All]));
        }

        #[test]
        fn nothing_the_standard_library_calls_local_is_public(bits: u32) {
            let v4 = Ipv4Addr::from(bits);
            let local = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast()
                || v4.is_documentation() || v4.is_unspecified();
            prop_assert!(!(local && allowed(v4.into(), &[])));
        }
    }
}

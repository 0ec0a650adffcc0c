//! Which targets HTTP tasks may reach: public addresses, and what `--allow-targets` adds; any port but those of other
//! protocols, and what `--allow-target-ports` adds.
//!
//! Tasks come from people who need not be trusted with the worker's own network (server-side request forgery), so the rule
//! is: what the IANA special-purpose registries do not call globally reachable is refused. An address that carries an IPv4
//! address (mapped, 6to4, NAT64) is judged by that. What the URL itself says is checked before anything is sent
//! ([`TargetGuard::check_url`]), what its name resolves to when it is connected to ([`TargetGuard::admit`]).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use taskmaster_openapi::destination;
use url::{Host, Url};

/// Ports that a request is not sent to: "bad ports" of the Fetch standard (2.9), which name services of other protocols (mail,
/// SSH, IRC …) that might take an HTTP request for their own.
const REFUSED_PORTS: [u16; 83] = [
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
    110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531,
    532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060,
    5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
];

/// A target that the worker does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedTarget {
    /// An address, or a name that has no other ones.
    #[error(
        "{0} is a private, local or reserved address, which this worker does not allow; --allow-targets (TASKMASTER_ALLOW_TARGETS) on the worker opens networks"
    )]
    Address(String),
    /// A port of another protocol.
    #[error(
        "port {0} is one of another protocol, which this worker does not allow; --allow-target-ports (TASKMASTER_ALLOW_TARGET_PORTS) on the worker opens ports"
    )]
    Port(u16),
}

/// Decides where HTTP tasks may go.
#[derive(Debug, Clone)]
pub struct TargetGuard {
    rules: Arc<[TargetRule]>,
    ports: Arc<[PortRule]>,
}

impl TargetGuard {
    /// Public addresses and ports of HTTP, and what the rules add.
    pub fn new(rules: &[TargetRule], ports: &[PortRule]) -> Self {
        Self { rules: rules.into(), ports: ports.into() }
    }

    /// Checks what a URL says itself: its port, and its host where that is an address. The parser knows all notations of
    /// addresses (decimal, hexadecimal, octal, shortened); one in the URL is never resolved, so nobody else would check it.
    ///
    /// # Errors
    /// The target is refused.
    pub fn check_url(&self, url: &Url) -> Result<(), RefusedTarget> {
        let port = url.port_or_known_default().unwrap_or(0);
        if REFUSED_PORTS.contains(&port) && !self.ports.iter().any(|rule| rule.covers(port)) {
            return Err(RefusedTarget::Port(port));
        }
        let address: IpAddr = match url.host() {
            Some(Host::Ipv4(address)) => address.into(),
            Some(Host::Ipv6(address)) => address.into(),
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        if self.allows(address) { Ok(()) } else { Err(RefusedTarget::Address(address.to_string())) }
    }

    /// Of the addresses of a name those that may be connected to.
    ///
    /// # Errors
    /// The name has addresses, and all of them are refused.
    pub fn admit(&self, name: &str, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, RefusedTarget> {
        let (allowed, refused): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| self.allows(address.ip()));
        match refused.first() {
            Some(address) if allowed.is_empty() => Err(RefusedTarget::Address(format!("{name} ({})", address.ip()))),
            _ => Ok(allowed),
        }
    }

    /// Whether a task may connect to the address. This machine's own public address leads to what listens here, past every
    /// firewall, and so is as local as loopback.
    fn allows(&self, address: IpAddr) -> bool {
        if !allowed(address, &self.rules) {
            return false;
        }
        let by_rule = self.rules.iter().any(|rule| covers_either(*rule, address));
        by_rule || self.rules.contains(&TargetRule::Loopback) || !is_own(destination::inner(address))
    }
}

/// Whether the address is one of this machine's: the kernel then sends to it from itself. Sends nothing.
fn is_own(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 1))?;
        socket.local_addr()
    });
    // Where there is no way to the address there is none for a task either.
    source.is_ok_and(|source| source.ip() == address)
}

/// A port that HTTP tasks may reach besides those of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortRule {
    /// Every port there is.
    All,
    /// One port.
    One(u16),
}

impl PortRule {
    fn covers(self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::One(one) => one == port,
        }
    }
}

impl FromStr for PortRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "all" => Ok(Self::All),
            port => port
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .map(Self::One)
                .ok_or_else(|| "must be a port from 1 to 65535, or `all`".into()),
        }
    }
}

/// A network that HTTP tasks may reach besides public ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetRule {
    /// Every address that can be called at all.
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

/// Whether the rules let a task connect to the address. Unspecified (which leads to this machine), multicast and broadcast
/// addresses are no destinations, whatever the rules say.
fn allowed(address: IpAddr, rules: &[TargetRule]) -> bool {
    let inner = destination::inner(address);
    destination::is_possible(address)
        && (destination::is_public(inner) || rules.iter().any(|rule| covers_either(*rule, address)))
}

/// Whether the rule covers the address, or the one inside of it.
fn covers_either(rule: TargetRule, address: IpAddr) -> bool {
    covers(rule, address) || covers(rule, destination::inner(address))
}

fn covers(rule: TargetRule, address: IpAddr) -> bool {
    match rule {
        TargetRule::All => true,
        TargetRule::Loopback => address.is_loopback(),
        TargetRule::Private => is_private(address) && !is_metadata(address),
        TargetRule::Network(network) => network.contains(&address),
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || matches!(v4.octets(), [100, 64..128, ..]),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

/// Services for the machine alone (metadata, credentials, time) that lie in private networks: Alibaba's; of AWS (fd00:ec2::/32)
/// and Google (fd20:ce::/32) the IPv6 ones.
fn is_metadata(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4 == Ipv4Addr::new(100, 100, 100, 200),
        IpAddr::V6(v6) => matches!(v6.segments(), [0xfd00, 0xec2, ..] | [0xfd20, 0xce, ..]),
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
            ("fd00:ec2::23", "private", false),
            ("fd20:ce::254", "private", false),
            ("fd00:ec2::254", "fd00:ec2::/32", true),
            ("10.1.2.3", "10.1.0.0/16", true),
            ("10.2.0.1", "10.1.0.0/16", false),
            ("::ffff:10.1.2.3", "10.1.0.0/16", true),
            ("10.1.2.3", "10.1.2.3", true),
            ("169.254.169.254", "all", true),
            ("0.0.0.0", "all", false),
            ("::", "all", false),
            ("::ffff:0.0.0.0", "all", false),
            ("224.0.0.1", "all", false),
            ("ff02::1", "all", false),
            ("255.255.255.255", "all", false),
        ] {
            assert_eq!(is_allowed(address, rules), expected, "{address} with {rules}");
        }
    }

    /// Whether a URL passes, and what for not.
    fn checked(url: &str, rules: &str, ports: &str) -> Result<(), RefusedTarget> {
        let rules: Vec<TargetRule> = rules.split(',').filter(|r| !r.is_empty()).map(|r| r.parse().unwrap()).collect();
        let ports: Vec<PortRule> = ports.split(',').filter(|p| !p.is_empty()).map(|p| p.parse().unwrap()).collect();
        TargetGuard::new(&rules, &ports).check_url(&Url::parse(url).unwrap())
    }

    #[test]
    fn every_notation_of_an_address_in_a_url_is_seen_through() {
        for host in [
            "127.0.0.1",
            "127.0.0.1.",
            "127.1",
            "127.0.1",
            "2130706433",
            "0x7f000001",
            "0x7f.0x0.0x0.0x1",
            "0X7F.1",
            "017700000001",
            "0177.0.0.01",
            "127.0.0.0x1",
            "%31%32%37.0.0.1",
            "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
            "127\u{3002}0\u{3002}0\u{3002}1",
            "[::1]",
            "[0:0:0:0:0:0:0:1]",
            "[::127.0.0.1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "0",
            "0.0.0.0",
            "0x0",
            "[::]",
            "2852039166",
            "0xa9fea9fe",
            "[::ffff:a9fe:a9fe]",
            "[fe80::1]",
        ] {
            let refused = checked(&format!("http://{host}/"), "", "");
            assert!(matches!(refused, Err(RefusedTarget::Address(_))), "{host}: {refused:?}");
        }
        assert_eq!(checked("http://0x7f000001/", "loopback", ""), Ok(()));
    }

    #[test]
    fn ports_of_other_protocols_are_refused_unless_they_are_opened() {
        for (url, ports, refused) in [
            ("http://example.com/", "", None),
            ("https://example.com/", "", None),
            ("http://example.com:8080/", "", None),
            ("http://example.com:22/", "", Some(22)),
            ("https://example.com:025/", "", Some(25)),
            ("http://1.1.1.1:6667/", "", Some(6667)),
            ("http://example.com:6667/", "6667", None),
            ("http://example.com:6668/", "6667", Some(6668)),
            ("http://example.com:22/", "all", None),
        ] {
            assert_eq!(
                checked(url, "all", ports),
                refused.map_or(Ok(()), |port| Err(RefusedTarget::Port(port))),
                "{url}"
            );
        }
        assert!(["0", "65536", "http", "-1"].iter().all(|text| text.parse::<PortRule>().is_err()));
    }

    #[test]
    fn of_a_names_addresses_only_the_allowed_ones_are_connected_to() {
        let addresses = |all: &[&str]| -> Vec<SocketAddr> {
            all.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 0)).collect()
        };
        let guard = TargetGuard::new(&[], &[]);
        let mixed = addresses(&["10.0.0.1", "192.0.2.1", "1.1.1.1", "::1", "::ffff:127.0.0.1"]);
        assert_eq!(guard.admit("mixed.example", mixed), Ok(addresses(&["1.1.1.1"])));
        let refused = guard.admit("rebound.example", addresses(&["127.0.0.1", "::1"])).unwrap_err();
        assert!(refused.to_string().starts_with("rebound.example (127.0.0.1) is a private"), "{refused}");
        assert_eq!(guard.admit("empty.example", Vec::new()), Ok(Vec::new()));
    }

    #[test]
    fn an_address_of_this_machine_is_known_as_such() {
        assert!(is_own(Ipv4Addr::LOCALHOST.into()));
        for other in ["192.0.2.1", "2001:db8::1"] {
            assert!(!is_own(other.parse().unwrap()), "{other}");
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
            prop_assert_eq!(allowed(v4.into(), &[TargetRule::All]), destination::is_possible(v4.into()));
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

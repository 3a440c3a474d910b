//! Which addresses are special, and which a policy allows all the same.
//!
//! The tables are the IANA special-purpose registries of IPv4 and IPv6 (RFC 6890 and what was added since), read
//! strictly: whatever is not plainly the public internet is special, even what the registries call globally reachable
//! (AS112, AMT, …), for no receiver lives there. An IPv6 address that carries an IPv4 address (mapped, NAT64, 6to4, ISATAP)
//! is judged by what it carries, for that is where the packets end; one that can carry an address nobody can read off it
//! (Teredo, local NAT64) is special as such.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Policy;

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(first: u16, second: u16, third: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(first, second, third, 0, 0, 0, 0, 0), prefix)
}

const IPV4: &[(Ipv4Net, &str)] = &[
    (v4(0, 0, 0, 0, 8), "\"this network\""),
    (v4(10, 0, 0, 0, 8), "private"),
    (v4(100, 64, 0, 0, 10), "shared address space"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(168, 63, 129, 16, 32), "cloud platform"),
    (v4(169, 254, 0, 0, 16), "link-local"),
    (v4(172, 16, 0, 0, 12), "private"),
    (v4(192, 0, 0, 0, 24), "IETF protocol"),
    (v4(192, 0, 2, 0, 24), "documentation"),
    (v4(192, 31, 196, 0, 24), "AS112"),
    (v4(192, 52, 193, 0, 24), "AMT"),
    (v4(192, 88, 99, 0, 24), "6to4 relay"),
    (v4(192, 168, 0, 0, 16), "private"),
    (v4(192, 175, 48, 0, 24), "AS112"),
    (v4(198, 18, 0, 0, 15), "benchmarking"),
    (v4(198, 51, 100, 0, 24), "documentation"),
    (v4(203, 0, 113, 0, 24), "documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(255, 255, 255, 255, 32), "broadcast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
];

/// Looked through in order; what is in none of them and outside `2000::/3` is reserved.
const IPV6: &[(Ipv6Net, &str)] = &[
    (Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128), "unspecified"),
    (Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), "loopback"),
    (v6(0x64, 0xff9b, 1, 48), "local NAT64"),
    (v6(0x100, 0, 0, 64), "discard-only"),
    (Ipv6Net::new_assert(Ipv6Addr::new(0x100, 0, 0, 1, 0, 0, 0, 0), 64), "dummy prefix"),
    (v6(0x2001, 0, 0, 32), "Teredo"),
    (v6(0x2001, 0, 0, 23), "IETF protocol"),
    (v6(0x2001, 0xdb8, 0, 32), "documentation"),
    (v6(0x2620, 0x4f, 0x8000, 48), "AS112"),
    (v6(0x5f00, 0, 0, 16), "segment routing"),
    (v6(0x3fff, 0, 0, 20), "documentation"),
    (v6(0xfc00, 0, 0, 7), "unique local"),
    (v6(0xfe80, 0, 0, 10), "link-local"),
    (v6(0xfec0, 0, 0, 10), "site-local"),
    (v6(0xff00, 0, 0, 8), "multicast"),
];

const GLOBAL_UNICAST: Ipv6Net = v6(0x2000, 0, 0, 3);
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 0, 96);
const SIX_TO_FOUR: Ipv6Net = v6(0x2002, 0, 0, 16);

/// The word for a special address (`loopback`, `private`, …); `None` for one of the public internet.
pub(super) fn class_of(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => IPV4.iter().find(|(net, _)| net.contains(&address)).map(|(_, name)| *name),
        IpAddr::V6(address) => {
            let inside = carried(address).map(|inner| class_of(IpAddr::V4(inner)));
            if let Some(class) = inside.filter(|class| class.is_some() || is_envelope(address)) {
                return class;
            }
            let known = IPV6.iter().find(|(net, _)| net.contains(&address)).map(|(_, name)| *name);
            known.or_else(|| (!GLOBAL_UNICAST.contains(&address)).then_some("reserved"))
        }
    }
}

/// Whether it is nothing but the IPv4 address that it carries. An ISATAP address has a network of its own beside that.
fn is_envelope(address: Ipv6Addr) -> bool {
    address.to_ipv4_mapped().is_some() || NAT64.contains(&address) || SIX_TO_FOUR.contains(&address)
}

/// The IPv4 address that an IPv6 address stands for, or that its interface id names.
fn carried(address: Ipv6Addr) -> Option<Ipv4Addr> {
    if let Some(inner) = address.to_ipv4_mapped() {
        return Some(inner);
    }
    let [_, first, second, _, kind, mark, high, low] = address.segments();
    if NAT64.contains(&address) {
        return Some(joined(high, low));
    }
    if SIX_TO_FOUR.contains(&address) {
        return Some(joined(first, second));
    }
    // ISATAP (RFC 5214, section 6.1): an interface id of 0000:5efe or 0200:5efe, and the address behind it.
    (mark == 0x5efe && matches!(kind, 0 | 0x200)).then(|| joined(high, low))
}

fn joined(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low))
}

impl Policy {
    /// Why this address may not be dialled for a webhook that an operator did not write: its class, or `None`
    /// where it may.
    pub(super) fn forbids(&self, address: IpAddr) -> Option<&'static str> {
        let class = class_of(address)?;
        let inner = match address {
            IpAddr::V6(address) => carried(address).filter(|_| is_envelope(address)).map(IpAddr::V4),
            IpAddr::V4(_) => None,
        };
        let allowed = |net: &IpNet| net.contains(&address) || inner.is_some_and(|inner| net.contains(&inner));
        (!self.allow_networks.iter().any(allowed)).then_some(class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, expect: Option<&str>) {
        assert_eq!(class_of(address.parse().unwrap()), expect, "{address}");
    }

    /// The registries, each range with its first and its last address, and the public ones before and behind it: `-` where
    /// the neighbour is special too.
    const RANGES: &str = "
        -                0.0.0.0         0.255.255.255    1.0.0.0          \"this network\"
        9.255.255.255    10.0.0.0        10.255.255.255   11.0.0.0         private
        100.63.255.255   100.64.0.0      100.127.255.255  100.128.0.0      shared address space
        126.255.255.255  127.0.0.0       127.255.255.255  128.0.0.0        loopback
        168.63.129.15    168.63.129.16   168.63.129.16    168.63.129.17    cloud platform
        169.253.255.255  169.254.0.0     169.254.255.255  169.255.0.0      link-local
        172.15.255.255   172.16.0.0      172.31.255.255   172.32.0.0       private
        191.255.255.255  192.0.0.0       192.0.0.255      192.0.1.0        IETF protocol
        192.0.1.255      192.0.2.0       192.0.2.255      192.0.3.0        documentation
        192.31.195.255   192.31.196.0    192.31.196.255   192.31.197.0     AS112
        192.52.192.255   192.52.193.0    192.52.193.255   192.52.194.0     AMT
        192.88.98.255    192.88.99.0     192.88.99.255    192.88.100.0     6to4 relay
        192.167.255.255  192.168.0.0     192.168.255.255  192.169.0.0      private
        192.175.47.255   192.175.48.0    192.175.48.255   192.175.49.0     AS112
        198.17.255.255   198.18.0.0      198.19.255.255   198.20.0.0       benchmarking
        198.51.99.255    198.51.100.0    198.51.100.255   198.51.101.0     documentation
        203.0.112.255    203.0.113.0     203.0.113.255    203.0.114.0      documentation
        223.255.255.255  224.0.0.0       239.255.255.255  -                multicast
        -                240.0.0.0       255.255.255.254  -                reserved
        -                255.255.255.255 255.255.255.255  -                broadcast
        -  ::          ::               -                unspecified
        -  ::1         ::1              -                loopback
        -  ::2         ::fffe:ffff:ffff -                reserved
        -  ::ffff:10.0.0.0  ::ffff:10.255.255.255  ::ffff:11.0.0.0  private
        -  ::1:0:0:0   64:ff9a:ffff:ffff:ffff:ffff:ffff:ffff  -  reserved
        64:ff9b::9.255.255.255 64:ff9b::10.0.0.0 64:ff9b::10.255.255.255 64:ff9b::11.0.0.0 private
        -  64:ff9b:0:0:0:1::  64:ff9b:0:ffff:ffff:ffff:ffff:ffff  -  reserved
        -  64:ff9b:1:: 64:ff9b:1:ffff:ffff:ffff:ffff:ffff   -  local NAT64
        -  100::       100::ffff:ffff:ffff:ffff     -  discard-only
        -  100:0:0:1:: 100:0:0:1:ffff:ffff:ffff:ffff  -  dummy prefix
        -  100:0:0:2:: 1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff  2000::  reserved
        2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff  2001::  2001:0:ffff:ffff:ffff:ffff:ffff:ffff  -  Teredo
        -  2001:1::    2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff  2001:200::  IETF protocol
        2001:db7:ffff:ffff:ffff:ffff:ffff:ffff  2001:db8::  2001:db8:ffff:ffff:ffff:ffff:ffff:ffff  2001:db9::  documentation
        2002:9ff:ffff:ffff:ffff:ffff:ffff:ffff  2002:a00::  2002:aff:ffff:ffff:ffff:ffff:ffff:ffff  2002:b00::  private
        2620:4f:7fff:ffff:ffff:ffff:ffff:ffff  2620:4f:8000::  2620:4f:8000:ffff:ffff:ffff:ffff:ffff  2620:4f:8001::  AS112
        3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff  3fff::  3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff  3fff:1000::  documentation
        3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff  4000::  5eff:ffff:ffff:ffff:ffff:ffff:ffff:ffff  -  reserved
        -  5f00::      5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff  -  segment routing
        -  5f01::      fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff  -  reserved
        -  fc00::      fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff  -  unique local
        -  fe00::      fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff  -  reserved
        -  fe80::      febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff  -  link-local
        -  fec0::      feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff  -  site-local
        -  ff00::      ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff  -  multicast
    ";

    #[test]
    fn every_special_range_is_known_by_its_first_and_last_address_and_its_neighbours_are_not() {
        let mut ranges = 0;
        for line in RANGES.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let mut words = line.split_whitespace();
            let [before, first, last, behind] = std::array::from_fn(|_| words.next().unwrap());
            let class = words.collect::<Vec<_>>().join(" ");
            check(first, Some(&class));
            check(last, Some(&class));
            for neighbour in [before, behind].into_iter().filter(|word| *word != "-") {
                check(neighbour, None);
            }
            ranges += 1;
        }
        assert_eq!(ranges, 45);
        // Every range of the tables is among them.
        let names: Vec<&str> =
            IPV4.iter().map(|(_, name)| *name).chain(IPV6.iter().map(|(_, name)| *name)).collect();
        assert!(names.iter().all(|name| RANGES.contains(name)), "{names:?}");
    }

    #[test]
    fn an_address_is_judged_by_the_one_it_carries() {
        for (address, expect) in [
            ("::ffff:127.0.0.1", Some("loopback")),
            ("::ffff:169.254.169.254", Some("link-local")),
            ("::ffff:8.8.8.8", None),
            ("::127.0.0.1", Some("reserved")),
            ("::8.8.8.8", Some("reserved")),
            ("64:ff9b::192.168.1.1", Some("private")),
            ("64:ff9b::8.8.8.8", None),
            ("64:ff9b:1::8.8.8.8", Some("local NAT64")),
            ("2002:c0a8:101::1", Some("private")),
            ("2002:a9fe:a9fe::", Some("link-local")),
            ("2002:808:808::1", None),
            ("2001:0:808:808::", Some("Teredo")),
            ("2606:4700::5efe:10.0.0.1", Some("private")),
            ("2606:4700::200:5efe:127.0.0.1", Some("loopback")),
            ("2606:4700::5efe:8.8.8.8", None),
            ("fe80::5efe:8.8.8.8", Some("link-local")),
            ("fd00::200:5efe:8.8.8.8", Some("unique local")),
            ("8.8.8.8", None),
            ("2606:4700::1111", None),
            ("2a00::1", None),
        ] {
            check(address, expect);
        }
    }

    #[test]
    fn allowed_networks_open_exactly_themselves() {
        let policy = Policy {
            allow_http: false,
            allow_networks: vec!["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()],
            ..Policy::default()
        };
        for (address, expect) in [
            ("10.1.2.3", None),
            ("::ffff:10.1.2.3", None),
            ("10.2.0.1", Some("private")),
            ("fd00::1", None),
            ("fc00::1", Some("unique local")),
            ("127.0.0.1", Some("loopback")),
            ("2606:4700::5efe:10.1.2.3", Some("private")),
            ("fc00::5efe:10.1.2.3", Some("private")),
            ("8.8.8.8", None),
        ] {
            assert_eq!(policy.forbids(address.parse().unwrap()), expect, "{address}");
        }
    }
}

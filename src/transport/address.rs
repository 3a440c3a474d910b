//! Which addresses are special, and which a policy allows all the same.
//!
//! The tables are the IANA special-purpose registries of IPv4 and IPv6 (RFC 6890 and what was added since), read
//! strictly: whatever is not plainly the public internet is special. An IPv6 address that carries an IPv4 address
//! (mapped, NAT64, 6to4) is judged by what it carries, for that is where the packets end.

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
    (v4(192, 88, 99, 0, 24), "6to4 relay"),
    (v4(192, 168, 0, 0, 16), "private"),
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
    (v6(0x2001, 0, 0, 32), "Teredo"),
    (v6(0x2001, 0, 0, 23), "IETF protocol"),
    (v6(0x2001, 0xdb8, 0, 32), "documentation"),
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
            if let Some(inner) = carried(address) {
                return class_of(IpAddr::V4(inner));
            }
            let known = IPV6.iter().find(|(net, _)| net.contains(&address)).map(|(_, name)| *name);
            known.or_else(|| (!GLOBAL_UNICAST.contains(&address)).then_some("reserved"))
        }
    }
}

/// The IPv4 address that an IPv6 address stands for.
fn carried(address: Ipv6Addr) -> Option<Ipv4Addr> {
    if let Some(inner) = address.to_ipv4_mapped() {
        return Some(inner);
    }
    let [_, _, _, _, _, _, g, h] = address.segments();
    if NAT64.contains(&address) {
        return Some(joined(g, h));
    }
    let [_, b, c, ..] = address.segments();
    SIX_TO_FOUR.contains(&address).then(|| joined(b, c))
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
            IpAddr::V6(address) => carried(address).map(IpAddr::V4),
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

    #[test]
    fn every_special_range_is_known_by_its_first_and_last_address() {
        for (ends, class) in [
            (["0.0.0.0", "0.255.255.255"], "\"this network\""),
            (["10.0.0.0", "10.255.255.255"], "private"),
            (["100.64.0.0", "100.127.255.255"], "shared address space"),
            (["127.0.0.1", "127.255.255.255"], "loopback"),
            (["168.63.129.16", "168.63.129.16"], "cloud platform"),
            (["169.254.0.0", "169.254.169.254"], "link-local"),
            (["172.16.0.0", "172.31.255.255"], "private"),
            (["192.0.0.0", "192.0.0.255"], "IETF protocol"),
            (["192.0.2.0", "192.0.2.255"], "documentation"),
            (["192.88.99.0", "192.88.99.255"], "6to4 relay"),
            (["192.168.0.0", "192.168.255.255"], "private"),
            (["198.18.0.0", "198.19.255.255"], "benchmarking"),
            (["198.51.100.0", "198.51.100.255"], "documentation"),
            (["203.0.113.0", "203.0.113.255"], "documentation"),
            (["224.0.0.0", "239.255.255.255"], "multicast"),
            (["240.0.0.0", "255.255.255.254"], "reserved"),
            (["255.255.255.255", "::ffff:255.255.255.255"], "broadcast"),
            (["::", "::"], "unspecified"),
            (["::1", "::ffff:127.0.0.1"], "loopback"),
            (["::2", "::7f00:1"], "reserved"),
            (["64:ff9b::10.0.0.1", "64:ff9b::192.168.1.1"], "private"),
            (["64:ff9b:1::", "64:ff9b:1:ffff::1"], "local NAT64"),
            (["100::", "100::ffff"], "discard-only"),
            (["2001::", "2001:0:ffff::1"], "Teredo"),
            (["2001:1::1", "2001:1ff:ffff::"], "IETF protocol"),
            (["2001:db8::", "2001:db8:ffff::1"], "documentation"),
            (["2002:a00:1::", "2002:c0a8:101::1"], "private"),
            (["2002:a9fe:a9fe::", "::ffff:169.254.169.254"], "link-local"),
            (["3fff::", "3fff:fff::1"], "documentation"),
            (["4000::", "5f00::1"], "reserved"),
            (["fc00::", "fdff::1"], "unique local"),
            (["fe80::", "febf::1"], "link-local"),
            (["fec0::", "feff::1"], "site-local"),
            (["ff00::", "ffff::1"], "multicast"),
        ] {
            for address in ends {
                check(address, Some(class));
            }
        }
    }

    #[test]
    fn neighbours_of_special_ranges_are_public() {
        for address in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
            "8.8.8.8",
            "2000::1",
            "2001:200::1",
            "2001:db7:ffff::",
            "2606:4700::1111",
            "2a00::1",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
            "::ffff:8.8.8.8",
        ] {
            check(address, None);
        }
    }

    #[test]
    fn allowed_networks_open_exactly_themselves() {
        let policy = Policy {
            allow_http: false,
            allow_networks: vec!["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()],
        };
        for (address, expect) in [
            ("10.1.2.3", None),
            ("::ffff:10.1.2.3", None),
            ("10.2.0.1", Some("private")),
            ("fd00::1", None),
            ("fc00::1", Some("unique local")),
            ("127.0.0.1", Some("loopback")),
            ("8.8.8.8", None),
        ] {
            assert_eq!(policy.forbids(address.parse().unwrap()), expect, "{address}");
        }
    }
}

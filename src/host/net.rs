//! Interfaces, addresses and listening sockets of this network namespace.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv6Addr};

use super::Ipv6Support;
use crate::exit::{Exit, Failure};
use crate::passing::Passing;
use crate::plan::Family;
use crate::sys::netlink;
use crate::sys::netlink::routing::{self, Link};

/// The address that Envoy sends from to local IPv6 applications. An install puts it on the loopback interface, so
/// it says nothing about the host.
pub const PASSTHROUGH: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

/// The interfaces and addresses of this network namespace at one moment.
#[derive(Debug, Clone)]
pub struct Interfaces {
    loopback: String,
    links: Vec<Link>,
    addresses: Vec<IpAddr>,
}

/// Lists them.
///
/// # Errors
/// The kernel does not, or none of them is a loopback interface.
pub fn interfaces() -> Result<Interfaces, Failure> {
    let failure = |reason: &str| {
        Failure::new(Exit::Host, format!("cannot find the loopback interface: {reason}"))
            .hint("`ip link show` lists the interfaces; a network namespace has had 'lo' since it was made")
    };
    let all = routing::links().and_then(|links| Ok((links, routing::addresses()?)));
    let (links, addresses) = all.map_err(|error| {
        let failure = failure(&error.to_string());
        if error.is_passing() { Failure::new(Exit::Failed, failure.message).passing(true) } else { failure }
    })?;
    let loopback = links.iter().find(|link| link.loopback).map(|link| link.name.clone());
    let loopback = loopback.ok_or_else(|| failure("no interface has the loopback flag"))?;
    Ok(Interfaces { loopback, links, addresses })
}

/// Whether an interface of this network namespace is switched on.
pub fn is_up(name: &str) -> bool {
    routing::links().unwrap_or_default().iter().any(|link| link.name == name && link.up)
}

/// The interfaces of this network namespace; none where they cannot be had.
pub fn links() -> Vec<Link> {
    routing::links().unwrap_or_default()
}

/// The addresses of all interfaces of this network namespace; none where they cannot be had.
pub fn own_addresses() -> BTreeSet<IpAddr> {
    routing::addresses().unwrap_or_default().into_iter().collect()
}

impl Interfaces {
    /// The name of the first interface with the loopback flag.
    pub fn loopback(&self) -> &str {
        &self.loopback
    }

    /// All of them.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Their addresses, of both families.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Whether there is an IPv6 address but `::1` (link-local ones count) and the loopback interface, where the sidecar
    /// is reached, has IPv6 too; if not, why.
    pub fn ipv6_support(&self) -> Ipv6Support {
        let why = match disabled("all") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => "the kernel has no IPv6".to_owned(),
            // An address says more than a setting that cannot be read.
            all if self.addresses.iter().copied().any(tells) => match self.loopback_without_ipv6() {
                None => return Ipv6Support::Available,
                // Said of all interfaces, it is so of each.
                Some(why) => {
                    all.ok().flatten().map_or(why, |setting| format!("IPv6 is disabled ({setting})"))
                }
            },
            Ok(Some(setting)) => format!("IPv6 is disabled ({setting})"),
            Ok(None) | Err(_) => "no interface has an IPv6 address".to_owned(),
        };
        Ipv6Support::Unavailable(why)
    }

    /// Why redirected IPv6 traffic cannot reach the sidecar although other interfaces have IPv6.
    pub fn loopback_without_ipv6(&self) -> Option<String> {
        let setting = disabled(&self.loopback).ok().flatten()?;
        Some(format!("IPv6 is disabled on {} ({setting})", self.loopback))
    }

    /// Whether an interface has this address.
    pub fn has(&self, addr: Ipv6Addr) -> bool {
        self.addresses.contains(&addr.into())
    }
}

/// Whether an address means that the host speaks IPv6.
fn tells(addr: IpAddr) -> bool {
    addr.is_ipv6() && !addr.is_loopback() && addr != PASSTHROUGH
}

/// The setting that disables IPv6 on an interface, or on `all` of them, with its value as `sysctl` prints it; `None`
/// where it is off.
fn disabled(interface: &str) -> io::Result<Option<String>> {
    let value = std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"))?;
    let value = value.trim();
    Ok((value != "0").then(|| format!("net.ipv6.conf.{interface}.disable_ipv6 = {value}")))
}

/// The TCP ports on which somebody listens in this network namespace, at whatever address.
///
/// # Errors
/// Neither netlink nor `/proc` tells.
pub fn listening_tcp_ports() -> io::Result<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    for family in Family::BOTH {
        match netlink::listening_tcp_ports(family) {
            Ok(Some(some)) => ports.extend(some),
            Ok(None) | Err(_) => return listening_in_proc(),
        }
    }
    Ok(ports)
}

/// The same on a kernel without socket diagnostics.
fn listening_in_proc() -> io::Result<BTreeSet<u16>> {
    // Not /proc/net: that is the network namespace of the process's first thread.
    let mut ports = listening(BufReader::new(File::open("/proc/thread-self/net/tcp")?))?;
    match File::open("/proc/thread-self/net/tcp6") {
        Ok(file) => ports.append(&mut listening(BufReader::new(file))?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(ports)
}

/// Reads lines such as `0: 0100007F:1F90 00000000:0000 0A …`: local address, remote address, state
/// (`Documentation/networking/proc_net_tcp.rst` of the kernel).
fn listening(table: impl BufRead) -> io::Result<BTreeSet<u16>> {
    const LISTEN: &str = "0A";
    const SYN_RECV: &str = "03";
    let mut ports = BTreeSet::new();
    for line in table.lines().skip(1) {
        let line = line?;
        let mut columns = line.split_ascii_whitespace();
        let (Some(local), Some(state)) = (columns.nth(1), columns.nth(1)) else { continue };
        match state {
            LISTEN => {
                let port = local.rsplit(':').next().unwrap_or_default();
                ports.extend(u16::from_str_radix(port, 16).ok());
            }
            SYN_RECV => {}
            // The kernel lists listening sockets first, and there may be very many others.
            _ => break,
        }
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::sys::netns::testing::apart;
    use crate::sys::run;

    fn tool(program: &str, args: &str) {
        let deadline = std::time::Duration::from_secs(20);
        let output = run::run(&run::Command::new(program, args.split(' '), deadline)).unwrap();
        assert!(output.success(), "{program} {args}: {}", String::from_utf8_lossy(&output.stderr));
    }

    #[test]
    fn the_loopback_interface_is_found_when_down() {
        apart(|| {
            assert_eq!(interfaces().unwrap().loopback(), "lo");
            assert!(!is_up("lo"));
            tool("ip", "link set lo up");
            assert!(is_up("lo") && !is_up("lo0"));
        });
    }

    #[test]
    fn the_loopback_interface_is_found_by_its_flag() {
        apart(|| {
            tool("ip", "link set lo name local0");
            assert_eq!(interfaces().unwrap().loopback(), "local0");
        });
    }

    #[test]
    fn ipv6_needs_an_address_that_is_not_ours() {
        apart(|| {
            let no_address = Ipv6Support::Unavailable("no interface has an IPv6 address".into());
            tool("ip", "link set lo up");
            assert_eq!(interfaces().unwrap().ipv6_support(), no_address);
            netlink::add_address("lo", PASSTHROUGH, 128).unwrap();
            assert_eq!(interfaces().unwrap().ipv6_support(), no_address);
            netlink::add_address("lo", "fd00::1".parse().unwrap(), 128).unwrap();
            assert_eq!(interfaces().unwrap().ipv6_support(), Ipv6Support::Available);
            tool("sysctl", "-q -w net.ipv6.conf.all.disable_ipv6=1");
            assert_eq!(
                interfaces().unwrap().ipv6_support(),
                Ipv6Support::Unavailable("IPv6 is disabled (net.ipv6.conf.all.disable_ipv6 = 1)".into())
            );
        });
    }

    #[test]
    fn ipv6_needs_the_loopback_interface() {
        apart(|| {
            tool("ip", "link add veth1 type veth peer name veth2");
            netlink::add_address("veth1", "fd00::1".parse().unwrap(), 64).unwrap();
            assert_eq!(interfaces().unwrap().ipv6_support(), Ipv6Support::Available);
            tool("sysctl", "-q -w net.ipv6.conf.lo.disable_ipv6=1");
            assert_eq!(
                interfaces().unwrap().ipv6_support(),
                Ipv6Support::Unavailable("IPv6 is disabled on lo (net.ipv6.conf.lo.disable_ipv6 = 1)".into())
            );
        });
    }

    #[test]
    fn a_link_local_address_is_enough() {
        apart(|| {
            tool("ip", "link add veth1 type veth peer name veth2");
            netlink::add_address("veth1", "fe80::1".parse().unwrap(), 64).unwrap();
            assert_eq!(interfaces().unwrap().ipv6_support(), Ipv6Support::Available);
        });
    }

    #[test]
    fn listening_ports_of_both_families() {
        apart(|| {
            tool("ip", "link set lo up");
            assert_eq!(listening_tcp_ports().unwrap(), BTreeSet::new());
            let four = TcpListener::bind("127.0.0.1:0").unwrap();
            let six = TcpListener::bind("[::1]:0").unwrap();
            let ports = [&four, &six].map(|listener| listener.local_addr().unwrap().port());
            let client = std::net::TcpStream::connect(four.local_addr().unwrap()).unwrap();
            assert_eq!(listening_tcp_ports().unwrap(), ports.into());
            assert_eq!(netlink::listening_tcp_ports(Family::V6).unwrap(), Some(vec![ports[1]]));
            assert_eq!(listening_in_proc().unwrap(), ports.into());
            drop(client);
        });
    }

    #[test]
    fn odd_lines_are_passed_over() {
        let text = "head\n 0: 0100007F:1F90 00000000:0000 0A x\n 1: 1:zz 0:0 0A\n nonsense\n 2: 0:0050 0:0 03\n \
                    3: 0:0051 0:0 0A\n 4: 0:0052 0:0 01\n";
        assert_eq!(listening(text.as_bytes()).unwrap(), [8080, 0x51].into());
    }
}

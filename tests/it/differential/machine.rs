//! A machine with rules, and real packets that meet them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, connect, send, setsockopt, socket,
    sockopt,
};
use nix::unistd::{Pid, Uid, setfsuid};
use tproxy::config::values::{Port, Protocol};
use tproxy::plan::{BuiltinChain, is_link_local};

use super::packet::{Packet, Translation};
use super::wire::{TCP, UDP, Wire};
use crate::support::conntrack::{News, Tracked, forget_all};
use crate::support::{Peer, firewall, network};

/// Cables of the machine, by what they are called there.
pub const INTERFACES: [&str; 5] = ["in0", "docker0", "docker1", "br-lab", "iface"];

/// Addresses of the machine itself, beside those of loopback. A router answers to the first address of a network too.
const LOCAL: [&str; 19] = [
    "10.77.0.1",
    "172.16.0.1",
    "172.17.0.1",
    "172.18.0.1",
    "172.19.0.1",
    "172.20.0.1",
    "::6",
    "fd77::",
    "fd77::1",
    "fd16::",
    "fd16::1",
    "fd17::",
    "fd17::1",
    "fd18::",
    "fd18::1",
    "fd19::",
    "fd19::1",
    "fd20::",
    "fd20::1",
];

/// Where somebody else's rules lead.
pub const THEIR_PORTS: [u16; 3] = [9999, 40000, 40053];

/// What was seen of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It could not even be sent.
    Refused(Errno),
    /// It never became a connection.
    Nothing,
    Connection {
        zone: u16,
        translation: Translation,
    },
}

/// A machine of its own with cables to one other.
pub struct Machine {
    host: Peer,
    _neighbour: Peer,
    tools: Arc<Tools>,
}

struct Tools {
    news: News,
    wire: Wire,
    /// The other ends of the cables.
    ends: BTreeMap<String, u32>,
}

impl Machine {
    pub fn new(name: &str) -> Self {
        let host = Peer::new(name);
        let neighbour = Arc::new(Peer::new("neighbour"));
        let wires = neighbour.clone();
        let news = host.run(move || {
            // Packets of one sender are received in their order when one CPU does it all.
            let allowed = sched_getaffinity(Pid::from_raw(0)).expect("CPUs of this thread");
            let first = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu) == Ok(true));
            let mut one = CpuSet::new();
            one.set(first.expect("a CPU")).expect("a CPU that is there");
            sched_setaffinity(Pid::from_raw(0), &one).expect("a CPU for this thread");
            furnish(&wires);
            drop(wires);
            News::open()
        });
        let neighbour = Arc::into_inner(neighbour).expect("the only one left");
        let (wire, ends) = neighbour.run(|| {
            let mut up = "link set lo up\n".to_owned();
            for name in INTERFACES.iter().chain(&["eth0"]) {
                let _ = writeln!(up, "link set {name} up");
            }
            network::ip(&up);
            let index = |name: &str| nix::net::if_::if_nametoindex(name).expect("an interface");
            let ends = INTERFACES.iter().map(|name| ((*name).to_owned(), index(name))).collect();
            (Wire::open(), ends)
        });
        Self { host, _neighbour: neighbour, tools: Arc::new(Tools { news, wire, ends }) }
    }

    /// Does something there.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        self.host.run(job)
    }

    /// Sends the packets, one after the other, as first packets of connections.
    pub fn meet(&self, packets: &[Packet]) -> Vec<Seen> {
        let (tools, packets) = (self.tools.clone(), packets.to_vec());
        self.host.run(move || {
            forget_all();
            let _ = tools.news.arrived();
            packets.iter().zip(20_000..).map(|(packet, serial)| tools.see(packet, serial)).collect()
        })
    }
}

/// Cables, addresses, routes.
fn furnish(neighbour: &Peer) {
    for path in ["ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter"] {
        fs::write(format!("/proc/sys/net/{path}"), "0").expect("a setting of the own namespace");
    }
    for path in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        fs::write(format!("/proc/sys/net/{path}"), "1").expect("a setting of the own namespace");
    }
    let mut batch = "link set lo up\naddr add ::6/128 dev lo nodad\n".to_owned();
    for (name, number) in INTERFACES.iter().zip(16..) {
        neighbour.plug(name, name);
        let _ = write!(
            batch,
            "link set {name} address 02:00:00:00:00:01
            link set {name} up
            addr add 172.{number}.0.1/16 dev {name}
            addr add fd{number}::1/64 dev {name} nodad
            addr add fe80::a/64 dev {name} nodad
            "
        );
    }
    neighbour.plug("eth0", "eth0");
    batch.push_str(
        "link set eth0 up
        addr add 10.77.0.1/24 dev eth0
        addr add fd77::1/64 dev eth0 nodad
        route add default via 10.77.0.2
        route add ::/0 via fd77::2
        ",
    );
    network::ip(&batch);
    // Tracking is on for both families, whatever other rules need.
    firewall::nft(
        "table inet tracking { chain everything { type filter hook input priority 0; ct state new accept; }; }",
    );
}

impl Tools {
    fn see(&self, packet: &Packet, serial: u16) -> Seen {
        let arrived = match packet.hook {
            BuiltinChain::Output => match leave(packet) {
                // Whatever leaves is tracked before the call comes back.
                Ok(()) => self.news.arrived(),
                Err(errno) => return Seen::Refused(errno),
            },
            BuiltinChain::Prerouting => {
                let number = protocol_number(packet);
                let end = self.ends[&packet.interface];
                self.wire.send(end, number, packet.source, packet.destination);
                // Behind it one that no rule is about: once it is here, the other one is or never will be.
                let (from, to) = (last("198.51.100.7", serial), last("10.77.0.1", 9));
                self.wire.send(self.ends["in0"], UDP, from, to);
                self.news.until(|tracked| tracked.source == from && tracked.destination == to)
            }
        };
        let same = |tracked: &&Tracked| {
            tracked.protocol == protocol_number(packet)
                && tracked.source == packet.source
                && tracked.destination == packet.destination
        };
        arrived.iter().find(same).map_or(Seen::Nothing, |tracked| Seen::Connection {
            zone: tracked.zone,
            translation: translation(tracked),
        })
    }
}

fn last(addr: &str, port: u16) -> SocketAddr {
    SocketAddr::new(addr.parse().expect("an address"), port)
}

fn translation(tracked: &Tracked) -> Translation {
    let port = tracked.answers_from.port();
    if tracked.answers_from == tracked.destination {
        Translation::None
    } else if THEIR_PORTS.contains(&port) {
        Translation::Theirs
    } else {
        Translation::Redirected(Port::try_from(port).expect("a port"))
    }
}

fn protocol_number(packet: &Packet) -> u8 {
    if packet.protocol == Some(Protocol::Tcp) { TCP } else { UDP }
}

/// Starts a connection or sends a datagram, from a socket of the packet's owner.
fn leave(packet: &Packet) -> Result<(), Errno> {
    let tcp = packet.protocol == Some(Protocol::Tcp);
    let family = if packet.source.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let kind = if tcp { SockType::Stream } else { SockType::Datagram };
    let owner = packet.owner.expect("a user");
    // The user of a socket's file is the one for files at that moment. This thread alone has it.
    setfsuid(Uid::from_raw(owner));
    let opened = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None);
    setfsuid(Uid::from_raw(0));
    let socket = opened?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    if is_link_local(packet.destination.ip()) {
        setsockopt(&socket, sockopt::BindToDevice, &packet.interface.as_str().into())?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(packet.source))?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(packet.destination)) {
        // Refused: nobody listens there, which on the machine itself is known at once.
        Ok(()) | Err(Errno::EINPROGRESS | Errno::ECONNREFUSED) if tcp => Ok(()),
        Err(errno) => Err(errno),
        Ok(()) => match send(socket.as_raw_fd(), b"?", MsgFlags::empty()) {
            Ok(_) | Err(Errno::ECONNREFUSED) => Ok(()),
            Err(errno) => Err(errno),
        },
    }
}

/// Whether an address is one of the machine's.
pub fn is_local(addr: IpAddr) -> bool {
    addr.is_loopback() || LOCAL.iter().any(|local| *local == addr.to_string())
}

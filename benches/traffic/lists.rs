//! What long lists cost a new connection that none of them excludes: it meets all of them, and is redirected then.

use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use tproxy::sys::netns::Namespace;

use crate::rounds::Rounds;
use crate::support::clock::{must, timed};
use crate::support::exclusions;
use crate::support::lab::{Backend, Lab};

/// Excluded addresses.
const ADDRESSES: [u16; 5] = [0, 10, 100, 1_000, 10_000];

/// Excluded ports besides the most addresses.
const PORTS: u16 = 1_000;

/// Connections in a row.
const CONNECTIONS: u32 = 1_000;

/// Nobody is there.
const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), 80);

/// Where connections are redirected to.
const OUTBOUND: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 15_001);

/// The rules of a host.
#[derive(Clone, Copy)]
enum Rules {
    /// The least: a single one that redirects.
    One,
    /// An install with so many excluded addresses and ports.
    Installed(Backend, u16, u16),
}

/// The least part of the rate of a single rule that is left where lists are sets.
const LEAST: f64 = 0.92;

/// Measures it, and prints the table. Whether the targets are met.
pub fn measure(lab: &Lab, backends: &[Backend], runs: usize) -> Result<bool, String> {
    let installed = backends.iter().flat_map(|&backend| {
        let curve = ADDRESSES.map(|addresses| Rules::Installed(backend, addresses, 0));
        let most = Rules::Installed(backend, ADDRESSES[ADDRESSES.len() - 1], PORTS);
        curve.into_iter().chain([most])
    });
    let rules: Vec<_> = [Rules::One, Rules::One].into_iter().chain(installed).collect();
    let hosts: Vec<_> = rules.iter().map(|&rules| host(lab, rules)).collect::<Result<_, _>>()?;
    let rounds = Rounds::take(runs, hosts.len(), |index| {
        let (host, listener) = &hosts[index];
        // The first ones find nothing in the caches.
        let taken = host.run(|| connections(listener).and_then(|_| connections(listener)));
        taken.and_then(|taken| taken).map_err(|error| format!("a redirected connection: {error}"))
    })?;

    println!("| rules | excluded addresses | excluded ports | connections/s | ratio | at least |");
    println!("|---|---|---|---|---|---|");
    let mut all_met = true;
    for (index, rules) in rules.iter().enumerate() {
        let (name, addresses, ports) = match *rules {
            Rules::One => ("one REDIRECT", 0, 0),
            Rules::Installed(backend, addresses, ports) => (backend.name(), addresses, ports),
        };
        let seconds = rounds.of(index, |seconds| *seconds);
        let (rate, ratio) = (1.0 / seconds.median, seconds.as_rate());
        let (least, met) = match rules {
            Rules::Installed(Backend::Nftables, ..) => (LEAST.to_string(), seconds.rate() >= LEAST),
            _ => ("-".to_owned(), true),
        };
        all_met &= met;
        let missed = if met { "" } else { " MISSED" };
        println!("| {name} | {addresses} | {ports} | {rate:.0} | {ratio} | {least} |{missed}");
    }
    Ok(all_met)
}

/// A host with these rules, and what listens there.
fn host(lab: &Lab, rules: Rules) -> Result<(Namespace, TcpListener), String> {
    lab.host()?;
    for end in ["wire", "eth0"] {
        must("ip", ["link", "set", end, "up"])?;
    }
    match rules {
        Rules::One => {
            let port = OUTBOUND.port().to_string();
            must(
                "iptables-nft",
                ["-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-j", "REDIRECT", "--to-ports", &port],
            )?;
        }
        Rules::Installed(backend, addresses, ports) => {
            let config = lab.keep("lists.yaml", &exclusions::config(addresses, ports))?;
            timed(lab.tproxy(backend, &["install"]).arg("--config").arg(config))?;
        }
    }
    let listener = TcpListener::bind(OUTBOUND).map_err(|error| format!("{OUTBOUND}: {error}"))?;
    Ok((Namespace::current().map_err(|error| error.to_string())?, listener))
}

/// Seconds for a connection from its begin to its end. The kernel answers the client before anybody accepts, so one
/// thread is both ends, and no time goes into waking the other one up.
fn connections(listener: &TcpListener) -> io::Result<f64> {
    let start = Instant::now();
    for _ in 0..CONNECTIONS {
        let mut client = TcpStream::connect(NOBODY)?;
        let (server, peer) = listener.accept()?;
        if peer != client.local_addr()? {
            return Err(io::Error::other("somebody else came"));
        }
        drop(server);
        if client.read(&mut [0])? != 0 {
            return Err(io::Error::other("nobody said anything"));
        }
    }
    Ok(start.elapsed().as_secs_f64() / f64::from(CONNECTIONS))
}

//! A host with rules and a sidecar, and a server in front of it.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _};

use tproxy::sidecar::Sidecar;
use tproxy::sys::netns::Namespace;

use crate::client::Sample;
use crate::server;
use crate::sidecar::{self, Envoy};
use crate::support::clock::{must, timed};
use crate::support::lab::{Backend, Lab};

/// The server's address. Of all excluded ports this is the last one, so its packets meet every rule for ports.
const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), 65_000);

/// What is between the client and the server. The number is how many ports are excluded besides the server's.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    /// Nothing.
    Free,
    /// Rules, which exclude the server's port.
    Excluded(Backend, u16),
    /// Rules and the demo's sidecar.
    Demo(Backend, u16),
    /// Rules and Envoy.
    Envoy(Backend, u16),
}

impl Way {
    /// How many ports are excluded besides the server's.
    pub const fn ports(self) -> Option<u16> {
        match self {
            Self::Free => None,
            Self::Excluded(_, ports) | Self::Demo(_, ports) | Self::Envoy(_, ports) => Some(ports),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Free => "no rules",
            Self::Excluded(..) => "rules, excluded",
            Self::Demo(..) => "demo sidecar",
            Self::Envoy(..) => "Envoy",
        })
    }
}

/// It, for as long as this value is.
pub struct Place {
    /// The way to the server.
    pub way: Way,
    host: Namespace,
    _demo: Option<Sidecar>,
    _envoy: Option<Envoy>,
}

impl Place {
    /// Makes it.
    pub fn make(lab: &Lab, way: Way) -> Result<Self, String> {
        lab.host()?;
        let host = Namespace::current().map_err(|e| e.to_string())?;
        connect_server()?;
        let (mut demo, mut envoy) = (None, None);
        match way {
            Way::Free => {}
            Way::Excluded(backend, ports) => install(lab, backend, ports, Some(SERVER.port()))?,
            Way::Demo(backend, ports) => {
                install(lab, backend, ports, None)?;
                demo = Some(sidecar::demo().map_err(|e| format!("the demo's sidecar: {e}"))?);
            }
            Way::Envoy(backend, ports) => {
                install(lab, backend, ports, None)?;
                envoy = Some(Envoy::start(lab)?);
            }
        }
        Ok(Self { way, host, _demo: demo, _envoy: envoy })
    }

    /// Takes a sample, as a process of the host.
    pub fn measure(&self) -> Result<Sample, String> {
        let redirected = matches!(self.way, Way::Demo(..) | Way::Envoy(..));
        let sample = self.host.run(|| Sample::take(SERVER, redirected));
        sample.and_then(|sample| sample).map_err(|error| format!("{}: {error}", self.way))
    }
}

/// Moves the other end of the host's interface into a network namespace of its own, and starts the server there.
fn connect_server() -> Result<(), String> {
    let outside = Namespace::make().map_err(|e| format!("a network namespace for the server: {e}"))?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), outside.as_fd().as_raw_fd());
    must("ip", ["link", "set", "wire", "netns", &path])?;
    must("ip", ["link", "set", "eth0", "up"])?;
    let started = outside.run(|| {
        let network = format!("{}/24", SERVER.ip());
        must("ip", ["addr", "add", &network, "dev", "wire"])?;
        must("ip", ["link", "set", "wire", "up"])?;
        server::start(SERVER).map_err(|e| e.to_string())
    });
    started.map_err(|e| e.to_string())?.map_err(|e| format!("the server: {e}"))
}

fn install(lab: &Lab, backend: Backend, ports: u16, last: Option<u16>) -> Result<(), String> {
    // No two are neighbours, so that they are no ranges.
    let excluded: Vec<_> = (0..ports).map(|n| 10_000 + 2 * n).chain(last).map(|n| n.to_string()).collect();
    let mut command = lab.tproxy(backend, &["install"]);
    if !excluded.is_empty() {
        command.args(["--exclude-outbound-ports", &excluded.join(",")]);
    }
    timed(&mut command).map(|_| ())
}

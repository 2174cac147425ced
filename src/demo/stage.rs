//! The hosts: A, to which this process has moved and on which everything is installed, and B behind a cable. Where
//! there is only one user, a container of host A too.

use std::io;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use super::addresses::{GUEST, address, bits, far, gate, near};
use crate::exit::{Exit, Failure};
use crate::plan::Family;
use crate::present::demo::Cast;
use crate::sys::netlink::link;
use crate::sys::netns::Namespace;
use crate::sys::rights::{self, Right};
use crate::sys::user;

/// How long interfaces may take to get ready; it is milliseconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// What host A calls its end of the cable to host B, and every other machine its only one.
const OUTSIDE: &str = "eth0";

/// Users that are good to have beside root: the sidecar, numbered as by Kuma's packages, and the app.
pub const USERS: [u32; 2] = [5678, 1000];

/// What it takes to build hosts and to be their users.
pub const RIGHTS: [Right; 4] = [Right::NetAdmin, Right::NetRaw, Right::SetUid, Right::SysAdmin];

/// Two ends of a cable.
#[derive(Debug, Clone, Copy)]
struct Ends {
    here: IpAddr,
    there: IpAddr,
}

/// The hosts.
#[derive(Debug)]
pub struct Stage {
    /// Who is who.
    pub cast: Cast,
    far: Namespace,
    guest: Option<Namespace>,
}

impl Stage {
    /// Builds them around this process, which has left its host.
    ///
    /// # Errors
    /// The kernel lacks something, such as this kind of interface.
    pub fn build() -> Result<Self, Failure> {
        Self::try_build().map_err(|error| {
            let failure =
                Failure::new(Exit::Host, format!("no two hosts with a cable can be made here: {error}"));
            failure.hint(match error.kind() {
                io::ErrorKind::PermissionDenied => rights::remedy(&RIGHTS),
                _ => "the kernel has to have network namespaces and virtual cables (the module veth)"
                    .to_owned(),
            })
        })
    }

    fn try_build() -> io::Result<Self> {
        let mapped = |uid: &u32| user::is_mapped(*uid).unwrap_or(false);
        let sidecar = [USERS[0], 1].into_iter().find(mapped);
        let app = [USERS[1], 2].into_iter().find(mapped);
        let mut families = vec![Family::V4];
        let other = Namespace::make()?;
        link::bring_up("lo")?;
        lay(OUTSIDE, &other)?;
        connect(OUTSIDE, &other, Ends { here: near(Family::V4), there: far(Family::V4) })?;
        // A machine can be without IPv6, or keep its sockets from us, and most of this can be shown all the same.
        let sockets = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        let ends = Ends { here: near(Family::V6), there: far(Family::V6) };
        if sockets && connect(OUTSIDE, &other, ends).is_ok() {
            families.push(Family::V6);
        }
        // Rules tell the sidecar by its user. Where there is but one, the app's traffic has to come from elsewhere.
        let guest = if sidecar.is_none() { Some(invite(&other, &families)?) } else { None };
        let cast = Cast {
            app: app.unwrap_or(0),
            sidecar: sidecar.unwrap_or(0),
            guest: guest.is_some().then(|| families.iter().map(|family| address(*family, 1, 2)).collect()),
            near: families.iter().copied().map(near).collect(),
            far: families.iter().copied().map(far).collect(),
            families,
        };
        Ok(Self { cast, far: other, guest })
    }

    /// Does something on host B.
    ///
    /// # Errors
    /// Its namespace cannot be entered.
    pub fn on_host_b<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        self.far.run(work)
    }

    /// Does something as the app, where its connections begin.
    ///
    /// # Errors
    /// The kernel does not let us be the app.
    pub fn as_app<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        match &self.guest {
            Some(guest) => guest.run(work),
            None => user::run_as(self.cast.app, work),
        }
    }
}

/// A cable from here to another machine, which knows its end as [`OUTSIDE`].
fn lay(device: &str, other: &Namespace) -> io::Result<()> {
    link::add_pair(device, OUTSIDE, other.as_fd(), [2, 0, 0, 0, 0, 1])?;
    link::loosen_source_check(device)?;
    // A kernel without IPv6 needs none of this.
    let _ = link::without_link_local(device);
    let deadline = Instant::now() + PATIENCE;
    other.run(|| {
        let _ = link::without_link_local(OUTSIDE);
        link::bring_up("lo")?;
        link::bring_up(OUTSIDE)
    })??;
    link::bring_up(device)?;
    link::wait_until_running(device, deadline)?;
    other.run(|| link::wait_until_running(OUTSIDE, deadline))?
}

fn connect(device: &str, other: &Namespace, ends: Ends) -> io::Result<()> {
    let bits = if ends.here.is_ipv4() { 32 } else { 128 };
    link::add_address(device, ends.here)?;
    link::add_route(device, ends.there, bits, 0)?;
    other.run(|| {
        link::add_address(OUTSIDE, ends.there)?;
        link::add_route(OUTSIDE, ends.here, bits, 0)
    })?
}

/// A container on host A, for which host A forwards.
fn invite(other: &Namespace, families: &[Family]) -> io::Result<Namespace> {
    let guest = Namespace::make()?;
    lay(GUEST, &guest)?;
    for &family in families {
        connect(GUEST, &guest, Ends { here: gate(family), there: address(family, 1, 2) })?;
        guest.run(|| link::add_route(OUTSIDE, near(family), bits(family), 0))??;
        other.run(|| link::add_route(OUTSIDE, address(family, 1, 0), bits(family), 0))??;
        std::fs::write(
            match family {
                Family::V4 => "/proc/sys/net/ipv4/ip_forward",
                Family::V6 => "/proc/sys/net/ipv6/conf/all/forwarding",
            },
            "1",
        )?;
    }
    Ok(guest)
}

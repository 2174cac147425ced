//! Two verifications at once.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use super::verify;
use crate::support::command::must;
use crate::support::firewall::Family;
use crate::support::lab::each_backend;
use crate::support::mesh::Mesh;
use crate::support::tracer::{Then, trace};
use crate::support::{APP, Lab, Variant, as_user, names};

/// Somebody who verifies, for as long as this value lives.
fn another() -> UnixListener {
    let address = SocketAddr::from_abstract_name("tproxy verify").expect("a name");
    UnixListener::bind_addr(&address).expect("nobody else verifies here")
}

each_backend! {
    /// What one of them listens on is no sidecar to the other.
    fn neither_takes_the_other_for_a_sidecar(lab, backend) {
        lab.install(backend, &["--redirect-dns"]).succeeds();
        for with_sidecar in [false, true] {
            let sidecar = with_sidecar.then(|| [Mesh::new(lab, Family::V4), Mesh::new(lab, Family::V6)]);
            let both = [(); 2].map(|()| lab.program().args(["verify", "-o", "json"]).start());
            let method = if with_sidecar { "counters" } else { "listeners" };
            for run in both {
                run.finish().exits(0).prints(&format!("\"method\": \"{method}\""));
            }
            drop(sidecar);
        }
    }
}

#[test]
fn one_that_takes_too_long_is_not_waited_for() {
    Lab::enter(|lab| {
        lab.install(Variant::Nft, &[]).succeeds();
        let Some(other) = names::take_as_a_run(names::VERIFICATION) else { return };
        let run = lab.program().arg("verify").run();
        run.exits(4)
            .says("another verification is under way in this network namespace")
            .says("when that one has ended");
        drop(other);
        verify(lab, &[]).all_pass();
    });
}

/// It waits before it changes anything, so that there is nothing to take back.
#[test]
fn an_installation_waits_for_it() {
    Lab::enter(|lab| {
        let other = another();
        let installing = lab.installing(Variant::Nft, &["--verify"]).start();
        drop(other);
        installing.finish().succeeds();
        assert!(crate::support::Backend::from(Variant::Nft).has_ours(Family::V4));
    });
}

/// An ordinary user cannot keep root from verifying.
#[test]
fn a_stranger_is_not_waited_for() {
    Lab::enter(|lab| {
        lab.install(Variant::Nft, &[]).succeeds();
        let _stranger = as_user(APP, another);
        let said = verify(lab, &[]);
        said.all_pass();
        assert!(said.run.stderr.contains(&format!("user {APP} has taken its name")), "{}", said.run.stderr);
    });
}

/// The kernel removes the interfaces of a proof that was killed on the side. Until then every address would be in use.
#[test]
fn what_is_left_of_a_killed_one_is_waited_for() {
    Lab::enter(|lab| {
        lab.install(Variant::Nft, &[]).succeeds();
        let link = |line: &str| must("ip", &line.split(' ').collect::<Vec<_>>());
        link("link add tpv01234567 address 02:74:70:00:00:01 type veth peer name tpvpeer");
        for end in ["tpv01234567", "tpvpeer"] {
            link(&format!("link set {end} up"));
        }
        for network in ["192.0.2.1/24", "198.51.100.1/24", "203.0.113.1/24"] {
            link(&format!("addr add {network} dev tpv01234567"));
        }
        let mut left = true;
        let run = trace(&lab.program().args(["verify", "-o", "json"]), |call, _| {
            if call.number == libc::SYS_clock_nanosleep && left {
                left = false;
                link("link del tpv01234567");
            }
            Then::GoOn
        });
        let run = run.exits(0);
        assert!(!left && !run.stdout.contains("documentation address is in use"), "{run}");
    });
}

//! A hundred reinstalls under load, and not one connection goes anywhere else.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::lab::each_backend;
use crate::support::load::{Load, PATIENCE, Report};
use crate::support::mesh::{APP_PORT, Mesh};
use crate::support::{APP, Family, Lab, as_user};

const REINSTALLS: usize = 100;

/// Between two connections of each of the four loads.
const EVERY: Duration = Duration::from_micros(700);

const FIRST: [&str; 3] = ["--redirect-dns", "--exclude-outbound-ports", "7001"];
const SECOND: [&str; 4] =
    ["--exclude-inbound-ports", "7002", "--exclude-outbound-ips", "198.51.100.0/24,2001:db8:77::/64"];

/// Load of one family: applications of the machine go out, the neighbour comes in.
struct Loads {
    family: Family,
    out: Load,
    into: Load,
    _mesh: Mesh,
}

impl Loads {
    fn start(lab: &Lab, family: Family) -> Self {
        let mesh = Mesh::new(lab, family);
        let outside = SocketAddr::new(family.outside(), 443);
        let host = SocketAddr::new(family.host(), APP_PORT);
        let out = as_user(APP, move || Load::start(outside, EVERY));
        let into = lab.peer().run(move || Load::start(host, EVERY));
        Self { family, out, into, _mesh: mesh }
    }

    /// What became of those that went out, and of those that came in.
    fn finish(self, patience: Duration) -> (Family, Report, Report) {
        self.out.stop();
        self.into.stop();
        (self.family, self.out.finish(patience), self.into.finish(patience))
    }
}

each_backend! {
    fn nothing_slips_through_a_hundred_reinstalls(lab, backend) {
        lab.install(backend, &FIRST).succeeds();
        let loads = Family::BOTH.map(|family| Loads::start(lab, family));
        for number in 0..REINSTALLS {
            let run = lab.install(backend, if number % 2 == 0 { &SECOND } else { &FIRST }).succeeds();
            assert!(!run.stdout.contains("nothing was written"), "{run}");
        }
        let reports = loads.map(|loads| loads.finish(PATIENCE));
        for (family, out, into) in &reports {
            println!("{} {family:?} out: {out}", backend.name());
            println!("{} {family:?} in:  {into}", backend.name());
        }
        for (_, out, into) in &reports {
            out.assert_all_met("outbound");
            into.assert_all_met("inbound");
        }
    }

    /// The load sees a hole: this is what a cleanup before an install looks like.
    fn an_uninstall_in_between_is_seen(lab, backend) {
        lab.install(backend, &FIRST).succeeds();
        let loads = Loads::start(lab, Family::V4);
        for _ in 0..3 {
            lab.uninstall(backend, &[]).succeeds();
            lab.install(backend, &FIRST).succeeds();
        }
        let (_, out, into) = loads.finish(Duration::ZERO);
        println!("{} with holes, out: {out}", backend.name());
        println!("{} with holes, in:  {into}", backend.name());
        assert!(out.escaped("outbound") > 0, "{out}");
        assert!(into.escaped("inbound") > 0, "{into}");
    }
}

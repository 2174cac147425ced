//! A hundred reinstalls under load, and not one connection goes anywhere else.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::backend::own_table_handle;
use crate::support::kumactl::{Kumactl, Version};
use crate::support::lab::{each_backend, each_iptables_variant};
use crate::support::load::{Load, PATIENCE, Report};
use crate::support::mesh::{APP_PORT, Mesh};
use crate::support::{APP, Backend, Family, Lab, as_user, firewall};

const REINSTALLS: usize = 100;

/// How often rules move there and back.
const MOVES: usize = 10;

/// Between two connections of each of the loads. Four loads that start twice as many leave a busy machine of two
/// processors nothing to install with; this still puts a connection into most holes of two milliseconds, and there would
/// be a hundred of them.
const EVERY: Duration = Duration::from_millis(2);

const FIRST: [&str; 3] = ["--redirect-dns", "--exclude-outbound-ports", "7001"];
const SECOND: [&str; 4] =
    ["--exclude-inbound-ports", "7002", "--exclude-outbound-ips", "198.51.100.0/24,2001:db8:77::/64"];

/// Lists alone that differ. One entry, [`EXCLUDED`], is in both, but each time in another interval.
const LISTS: [[&str; 4]; 2] = [
    ["--exclude-outbound-ports", "7000,7001", "--exclude-outbound-ips", "198.51.100.0/24,2001:db8:77::/64"],
    [
        "--exclude-outbound-ports",
        "7001,7002,9000",
        "--exclude-outbound-ips",
        "198.51.0.0/16,2001:db8:78::/64",
    ],
];
const EXCLUDED: u16 = 7001;

/// Load of one family, each with who has to answer.
struct Loads {
    family: Family,
    all: Vec<(&'static str, Load)>,
    _mesh: Mesh,
}

impl Loads {
    /// Applications of the machine go out, the neighbour comes in.
    fn both_ways(lab: &Lab, family: Family) -> Self {
        let mut loads = Self::out(lab, family, &[("outbound", 443)]);
        let host = SocketAddr::new(family.host(), APP_PORT);
        loads.all.push(("inbound", lab.peer().run(move || Load::start(host, EVERY))));
        loads
    }

    /// Applications go to these ports.
    fn out(lab: &Lab, family: Family, ports: &[(&'static str, u16)]) -> Self {
        let mesh = Mesh::new(lab, family);
        let load = |&(wanted, port): &(&'static str, u16)| {
            let outside = SocketAddr::new(family.outside(), port);
            (wanted, as_user(APP, move || Load::start(outside, EVERY)))
        };
        Self { family, all: ports.iter().map(load).collect(), _mesh: mesh }
    }

    /// What became of each.
    fn finish(self, patience: Duration) -> Vec<(&'static str, Report)> {
        for (_, load) in &self.all {
            load.stop();
        }
        let family = self.family;
        let finish = |(wanted, load): (_, Load)| {
            let report = load.finish(patience);
            println!("{family:?} {wanted}: {report}");
            (wanted, report)
        };
        self.all.into_iter().map(finish).collect()
    }

    /// Every connection of every load was answered by whom it should.
    #[track_caller]
    fn assert_all_met(all: impl IntoIterator<Item = Self>) {
        let reports: Vec<_> = all.into_iter().map(|loads| loads.finish(PATIENCE)).collect();
        for (wanted, report) in reports.iter().flatten() {
            report.assert_all_met(wanted);
        }
    }
}

each_backend! {
    fn nothing_slips_through_a_hundred_reinstalls(lab, backend) {
        lab.install(backend, &FIRST).succeeds();
        let table = own_table_handle();
        let loads = Family::BOTH.map(|family| Loads::both_ways(lab, family));
        for number in 0..REINSTALLS {
            let run = lab.install(backend, if number % 2 == 0 { &SECOND } else { &FIRST }).succeeds();
            assert!(!run.stdout.contains("nothing was written"), "{run}");
        }
        Loads::assert_all_met(loads);
        // A native table was another one each time.
        assert_eq!(own_table_handle().is_some(), backend == Backend::Nftables);
        assert!(table.is_none() || own_table_handle() != table);
    }

    /// The load sees a hole: this is what a cleanup before an install looks like.
    fn an_uninstall_in_between_is_seen(lab, backend) {
        lab.install(backend, &FIRST).succeeds();
        let loads = Loads::both_ways(lab, Family::V4);
        for _ in 0..3 {
            lab.uninstall(backend, &[]).succeeds();
            lab.install(backend, &FIRST).succeeds();
        }
        for (wanted, report) in loads.finish(Duration::ZERO) {
            assert!(report.escaped(wanted) > 0, "{wanted}: {report}");
        }
    }
}

/// Lists of the native table change in their sets. What is in the list before and after is never out of it, and
/// nothing else is ever in it.
#[test]
fn nothing_slips_through_while_lists_change() {
    Lab::enter(|lab| {
        lab.install(Backend::Nftables, &LISTS[0]).succeeds();
        let table = own_table_handle();
        let ports = [("outbound", 443), ("world", EXCLUDED)];
        let loads = Family::BOTH.map(|family| Loads::out(lab, family, &ports));
        for number in 1..=REINSTALLS {
            let run = lab.install(Backend::Nftables, &LISTS[number % 2]).succeeds();
            assert!(!run.stdout.contains("nothing was written"), "{run}");
        }
        Loads::assert_all_met(loads);
        assert_eq!(own_table_handle(), table, "it was another table meanwhile");
    });
}

// Between the programs of iptables and the native table.
each_iptables_variant! {
    fn nothing_slips_through_while_rules_move(lab, variant) {
        lab.install(variant, &FIRST).succeeds();
        let loads = Family::BOTH.map(|family| Loads::both_ways(lab, family));
        let back = [&FIRST[..], &["--backend", "iptables"]].concat();
        for _ in 0..MOVES {
            lab.install(Backend::Nftables, &FIRST).succeeds();
            assert_eq!(Backend::installed(), [Backend::Nftables]);
            lab.install(variant, &back).succeeds();
            assert_eq!(Backend::installed(), [variant.into()]);
        }
        Loads::assert_all_met(loads);
    }

    fn nothing_slips_through_while_it_takes_over_from_a_kumactl(lab, variant) {
        let kumactl = Kumactl { version: Version::V2_14, dns: true };
        kumactl.install(variant);
        let loads = Family::BOTH.map(|family| Loads::both_ways(lab, family));
        for _ in 0..MOVES {
            lab.install(Backend::Nftables, &["--redirect-all-dns-traffic"]).succeeds();
            assert_eq!(Backend::installed(), [Backend::Nftables]);
            // For the next time; no way that anybody goes.
            kumactl.install(variant);
            firewall::nft("delete table inet kuma_mesh");
        }
        Loads::assert_all_met(loads);
    }
}

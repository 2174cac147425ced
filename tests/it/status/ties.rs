//! Others at the same hook with the priority of ours.

use crate::support::lab::{each_backend, each_stack};
use crate::support::mesh::{APP_PORT, Mesh};
use crate::support::{APP, Backend, Family, Lab, firewall};

use super::{install, report, status};

/// Where the last rules of a backend stand.
fn priority(backend: Backend) -> i32 {
    if backend == Backend::Nftables { -95 } else { -100 }
}

/// A table of somebody's, made anew.
fn theirs(backend: Backend, family: Family, hook: &str, more: &str) {
    let (nft, priority) = (family.nft(), priority(backend));
    firewall::nft(&format!(
        "table {nft} handmade\ndelete table {nft} handmade\ntable {nft} handmade {{\n{more}\nchain c {{\ntype nat hook \
         {hook} priority {priority}\ntcp dport 8081 redirect to :{APP_PORT}\n}}\n}}\n"
    ));
}

/// Whether packets meet theirs first, at both hooks, and that status says just this.
#[track_caller]
fn agree(lab: &Lab, mesh: &Mesh, backend: Backend, family: Family, hook: &str) -> bool {
    let by = match hook {
        "output" => mesh.connect(APP, family.outside(), 8081),
        _ => mesh.visit(lab, 8081),
    };
    assert!(["app", "inbound", "outbound"].contains(&by.as_str()), "{by}");
    let first = by == "app";
    // Of a legacy table, this is told by newer kernels alone.
    let tells = !matches!(backend, Backend::Iptables(firewall::Variant::Legacy));
    let found = report(lab, if first || !tells { 11 } else { 0 }, &[]);
    let ahead = found["ahead"].as_array().expect("a list");
    if ahead.is_empty() {
        assert!(!first, "{found:#}");
        let notes = found["notes"].to_string();
        assert!(notes.contains("handmade") && notes.contains("restart"), "{found:#}");
    } else {
        assert_eq!((ahead.len(), ahead[0]["certain"].as_bool()), (1, Some(tells)), "{found:#}");
    }
    first
}

each_stack! {
    fn status_says_who_comes_first_by_packets(lab, backend, family) {
        let mesh = Mesh::new(lab, family);
        for hook in ["output", "prerouting"] {
            theirs(backend, family, hook, "");
            install(lab, backend);
            let installed_later = agree(lab, &mesh, backend, family, hook);
            // Made again, theirs come first, whoever was first before.
            theirs(backend, family, hook, "");
            assert!(agree(lab, &mesh, backend, family, hook));
            if backend == Backend::Nftables {
                assert!(!installed_later);
            }
            let _ = lab.uninstall(backend, &[]).succeeds();
            // What iptables leaves behind would be older than what it is compared with.
            firewall::nft("flush ruleset\n");
        }
    }

    fn a_dormant_table_takes_nothing(lab, backend, family) {
        let mesh = Mesh::new(lab, family);
        install(lab, backend);
        theirs(backend, family, "prerouting", "flags dormant");
        assert_eq!(mesh.visit(lab, 8081), "inbound");
        let found = report(lab, 0, &[]);
        assert_eq!(found["notes"].as_array().map(Vec::len), Some(0), "{found:#}");
    }
}

each_backend! {
    fn an_installation_says_who_comes_first(lab, backend) {
        theirs(backend, Family::V4, "output", "");
        let run = lab.install(backend, &["--redirect-dns"]).succeeds();
        let run = run.says("chain c at priority").says("part of IPv4 outgoing TCP");
        let _ = match backend {
            Backend::Nftables => run.says("as by a restart of the program"),
            Backend::Iptables(_) => run.says("come"),
        };
    }
}

#[test]
fn a_chain_that_came_after_its_table_is_not_guessed() {
    Lab::enter(|lab| {
        let (nft, family) = (Backend::NFT, Family::V4);
        let mesh = Mesh::new(lab, family);
        let masquerade = "*nat\n-A POSTROUTING -s 10.9.9.9/32 -j ACCEPT\nCOMMIT\n";
        firewall::restore(firewall::Variant::Nft, family, masquerade);
        theirs(nft, family, "output", "");
        install(lab, nft);
        let first = mesh.connect(APP, family.outside(), 8081) == "app";
        let found: serde_json::Value =
            serde_json::from_str(&status(lab, &["-o", "json"]).stdout).expect("a report");
        let said = &found["ahead"][0]["certain"];
        let right = if first { said.as_bool() == Some(true) } else { said.is_null() };
        assert!(right || said.as_bool() == Some(false), "{first}: {found:#}");
    });
}

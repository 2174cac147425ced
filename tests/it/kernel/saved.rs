//! Copies of rules in files that others load at a start are named, wherever an installation is or was.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};

use crate::kernel::host_files::own_etc;
use crate::support::command::{Program, must};
use crate::support::lab::{each_backend, each_iptables_variant};
use crate::support::{Backend, Family, Lab, firewall};

const NFTABLES_CONF: &str = "/etc/nftables.conf";

/// Without the machine's own such files.
fn empty_etc(lab: &Lab) {
    own_etc(lab);
    for dir in ["/etc/iptables", "/etc/sysconfig", "/etc/ufw", "/etc/nft.d"] {
        let _ = fs::remove_dir_all(dir);
        fs::create_dir_all(dir).expect("a private /etc");
    }
    for file in [NFTABLES_CONF, "/etc/nftables.nft", "/etc/iptables.up.rules"] {
        let _ = fs::remove_file(file);
    }
    must("mount", &["-t", "tmpfs", "tmpfs", "/var/lib"]);
    for dir in ["iptables", "ip6tables", "nftables"] {
        fs::create_dir(Path::new("/var/lib").join(dir)).expect("a private /var/lib");
    }
}

fn put(path: &str, text: &str) {
    fs::write(path, text).expect("a private /etc");
}

/// Where a text is an installation's, as a person would count.
fn lines(text: &str) -> (usize, usize) {
    let ours = |line: &str| line.contains("KUMA_MESH") || line.contains("kuma/mesh/transparent/proxy");
    let mut numbers = text.lines().enumerate().filter(|(_, line)| ours(line)).map(|(at, _)| at + 1);
    let first = numbers.next().expect("rules of ours");
    (first, numbers.last().unwrap_or(first))
}

/// What status and uninstall say of saved copies; both say it in words too.
#[track_caller]
fn named(lab: &Lab, backend: Backend, uninstall: bool) -> Value {
    let json = |program: Program| {
        let run = program.args(["-o", "json"]).run();
        (serde_json::from_str::<Value>(&run.stdout).expect("JSON")["saved"].clone(), run)
    };
    let (saved, _) = json(lab.program().arg("status"));
    // Lines are wrapped.
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let said = |text: &str| {
        for copy in saved.as_array().expect("a list").iter().filter(|copy| copy["error"].is_null()) {
            let file = copy["file"].as_str().expect("a file");
            let words = format!("are saved in {file}, lines {} to {};", copy["firstLine"], copy["lastLine"]);
            assert!(one_line(text).contains(&words), "{words}: {text}");
        }
    };
    said(&lab.program().arg("status").run().stdout);
    if uninstall {
        let (again, run) = json(lab.uninstalling(backend, &[]));
        assert_eq!(again, saved, "{run}");
        said(&run.succeeds().stderr);
        // The closing words are not those of a clean host.
        let run = lab.uninstalling(backend, &[]).run();
        let known = saved.as_array().expect("a list").iter().any(|copy| copy["error"].is_null());
        assert_eq!(one_line(&run.stdout).contains("which come back when"), known, "{run}");
        assert_eq!(run.stdout.contains("successfully"), !known, "{run}");
    }
    saved
}

fn status(lab: &Lab) -> Value {
    let run = lab.program().args(["status", "-o", "json"]).run();
    serde_json::from_str(&run.stdout).expect("JSON")
}

each_iptables_variant! {
    fn every_place_of_a_saved_rule_set_is_looked_at(lab, variant) {
        empty_etc(lab);
        let backend = Backend::from(variant);
        firewall::iptables(variant, Family::V4, "-A INPUT -p tcp --dport 81 -j ACCEPT").succeeds();
        let theirs = firewall::save(variant, Family::V4);
        lab.install(variant, &["--redirect-dns"]).succeeds();
        let [four, six] = Family::BOTH.map(|family| firewall::save(variant, family));
        let with_four = ["/etc/iptables/rules.v4", "/etc/sysconfig/iptables", "/etc/ufw/before.rules", "/var/lib/iptables/rules-save"];
        let with_six = ["/etc/iptables/rules.v6", "/etc/sysconfig/ip6tables", "/etc/ufw/before6.rules", "/var/lib/ip6tables/rules-save"];
        for (paths, text) in [(with_four, &four), (with_six, &six)] {
            for path in paths {
                put(path, text);
            }
        }
        put("/etc/ufw/after.rules", &theirs);
        let found = named(lab, backend, true);
        let all = found.as_array().expect("a list");
        assert_eq!(all.len(), 8, "{found:#}");
        for (paths, (first, last)) in [(with_four, lines(&four)), (with_six, lines(&six))] {
            assert!(first < last);
            for path in paths {
                let entry = json!({ "file": path, "firstLine": first, "lastLine": last, "error": null });
                assert!(all.contains(&entry), "{entry}: {found:#}");
            }
        }
        // Nothing is installed any more, and they still come back.
        assert_eq!(named(lab, backend, true), found);
        // They do: then nobody knows whose they are.
        let restore = firewall::path(variant, Family::V4, "-restore");
        must("sh", &["-c", &format!("{} < /etc/iptables/rules.v4", restore.display())]);
        let found = status(lab);
        assert_eq!(found["installedBy"]["program"], "unknown", "{found:#}");
        let _ = lab.program().arg("status").run().prints("unknown: kumactl, or restored from a file");
    }
}

each_backend! {
    fn what_a_configuration_of_nft_includes_is_looked_at(lab, backend) {
        empty_etc(lab);
        lab.install(backend, &["--redirect-dns"]).succeeds();
        let listed = must("nft", &["list", "ruleset"]);
        put("/etc/nft.d/20-rules.nft", &listed);
        put("/etc/nft.d/10-loop.nft", "include \"/etc/nftables.conf\"\n");
        put("/etc/nft.d/rules.nft.bak", &listed);
        put(NFTABLES_CONF, "#!/usr/sbin/nft -f\nflush ruleset\ninclude \"nft.d/*.nft\"\n");
        symlink("/etc/nft.d/20-rules.nft", "/etc/nft.d/30-link.nft").expect("a private /etc");
        let found = named(lab, backend, false);
        let all = found.as_array().expect("a list");
        if backend == Backend::LEGACY {
            // What nft does not see is not in its files.
            return assert!(!listed.contains("KUMA_MESH") && all.is_empty(), "{found:#}");
        }
        // Once, and by the lines of what is an installation's.
        assert_eq!((all.len(), &all[0]["file"]), (1, &json!("/etc/nft.d/20-rules.nft")), "{found:#}");
        let line = |key: &str| {
            let number: usize = all[0][key].as_u64().and_then(|number| number.try_into().ok()).expect("a number");
            listed.lines().nth(number - 1).expect("a line").trim().to_owned()
        };
        let first = if backend == Backend::Nftables { "table inet kuma_mesh {" } else { "chain KUMA_MESH_" };
        assert!(line("firstLine").starts_with(first), "{}: {listed}", line("firstLine"));
        assert_eq!(named(lab, backend, true), found);
        // It comes back, and the record is gone.
        put("/etc/nft.d/10-loop.nft", "");
        if backend == Backend::Nftables {
            must("nft", &["-f", NFTABLES_CONF]);
            let found = status(lab);
            assert_eq!(found["installedBy"]["program"], "unknown", "{found:#}");
        }
        for file in ["20-rules.nft", "30-link.nft"] {
            fs::remove_file(Path::new("/etc/nft.d").join(file)).expect("ours");
        }
        assert_eq!(named(lab, backend, true), json!([]));
    }

    fn what_is_no_file_is_not_waited_for(lab, backend) {
        empty_etc(lab);
        nix::unistd::mkfifo("/etc/iptables/rules.v4", nix::sys::stat::Mode::S_IRUSR).expect("a private /etc");
        symlink("/dev/zero", "/etc/iptables/rules.v6").expect("a private /etc");
        fs::File::create("/etc/sysconfig/iptables").and_then(|file| file.set_len(33 << 20)).expect("a private /etc");
        lab.install(backend, &[]).succeeds();
        let found = named(lab, backend, true);
        let errors: Vec<_> =
            found.as_array().expect("a list").iter().map(|copy| copy["error"].as_str().expect("why")).collect();
        assert_eq!(
            errors,
            ["it is a FIFO, not a regular file", "it is a device, not a regular file", "it is larger than 32 MiB"]
        );
    }
}

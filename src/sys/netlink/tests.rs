//! Against the real kernel, each test in a network namespace that its thread makes.

use super::*;
use crate::sys::netns::testing::apart;
use crate::sys::run::{Command, run};

/// A child inherits the network namespace of the thread that starts it.
fn tool(program: &str, args: &str) -> String {
    let deadline = std::time::Duration::from_secs(20);
    let output = run(&Command::new(program, args.split(' '), deadline)).unwrap();
    assert!(output.success(), "{program} {args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn tables_are_listed_by_family() {
    apart(|| {
        assert_eq!(nft_table_names(Family::V4).unwrap(), [""; 0]);
        for table in ["ip nat", "ip raw", "ip6 mangle", "inet other"] {
            tool("nft", &format!("add table {table}"));
        }
        assert_eq!(nft_table_names(Family::V4).unwrap(), ["nat", "raw"]);
        assert_eq!(nft_table_names(Family::V6).unwrap(), ["mangle"]);
        assert_eq!(nft_inet_table_names().unwrap(), ["other"]);
    });
}

#[test]
fn rules_are_read_of_one_table_alone() {
    apart(|| {
        for table in ["ip nat", "ip filter", "ip6 nat"] {
            tool("nft", &format!("add table {table}"));
            tool("nft", &format!("add chain {table} c"));
            for _ in 0..3 {
                tool(
                    "nft",
                    &format!("add rule {table} c counter comment \"of_{}\"", table.replace(' ', "_")),
                );
            }
        }
        let told = |table| list(&message::list_rules_of(Family::V4, table), |_| Some(())).unwrap().len();
        assert_eq!([told("nat"), told("filter"), told("raw")], [3, 3, 0]);
        let mentioned = |table, text: &str| nft_rules_mention(Family::V4, table, text.as_bytes()).unwrap();
        assert!(mentioned("nat", "of_ip_nat") && mentioned("filter", "of_ip_filter"));
        assert!(!mentioned("nat", "of_ip_filter") && !mentioned("nat", "of_ip6_nat"));
        // A kernel that does not know the filter tells of others too.
        let everything = list(&message::list_rules(Family::V4), |message| {
            Some(message::is_rule_of(message, Family::V4, "filter"))
        });
        assert_eq!(everything.unwrap().into_iter().filter(|of| *of).count(), 3);
    });
}

#[test]
fn a_list_longer_than_one_answer_is_complete() {
    apart(|| {
        let names = (0..2000).map(|i| format!("table_with_a_long_name_{i:04}")).collect::<Vec<_>>();
        let script = format!("add table ip {}\n", names.join("\nadd table ip "));
        let command = Command {
            stdin: script.into_bytes(),
            ..Command::new("nft", ["-f", "-"], std::time::Duration::from_secs(20))
        };
        assert!(run(&command).unwrap().success());
        let mut listed = nft_table_names(Family::V4).unwrap();
        listed.sort_unstable();
        assert!(listed == names, "{} tables listed", listed.len());
    });
}

#[test]
fn addresses_come_and_go_once() {
    apart(|| {
        let six = "::6".parse().unwrap();
        assert!(!remove_address("lo", six, 128).unwrap());
        assert!(add_address("lo", six, 128).unwrap());
        assert!(!add_address("lo", six, 128).unwrap());
        let shown = tool("ip", "-6 addr show dev lo");
        assert!(shown.contains("inet6 ::6/128 scope global nodad"), "{shown}");
        assert!(!shown.contains("tentative"), "{shown}");
        assert!(remove_address("lo", six, 128).unwrap());
        assert!(!remove_address("lo", six, 128).unwrap());
        assert!(!tool("ip", "-6 addr show dev lo").contains("::6/128"));
    });
}

#[test]
fn the_kernels_reasons_arrive() {
    apart(|| {
        let six = "::6".parse().unwrap();
        let errno = |result: io::Result<bool>| result.unwrap_err().raw_os_error();
        assert_eq!(errno(add_address("nowhere", six, 128)), Some(libc::ENODEV));
        assert!(!remove_address("nowhere", six, 128).unwrap());
        assert_eq!(errno(add_address("lo", six, 129)), Some(libc::EINVAL));
        // The setting is the namespace's own.
        tool("sysctl", "-q -w net.ipv6.conf.lo.disable_ipv6=1");
        assert_eq!(errno(add_address("lo", six, 128)), Some(libc::EACCES));
    });
}

/// Of this thread alone: the C library's function would change every thread of the test run.
#[allow(unsafe_code, reason = "there is no wrapper for the call that concerns one thread")]
fn drop_privileges() {
    // SAFETY: setresuid takes three integers and touches no memory of ours.
    Errno::result(unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) }).unwrap();
}

#[test]
fn not_permitted_is_an_error_and_not_an_empty_list() {
    apart(|| {
        drop_privileges();
        assert_eq!(nft_table_names(Family::V4).unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert_eq!(
            add_address("lo", "::6".parse().unwrap(), 128).unwrap_err().raw_os_error(),
            Some(libc::EPERM)
        );
    });
}

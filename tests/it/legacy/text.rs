//! What is read of a table is what its save program prints.

use std::collections::BTreeMap;

use tproxy::backend::iptables::legacy::LegacyTable;
use tproxy::backend::iptables::owned::Ownership;
use tproxy::backend::iptables::save::{Saved, SavedRule, SavedTable, UNREAD};
use tproxy::sys::xtables;

use crate::support::command::must_with;
use crate::support::kumactl::{Kumactl, Version};
use crate::support::{Family, Lab, Variant, firewall};

/// Rules that are read in full, of each family.
const FULL: &str = "*raw
[1:40] -A PREROUTING -i eth0 -p udp -m udp --sport 53 -j NOTRACK
[2:80] -A OUTPUT ! -o lo+ -p tcp -m tcp --sport 1024:65535 ! --dport 80:90 -j CT --notrack
COMMIT
*mangle
:MINE - [0:0]
:THEIRS - [0:0]
[3:120] -A OUTPUT -j MINE
[4:160] -A FORWARD -i eth+ -o very-long-name0 -g THEIRS
[5:200] -A MINE -p 253
[6:240] -A MINE ! -p udp -m owner ! --uid-owner 5678 -j RETURN
[7:280] -A MINE -m owner --uid-owner 1000-1999 -j DROP
COMMIT
*nat
:LAST - [0:0]
:DOCKER - [0:0]
:EMPTY - [0:0]
[8:320] -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
[9:360] -A PREROUTING -m addrtype ! --src-type UNICAST,MULTICAST ! --dst-type LOCAL --limit-iface-in -j DOCKER
[10:400] -A OUTPUT -m comment --comment plain-word -j LAST
[11:440] -A OUTPUT -m comment --comment \"it's \\\"said\\\" so \\\\ here\" -j EMPTY
[12:480] -A OUTPUT -p tcp -m multiport --dports 80,443,8000:8999 -m comment --comment \"two words\" -j DOCKER
[13:520] -A OUTPUT -p udp -m multiport ! --sports 1 -j ACCEPT
[14:560] -A DOCKER -i docker0 -j RETURN
[15:600] -A DOCKER -p tcp -m tcp -j RETURN
[18446744073709551615:1] -A LAST -p udp -m udp ! --sport 1:2 -j ACCEPT
COMMIT
";

/// Those of IPv4 alone.
const FOUR: &str = "*nat
[1:60] -A OUTPUT ! -d 127.0.0.0/8 -j DOCKER
[2:120] -A OUTPUT -s 10.0.0.0/255.0.255.0 -d 203.0.113.9/32 -j DOCKER
[3:180] -A OUTPUT ! -s 0.0.0.0/0 -p icmp -j DOCKER
[4:240] -A DOCKER ! -f
[5:300] -A DOCKER -f
COMMIT
";

/// Those of IPv6 alone.
const SIX: &str = "*nat
[1:60] -A OUTPUT ! -d ::1/128 -j DOCKER
[2:120] -A OUTPUT -s 2001:db8::/32 -d fd00:77::/63 -p ipv6-icmp -j DOCKER
COMMIT
";

/// Rules of which a part is read.
const PARTLY: &str = "*nat
[1:60] -A PREROUTING -p tcp -m tcp --dport 8080 -j REDIRECT --to-ports 1-9
[2:120] -A OUTPUT -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j LAST
[3:180] -A OUTPUT -m owner --gid-owner 5 -m conntrack --ctstate NEW -j LAST
[4:240] -A OUTPUT -m statistic --mode random --probability 0.50000000000 -j RETURN
[5:300] -A LAST -m mark --mark 0x1/0x1 -j MARK --set-xmark 0x4000/0x4000
COMMIT
";

fn numbers(family: Family) -> tproxy::plan::Family {
    match family {
        Family::V4 => tproxy::plan::Family::V4,
        Family::V6 => tproxy::plan::Family::V6,
    }
}

fn read(family: Family, name: &str) -> LegacyTable {
    let xtables::Table { hooks, entries } = xtables::read(numbers(family), name).expect("the kernel tells");
    LegacyTable::decode(numbers(family), name, &hooks, entries).expect("a table")
}

/// Rules with what they counted.
type Rules<'a> = Vec<(&'a str, Option<u64>)>;

/// Chain by chain: whether a hook calls it, and its rules.
fn chains(table: &SavedTable) -> BTreeMap<&str, (bool, Rules<'_>)> {
    table
        .chains
        .iter()
        .map(|chain| {
            let rules = chain.rules.iter().map(|rule| (rule.args.as_str(), rule.packets)).collect();
            (chain.name.as_str(), (chain.builtin, rules))
        })
        .collect()
}

fn printed(family: Family) -> Saved {
    Saved::parse(&firewall::save(Variant::Legacy, family))
}

#[test]
fn it_is_what_the_save_program_prints() {
    Lab::enter(|_| {
        for (family, own) in [(Family::V4, FOUR), (Family::V6, SIX)] {
            firewall::restore(Variant::Legacy, family, FULL);
            firewall::restore(Variant::Legacy, family, own);
            let printed = printed(family);
            assert_eq!(printed.tables.len(), 3);
            for table in &printed.tables {
                let read = read(family, &table.name).saved(true);
                assert_eq!(chains(&read), chains(table), "{family:?} {}", table.name);
            }
        }
    });
}

#[test]
fn what_is_not_read_is_told_to_be_there() {
    Lab::enter(|_| {
        for family in Family::BOTH {
            firewall::restore(Variant::Legacy, family, FULL);
            firewall::restore(Variant::Legacy, family, PARTLY);
            let printed = printed(family);
            let printed = chains(printed.table("nat").expect("a table"));
            let read = read(family, "nat").saved(true);
            let mut partly = 0;
            for (name, (builtin, rules)) in chains(&read) {
                let (also_builtin, all) = &printed[name];
                assert_eq!((builtin, rules.len()), (*also_builtin, all.len()), "{name}");
                for ((text, packets), (whole, same)) in rules.iter().zip(all) {
                    assert_eq!(packets, same, "{whole}");
                    // Every part that is told is a part of the whole.
                    let mut rest = *whole;
                    for part in text.split(UNREAD) {
                        let (_, behind) =
                            rest.split_once(part.trim()).unwrap_or_else(|| panic!("{text}: {whole}"));
                        rest = behind;
                    }
                    partly += usize::from(text.contains(UNREAD));
                    assert!(text.contains(UNREAD) || text == whole, "{text}: {whole}");
                }
            }
            assert_eq!(partly, 3, "{family:?}");
        }
    });
}

#[test]
fn ours_is_what_is_ours_in_its_text() {
    Lab::enter(|_| {
        let ours = |family: Family| {
            ["raw", "mangle", "nat"].map(|name| {
                let table = read(family, name);
                let printed = Saved { tables: vec![printed(family).table(name).expect("a table").clone()] };
                assert_eq!(table.is_ours(), !Ownership::of(&printed, &[]).is_empty(), "{name}");
                table.is_ours()
            })
        };
        let tag = "kuma/mesh/transparent/proxy";
        for family in Family::BOTH {
            firewall::restore(Variant::Legacy, family, FULL);
            assert_eq!(ours(family), [false; 3]);
            // A part of a comment, a chain that begins like ours, and one of ours where ours never are.
            firewall::restore(
                Variant::Legacy,
                family,
                &format!(
                    "*mangle\n:KUMA_MESH_INBOUND - [0:0]\n-A OUTPUT -m comment --comment \"not {tag}\" -j KUMA_MESH_INBOUND\nCOMMIT\n\
                     *nat\n:KUMA_MESH_INBOUND_ - [0:0]\n-A OUTPUT -m comment --comment {tag}s -j KUMA_MESH_INBOUND_\nCOMMIT\n"
                ),
            );
            assert_eq!(ours(family), [false; 3]);
            firewall::restore(
                Variant::Legacy,
                family,
                &format!(
                    "*raw\n-A OUTPUT -p udp -m comment --comment \"{tag}/why\" -j CT --zone 1\nCOMMIT\n"
                ),
            );
            assert_eq!(ours(family), [true, false, false]);
            firewall::restore(Variant::Legacy, family, "*nat\n:KUMA_MESH_OUTBOUND - [0:0]\nCOMMIT\n");
            assert_eq!(ours(family), [true, false, true]);
        }
    });
}

#[test]
fn every_kumactl_is_known() {
    for version in [Version::V2_8, Version::V2_14] {
        Lab::enter(move |_| {
            Kumactl { version, dns: true }.install(Variant::Legacy);
            for family in Family::BOTH {
                assert!(read(family, "nat").is_ours(), "{version:?} {family:?}");
                assert_eq!(read(family, "raw").is_ours(), version > Version::V2_8, "{family:?}");
            }
        });
    }
}

/// Rules move from chain to chain, of the same size in all: no read takes one's rules for another's.
#[test]
fn a_table_that_changes_is_seen_as_it_was_at_one_moment() {
    Lab::enter(|_| {
        let text = |hook: &str| {
            let rules = format!("-A {hook} -p udp -m comment --comment {hook} -j ACCEPT\n").repeat(50);
            format!("*nat\n{rules}COMMIT\n")
        };
        let write = |hook: &str| must_with("iptables-legacy-restore", &[], &text(hook));
        write("OUTPUT");
        let mut seen = BTreeMap::new();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for hook in ["PREROUTING", "OUTPUT", "POSTROUTING"].into_iter().cycle().take(60) {
                    write(hook);
                }
            });
            while !writer.is_finished() {
                let table = read(Family::V4, "nat").saved(false);
                let with: Vec<_> = table.chains.iter().filter(|chain| !chain.rules.is_empty()).collect();
                let [chain] = with.as_slice() else { panic!("{table:?}") };
                assert_eq!(chain.rules.len(), 50);
                let comments = chain.rules.iter().filter_map(SavedRule::comment);
                assert!(comments.eq(std::iter::repeat_n(chain.name.clone(), 50)), "{table:?}");
                *seen.entry(chain.name.clone()).or_insert(0) += 1;
            }
        });
        assert_eq!(seen.len(), 3, "{seen:?}");
    });
}

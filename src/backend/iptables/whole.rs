//! Whether a save program printed all that is ours. One that cannot write, or gets no answer from the kernel, may end
//! with 0 all the same, and what it did not print would count as gone and stay beside the new rules.

use std::collections::BTreeMap;

use crate::exit::{Exit, Failure};
use crate::plan::{Family, OWNER_TAG, OwnChain, Table};
use crate::sys::netlink;

use super::legacy;
use super::lines::lines;
use super::save::Saved;
use super::tools::{Programs, Variant};

/// Compares it with what the kernel has.
///
/// # Errors
/// Something of ours is missing in it, or it ends in the middle.
pub fn check(
    programs: &Programs,
    (variant, family): (Variant, Family),
    text: &str,
    saved: &Saved,
) -> Result<(), Failure> {
    let failure = |what: &str| {
        let message = format!("{} did not print all rules: {what}", programs.save.display());
        Failure::new(Exit::Failed, message).passing(true).hint("run the command again")
    };
    if ends_early(text) {
        return Err(failure("its output ends in the middle of a table"));
    }
    let listed = match variant {
        Variant::Nft => nft(family).map_err(|error| failure(&error.to_string()))?,
        // Where the kernel does not tell, there is nothing to compare.
        Variant::Legacy => {
            let mut listed = legacy::read(family).map(|tables| of(&tables.saved(false))).unwrap_or_default();
            // Not in the words of a program.
            for (_, ours) in &mut listed {
                ours.rules.values_mut().flatten().for_each(|extensions| *extensions = 0);
            }
            listed
        }
    };
    let printed = of(saved);
    let short = |(table, ours): &&(Table, Ours)| {
        let (rules, chains) = printed
            .iter()
            .find(|(of, _)| of == table)
            .map(|(_, printed)| (printed.count(), printed.chains))
            .unwrap_or_default();
        rules < ours.count() || chains < ours.chains
    };
    if let Some((table, _)) = listed.iter().find(short) {
        return Err(failure(&format!("{family} table {} has more of ours", table.name())));
    }
    // Where a program of the nft variant may not ask the kernel whether it knows an extension, it leaves that out, and
    // says nothing.
    let lossy = |(table, ours): &&(Table, Ours)| {
        printed.iter().any(|(of, printed)| of == table && printed.lacks_a_part_of(ours))
    };
    if let Some((table, _)) = listed.iter().find(lossy) {
        let what = format!("it left matches out of rules in the {family} table {}", table.name());
        return Err(not_all_of_each(programs, &what));
    }
    // Or it takes an older layout of it, and prints what is not there.
    let all = saved.tables.iter().flat_map(|table| &table.chains).flat_map(|chain| &chain.rules);
    if all.map(|rule| rule.args.as_str()).any(|args| args.contains(OWNER_TAG) && is_misread(args)) {
        let what = format!("it misread owner matches of {family} rules");
        return Err(not_all_of_each(programs, &what));
    }
    Ok(())
}

/// Whether an owner match is not one that a kernel has: those of sessions, processes and commands went with Linux 2.6.14,
/// and the programs print them of the layout of that time alone.
fn is_misread(args: &str) -> bool {
    const NOW: [&str; 4] = ["--uid-owner", "--gid-owner", "--socket-exists", "--suppl-groups"];
    const GONE: [&str; 3] = ["--sid-owner", "--pid-owner", "--cmd-owner"];
    let has = |options: &[&str]| args.split(' ').any(|word| options.contains(&word));
    args.contains("-m owner") && (has(&GONE) || !has(&NOW))
}

fn not_all_of_each(programs: &Programs, what: &str) -> Failure {
    let message = format!("{} did not print all of each rule: {what}", programs.save.display());
    Failure::new(Exit::Failed, message).passing(true).hint("run the command again")
}

/// What rules of ours are made of.
const EXTENSIONS: [&str; 10] =
    ["tcp", "udp", "comment", "owner", "conntrack", "addrtype", "multiport", "CT", "REDIRECT", "LOG"];

/// Fails where a program could not load an extension that rules of ours are made of: those of the nft variant print
/// each rule without it then, say so, and end with 0. Such a rule is another one, and would be put back as that.
///
/// # Errors
/// A lack that may pass, in the program's words.
pub fn is_said_to_be(programs: &Programs, stderr: &str) -> Result<(), Failure> {
    let Some(words) = lines(stderr).find(|line| names_our_library(line)) else { return Ok(()) };
    Err(not_all_of_each(programs, &crate::text::escape(words.trim())))
}

/// `/usr/lib/xtables/libxt_udp.so: /usr/lib/xtables/libxt_udp.so: cannot open shared object file`
fn names_our_library(line: &str) -> bool {
    let Some((path, _)) = line.split_once(".so: ") else { return false };
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = ["libxt_", "libipt_", "libip6t_"].iter().find_map(|prefix| name.strip_prefix(prefix));
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
}

/// How much of ours is in a table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Ours {
    /// Of how many matches and targets each rule is that has our tag somewhere, in the order of its chain.
    rules: BTreeMap<String, Vec<usize>>,
    chains: usize,
}

impl Ours {
    fn count(&self) -> usize {
        self.rules.values().map(Vec::len).sum()
    }

    /// Whether any rule has less matches and targets than the kernel's has, which has the same rules.
    fn lacks_a_part_of(&self, listed: &Self) -> bool {
        listed.rules.iter().any(|(chain, listed)| {
            let printed = self.rules.get(chain).map(Vec::as_slice).unwrap_or_default();
            // Of chains that changed meanwhile nothing is known.
            printed.len() == listed.len()
                && printed.iter().zip(listed).any(|(printed, listed)| printed < listed)
        })
    }
}

/// Each table ends with `COMMIT`.
fn ends_early(text: &str) -> bool {
    let tables = lines(text).filter(|line| line.starts_with('*')).count();
    let ends = lines(text).filter(|line| line.trim_end() == "COMMIT").count();
    ends < tables
}

fn of(saved: &Saved) -> Vec<(Table, Ours)> {
    let ours = |table: Table| {
        let chains =
            || saved.tables.iter().filter(|saved| saved.name == table.name()).flat_map(|table| &table.chains);
        let mut rules = BTreeMap::<String, Vec<usize>>::new();
        for chain in chains() {
            let own = chain.rules.iter().filter(|rule| rule.args.contains(OWNER_TAG));
            rules.entry(chain.name.clone()).or_default().extend(own.map(|rule| extensions(&rule.args)));
        }
        let chains = chains().filter(|chain| is_own(table, &chain.name)).count();
        (table, Ours { rules, chains })
    };
    Table::ALL.map(ours).to_vec()
}

/// How many matches and targets a printed rule has.
fn extensions(args: &str) -> usize {
    args.split(' ').filter(|word| ["-m", "-j", "-g"].contains(word)).count()
}

fn nft(family: Family) -> std::io::Result<Vec<(Table, Ours)>> {
    let chains = netlink::nft_chain_names(family)?;
    let mut listed = Vec::new();
    for table in Table::ALL {
        let of_it = || chains.iter().filter(|(of, _)| of == table.name());
        if of_it().next().is_some() {
            let mut rules = BTreeMap::<String, Vec<usize>>::new();
            for (chain, parts) in netlink::nft_rules_mentioning(family, table.name(), OWNER_TAG.as_bytes())? {
                rules.entry(chain).or_default().push(parts);
            }
            let chains = of_it().filter(|(_, chain)| is_own(table, chain)).count();
            listed.push((table, Ours { rules, chains }));
        }
    }
    Ok(listed)
}

fn is_own(table: Table, chain: &str) -> bool {
    table == Table::Nat && OwnChain::named(chain).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_an_end() {
        assert!(!ends_early(""));
        assert!(!ends_early("# Generated\n*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n# Completed\n"));
        assert!(ends_early("*raw\nCOMMIT\n*nat\n:OUTPUT ACCEPT [0:0]\n"));
    }

    #[test]
    fn libraries_of_ours_are_told_from_others() {
        let failed = |name: &str| {
            format!("/usr/lib/xtables/{name}.so: /usr/lib/xtables/{name}.so: failed to map segment")
        };
        for name in ["libxt_udp", "libipt_REDIRECT", "libip6t_LOG"] {
            assert!(names_our_library(&failed(name)), "{name}");
        }
        for name in ["libxt_bpf", "libxt_tcpmss", "libc", "udp"] {
            assert!(!names_our_library(&failed(name)), "{name}");
        }
        assert!(!names_our_library("# Warning: iptables-legacy tables present"));
    }

    #[test]
    fn an_owner_match_of_an_old_layout_is_found_out() {
        for args in
            ["-m owner --uid-owner 5678 -j RETURN", "-p tcp -j RETURN", "-m owner ! --gid-owner 1 -j X"]
        {
            assert!(!is_misread(args), "{args}");
        }
        for args in [
            "-m owner -j CT --zone 2",
            "-m owner --sid-owner 0",
            "-m owner ! --uid-owner 1 --cmd-owner \"?\"",
        ] {
            assert!(is_misread(args), "{args}");
        }
    }

    #[test]
    fn what_is_ours_is_counted_by_table() {
        let text = format!(
            "*nat\n:KUMA_MESH_INBOUND - [0:0]\n:OTHER - [0:0]\n-A OUTPUT -m comment --comment \"{OWNER_TAG}/x\" -j OTHER\n\
             -A OUTPUT -j OTHER\nCOMMIT\n*raw\n:KUMA_MESH_INBOUND - [0:0]\nCOMMIT\n"
        );
        for (table, ours) in of(&Saved::parse(&text)) {
            let parts = ours.rules.get("OUTPUT").cloned();
            let expected = if table == Table::Nat { (1, 1, Some(vec![2])) } else { (0, 0, None) };
            assert_eq!((ours.count(), ours.chains, parts), expected, "{table:?}");
        }
    }

    #[test]
    fn no_rule_makes_up_for_another_one() {
        let ours =
            |rules: &[usize]| Ours { rules: [("OUTPUT".to_owned(), rules.to_vec())].into(), chains: 0 };
        assert!(!ours(&[3, 2]).lacks_a_part_of(&ours(&[2, 2])));
        assert!(ours(&[1, 9]).lacks_a_part_of(&ours(&[2, 2])));
        assert!(!ours(&[1]).lacks_a_part_of(&ours(&[2, 2])), "that is told by their number");
    }
}

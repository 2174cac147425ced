//! Reads chain by chain what a save program left out.
//!
//! `iptables-nft-save` skips a whole table, and ends with success, when somebody put a native nftables expression
//! into it that it has no words for. Every chain of that table can still be listed for itself, unless the expression
//! is in that very chain. So the chains that we write are asked for; whatever else is in the table stays unseen, and
//! untouched.
//!
//! One process lists them all: a restore program takes `-S CHAIN` among its lines, and where there is nothing but
//! that, the kernel has nothing to commit. Where a restore program will not, each chain costs a process.

use std::path::{Path, PathBuf};

use crate::exit::{Exit, Failure};
use crate::plan::{Family, OwnChain, Table};
use crate::sys::netlink;
use crate::sys::run::{self, Command};

use super::lines::lines;
use super::observe::{Effort, SAVE_DEADLINE, not_listed, not_run};
use super::refusal::Refusal;
use super::save::Saved;
use super::tools::Programs;
use super::whole;

/// The chains of these tables that hold or could hold rules of ours, as a save program would print them, with the
/// packets that each rule met where the effort is a sparing one.
///
/// # Errors
/// One of them holds something that cannot be printed ([`Exit::Host`]), or the program failed.
pub fn read(programs: &Programs, family: Family, tables: &[Table], effort: Effort) -> Result<Saved, Failure> {
    let there = netlink::nft_chain_names(family).map_err(|error| not_listed("chains", &error))?;
    let is_there =
        |table: Table, chain: &str| there.iter().any(|(of, name)| of == table.name() && name == chain);
    let mut wanted: Vec<(Table, Vec<&str>)> = Vec::new();
    for &table in tables {
        let chains: Vec<_> = chains(table).into_iter().filter(|chain| is_there(table, chain)).collect();
        // A table that is only named would be made.
        if !chains.is_empty() {
            wanted.push((table, chains));
        }
    }
    let counters = effort == Effort::Sparing;
    let text = match listed_at_once(&programs.restore, &wanted, counters) {
        Ok((text, said)) => {
            whole::is_said_to_be(programs, &said)?;
            text
        }
        Err(words) if effort == Effort::Sparing => {
            let what = format!(
                "a chain of the nftables family {} cannot be read with iptables, probably because it holds native \
                 rules: {words}",
                name_of(family)
            );
            return Err(Failure::new(Exit::Host, what).hint(MOVE));
        }
        Err(_) => listed_one_by_one(programs, family, &wanted, counters)?,
    };
    Ok(Saved::parse(&text))
}

/// What is to be done about native rules among those of iptables.
const MOVE: &str = "move those rules to a table of their own, or to another chain";

const fn name_of(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// Whether some table of ours has a rule that a save program probably leaves out, with all of its table.
///
/// # Errors
/// The kernel does not list its rules.
pub fn has_native_rules(family: Family) -> Result<bool, Failure> {
    let tables =
        netlink::nft_tables_with_native_rules(family).map_err(|error| not_listed("rules", &error))?;
    Ok(Table::ALL.iter().any(|table| tables.contains(table.name())))
}

/// Fails with the program's words where it does not list, or not all.
/// With what the program said beside it.
fn listed_at_once(
    restore: &Path,
    wanted: &[(Table, Vec<&str>)],
    counters: bool,
) -> Result<(String, String), String> {
    let mut script = String::new();
    for (table, chains) in wanted {
        script.extend(["*", table.name(), "\n"]);
        for chain in chains {
            script.extend(["-v -S ", chain, "\n"]);
        }
        script.push_str("COMMIT\n");
    }
    let command = Command::new(restore, ["--noflush"], SAVE_DEADLINE);
    let output = run::run(&Command { stdin: script.into_bytes(), ..command }).map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let listed = output.success().then(|| sorted_into_tables(&text, wanted, counters)).flatten();
    let said = String::from_utf8_lossy(&output.stderr);
    match listed {
        Some(text) => Ok((text, said.into_owned())),
        None => Err(Refusal::read(&said, "").words),
    }
}

fn listed_one_by_one(
    programs: &Programs,
    family: Family,
    wanted: &[(Table, Vec<&str>)],
    counters: bool,
) -> Result<String, Failure> {
    let program = lister(&programs.save);
    let mut text = String::new();
    for (table, chains) in wanted {
        text.extend(["*", table.name(), "\n"]);
        for chain in chains {
            let args = ["-t", table.name(), "-v", "-S", chain];
            let output =
                run::run(&Command::new(&program, args, SAVE_DEADLINE)).map_err(|error| not_run(&error))?;
            if output.is_passing() {
                let words = Refusal::read(&String::from_utf8_lossy(&output.stderr), "").words;
                let message = format!("{} failed with {}: {words}", program.display(), output.ending());
                return Err(Failure::new(Exit::Failed, message).passing(true));
            }
            if !output.success() {
                let words = Refusal::read(&String::from_utf8_lossy(&output.stderr), "").words;
                let message = format!(
                    "the chain {chain} of the nftables table {} {} cannot be read with iptables, probably because \
                     it holds native rules: {words}",
                    name_of(family),
                    table.name()
                );
                return Err(Failure::new(Exit::Host, message).hint(MOVE));
            }
            whole::is_said_to_be(programs, &String::from_utf8_lossy(&output.stderr))?;
            for line in lines(&String::from_utf8_lossy(&output.stdout)) {
                text.push_str(&as_saved(line, counters));
            }
        }
    }
    Ok(text)
}

/// `iptables-nft` of `iptables-nft-save`.
fn lister(save: &Path) -> PathBuf {
    let name = save.file_name().map(|name| name.to_string_lossy().replace("-save", "")).unwrap_or_default();
    save.with_file_name(name)
}

fn chains(table: Table) -> Vec<&'static str> {
    let mut chains = vec!["PREROUTING"];
    if table != Table::Mangle {
        chains.push("OUTPUT");
    }
    if table == Table::Nat {
        chains.push("DOCKER_OUTPUT");
        chains.extend(OwnChain::ALL.map(OwnChain::name));
    }
    chains
}

/// A listing names chains, but not the tables that they are in; it has the order in which they were asked for.
/// `None` unless each of them is there.
fn sorted_into_tables(listed: &str, wanted: &[(Table, Vec<&str>)], counters: bool) -> Option<String> {
    let mut lines = lines(listed).peekable();
    let mut text = String::new();
    for (table, chains) in wanted {
        text.extend(["*", table.name(), "\n"]);
        for chain in chains {
            let declaration = lines.next()?;
            (is_declaration(declaration) && declaration.split(' ').nth(1) == Some(chain)).then_some(())?;
            text.push_str(&as_saved(declaration, counters));
            while let Some(rule) = lines.next_if(|line| !is_declaration(line)) {
                text.push_str(&as_saved(rule, counters));
            }
        }
    }
    lines.next().is_none().then_some(text)
}

fn is_declaration(line: &str) -> bool {
    line.starts_with("-P ") || line.starts_with("-N ")
}

/// A line of `-v -S` as a save has it: `-P OUTPUT ACCEPT -c 0 0` and `-N CHAIN` become declarations, and the counters
/// of a rule come first.
fn as_saved(line: &str, counters: bool) -> String {
    let (counted, line) = without_counters(line);
    let mut words = line.split(' ');
    match (words.next(), words.next(), words.next()) {
        (Some("-P"), Some(chain), Some(policy)) => format!(":{chain} {policy} [0:0]\n"),
        (Some("-N"), Some(chain), None) => format!(":{chain} - [0:0]\n"),
        _ => match counted.filter(|_| counters) {
            Some((packets, bytes)) => format!("[{packets}:{bytes}] {line}\n"),
            None => format!("{line}\n"),
        },
    }
}

/// Takes `-c PACKETS BYTES` out of a line, unless it is in somebody's quoted text.
fn without_counters(line: &str) -> (Option<(u64, u64)>, String) {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ' ' if !quoted => {
                let Some(rest) = line[at..].strip_prefix(" -c ") else { continue };
                let mut fields = rest.splitn(3, ' ');
                let mut number = || fields.next().and_then(|field| field.parse().ok());
                if let (Some(packets), Some(bytes)) = (number(), number()) {
                    let rest = fields.next().map_or(String::new(), |rest| format!(" {rest}"));
                    return (Some((packets, bytes)), format!("{}{rest}", &line[..at]));
                }
            }
            _ => {}
        }
    }
    (None, line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: &[(Table, &[&str])] =
        &[(Table::Nat, &["OUTPUT", "KUMA_MESH_OUTBOUND"]), (Table::Raw, &["OUTPUT"])];

    const LISTED: &str = "-P OUTPUT ACCEPT -c 3 180\n-A OUTPUT -p tcp -c 7 420 -j KUMA_MESH_OUTBOUND\n\
                          -N KUMA_MESH_OUTBOUND\n-A KUMA_MESH_OUTBOUND -m comment --comment \"a -c 1 2 \\\" b\" -c 5 6\n\
                          -P OUTPUT ACCEPT -c 0 0\n";

    fn wanted() -> Vec<(Table, Vec<&'static str>)> {
        WANTED.iter().map(|(table, chains)| (*table, chains.to_vec())).collect()
    }

    #[test]
    fn listings_are_read_as_saves() {
        let saved = Saved::parse(&sorted_into_tables(LISTED, &wanted(), true).expect("all of them"));
        let nat = saved.table("nat").expect("table");
        let (output, own) =
            (nat.chain("OUTPUT").expect("chain"), nat.chain("KUMA_MESH_OUTBOUND").expect("chain"));
        assert!(
            output.builtin && !own.builtin && saved.table("raw").expect("table").chain("OUTPUT").is_some()
        );
        assert_eq!(
            (output.rules[0].args.as_str(), output.rules[0].packets),
            ("-p tcp -j KUMA_MESH_OUTBOUND", Some(7))
        );
        let comment = "-m comment --comment \"a -c 1 2 \\\" b\"";
        assert_eq!((own.rules[0].args.as_str(), own.rules[0].packets), (comment, Some(5)));
        let uncounted = Saved::parse(&sorted_into_tables(LISTED, &wanted(), false).expect("all of them"));
        assert_eq!(uncounted.table("nat").expect("table").chains[0].rules[0].packets, None);
    }

    #[test]
    fn a_listing_of_other_chains_does_not_do() {
        for listed in
            ["", "-P OUTPUT ACCEPT -c 0 0\n", &LISTED.replace("-N ", "-P "), &format!("{LISTED}-N MORE\n")]
        {
            let all = sorted_into_tables(listed, &wanted(), true).is_some();
            assert_eq!(all, listed.contains("-P KUMA"), "{listed}");
        }
    }

    #[test]
    fn the_lister_lies_beside_the_save_program() {
        assert_eq!(lister(Path::new("/usr/sbin/ip6tables-nft-save")), Path::new("/usr/sbin/ip6tables-nft"));
    }
}

//! Reads chain by chain what a save program left out.
//!
//! `iptables-nft-save` skips a whole table, and ends with success, when somebody put a native nftables expression
//! into it that it has no words for. Every chain of that table can still be listed for itself, unless the expression
//! is in that very chain. So the chains that we write are asked for one by one; whatever else is in the table stays
//! unseen, and untouched.

use std::path::{Path, PathBuf};

use crate::exit::{Exit, Failure};
use crate::plan::{Family, OwnChain, Table};
use crate::sys::netlink;
use crate::sys::run::{self, Command};

use super::observe::SAVE_DEADLINE;
use super::refusal::Refusal;
use super::save::Saved;

/// The chains of a table that hold or could hold rules of ours, as a save program would print them.
///
/// # Errors
/// One of them holds something that cannot be printed ([`Exit::Host`]), or the program failed.
pub fn read(save: &Path, family: Family, table: Table) -> Result<Saved, Failure> {
    let there = netlink::nft_chain_names(family).map_err(|error| {
        Failure::new(Exit::Host, format!("the kernel does not list its nftables chains: {error}"))
    })?;
    let is_there = |chain: &str| there.iter().any(|(of, name)| of == table.name() && name == chain);
    let program = lister(save);
    let mut text = format!("*{}\n", table.name());
    for chain in chains(table).into_iter().filter(|chain| is_there(chain)) {
        let args = ["-t", table.name(), "-S", chain];
        let output = run::run(&Command::new(&program, args, SAVE_DEADLINE))
            .map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
        if !output.success() {
            let words = Refusal::read(&String::from_utf8_lossy(&output.stderr), "").words;
            let message = format!(
                "the chain {chain} of the nftables table {} {} cannot be read with iptables, probably because it \
                 holds native rules: {words}",
                if family == Family::V4 { "ip" } else { "ip6" },
                table.name()
            );
            return Err(Failure::new(Exit::Host, message)
                .hint("move those rules to a table of their own, or to another chain; nothing was changed"));
        }
        output_as_saved(&String::from_utf8_lossy(&output.stdout), &mut text);
    }
    Ok(Saved::parse(&text))
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

/// `-P OUTPUT ACCEPT` and `-N CHAIN` as the declarations that a save has.
fn output_as_saved(listed: &str, text: &mut String) {
    for line in listed.lines() {
        let declaration = match line.split_once(' ') {
            Some(("-P", policy)) => &[":", policy, " [0:0]"],
            Some(("-N", chain)) => &[":", chain, " - [0:0]"],
            _ => &["", line, ""],
        };
        text.extend(declaration.iter().copied().chain(["\n"]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_are_read_as_saves() {
        let mut text = String::from("*nat\n");
        output_as_saved("-P OUTPUT ACCEPT\n-A OUTPUT -p tcp -j KUMA_MESH_OUTBOUND\n", &mut text);
        output_as_saved("-N KUMA_MESH_OUTBOUND\n-A KUMA_MESH_OUTBOUND -j RETURN\n", &mut text);
        let saved = Saved::parse(&text);
        let nat = saved.table("nat").expect("table");
        assert!(nat.chain("OUTPUT").expect("chain").builtin);
        assert!(!nat.chain("KUMA_MESH_OUTBOUND").expect("chain").builtin);
        assert_eq!(nat.chain("OUTPUT").expect("chain").rules[0].args, "-p tcp -j KUMA_MESH_OUTBOUND");
    }

    #[test]
    fn the_lister_lies_beside_the_save_program() {
        assert_eq!(lister(Path::new("/usr/sbin/ip6tables-nft-save")), Path::new("/usr/sbin/ip6tables-nft"));
    }
}

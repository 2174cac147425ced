//! Whether a save program printed all that is ours. One that cannot write, or gets no answer from the kernel, may end
//! with 0 all the same, and what it did not print would count as gone and stay beside the new rules.

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
        Variant::Legacy => legacy::read(family).map(|tables| of(&tables.saved(false))).unwrap_or_default(),
    };
    let printed = of(saved);
    let short = |(table, ours): &&(Table, Ours)| {
        let printed = printed.iter().find(|(of, _)| of == table).map(|(_, printed)| *printed);
        let printed = printed.unwrap_or_default();
        printed.rules < ours.rules || printed.chains < ours.chains
    };
    match listed.iter().find(short) {
        Some((table, _)) => Err(failure(&format!("{family} table {} has more of ours", table.name()))),
        None => Ok(()),
    }
}

/// How much of ours is in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Ours {
    /// Rules that have our tag somewhere.
    rules: usize,
    chains: usize,
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
        let rules =
            chains().flat_map(|chain| &chain.rules).filter(|rule| rule.args.contains(OWNER_TAG)).count();
        let chains = chains().filter(|chain| is_own(table, &chain.name)).count();
        (table, Ours { rules, chains })
    };
    Table::ALL.map(ours).to_vec()
}

fn nft(family: Family) -> std::io::Result<Vec<(Table, Ours)>> {
    let chains = netlink::nft_chain_names(family)?;
    let mut listed = Vec::new();
    for table in Table::ALL {
        let of_it = || chains.iter().filter(|(of, _)| of == table.name());
        if of_it().next().is_some() {
            let rules = netlink::nft_rules_mentioning(family, table.name(), OWNER_TAG.as_bytes())?;
            listed.push((
                table,
                Ours { rules, chains: of_it().filter(|(_, chain)| is_own(table, chain)).count() },
            ));
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
    fn what_is_ours_is_counted_by_table() {
        let text = format!(
            "*nat\n:KUMA_MESH_INBOUND - [0:0]\n:OTHER - [0:0]\n-A OUTPUT -m comment --comment \"{OWNER_TAG}/x\" -j OTHER\n\
             -A OUTPUT -j OTHER\nCOMMIT\n*raw\n:KUMA_MESH_INBOUND - [0:0]\nCOMMIT\n"
        );
        for (table, ours) in of(&Saved::parse(&text)) {
            let expected = if table == Table::Nat { Ours { rules: 1, chains: 1 } } else { Ours::default() };
            assert_eq!(ours, expected, "{table:?}");
        }
    }
}

//! The least that could be done: restore files with the same rules, and kumactl's own sequence of processes.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::support::clock::{must, timed};
use crate::support::lab::{Backend, FAMILIES, Lab, Variant};

/// The rules of one configuration per family, as a dry run prints them.
pub struct Rules(Vec<String>);

impl Rules {
    /// Asks for the rules of an install with these further flags.
    pub fn of(lab: &Lab, variant: Variant, flags: &[&str]) -> Result<Self, String> {
        let mut args = vec!["install", "--dry-run", "--backend", "iptables"];
        args.extend(flags);
        let (text, _) = timed(&mut lab.tproxy(Backend::Iptables(variant), &args))?;
        let (_, text) = text.split_once("### IPv4 ###").ok_or("the dry run shows no IPv4 rules")?;
        let (v4, v6) = text.split_once("### IPv6 ###").ok_or("the dry run shows no IPv6 rules")?;
        Ok(Self(vec![format!("{}\n", v4.trim()), format!("{}\n", v6.trim())]))
    }

    /// One file per family that adds the rules to a host without them.
    pub fn files(&self, lab: &Lab, name: &str) -> Result<Vec<PathBuf>, String> {
        self.0
            .iter()
            .zip(FAMILIES)
            .map(|(text, family)| lab.keep(&format!("{name}.{family}"), text))
            .collect()
    }

    /// One file per family that puts these rules in the place of `old` ones: our chains emptied by their declaration,
    /// each old rule in a built-in chain deleted by its words.
    pub fn replacing(&self, old: &Self, lab: &Lab, name: &str) -> Result<Vec<PathBuf>, String> {
        let pairs = self.0.iter().zip(&old.0).zip(FAMILIES);
        pairs.map(|((new, old), family)| lab.keep(&format!("{name}.{family}"), &replace(old, new))).collect()
    }
}

/// Both texts must have the same tables in the same order, which two configurations of one kind do.
fn replace(old: &str, new: &str) -> String {
    let mut text = String::new();
    for (old, new) in old.split_inclusive("COMMIT\n").zip(new.split_inclusive("COMMIT\n")) {
        let deletions = old.lines().filter_map(deletion);
        let additions = new.lines().filter(|line| !line.starts_with("* ") && !line.starts_with("-N "));
        let chains = new.lines().filter_map(|line| line.strip_prefix("-N "));
        let table = new.lines().next().unwrap_or_default();
        let head = std::iter::once(table.to_owned()).chain(chains.map(|chain| format!(":{chain} - [0:0]")));
        for line in head.chain(deletions).chain(additions.map(str::to_owned)) {
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}

/// The line that deletes what `line` added to a built-in chain.
fn deletion(line: &str) -> Option<String> {
    let (chain, rule) = line.strip_prefix("-A ").or_else(|| line.strip_prefix("-I "))?.split_once(' ')?;
    if chain.starts_with("KUMA_MESH_") {
        return None;
    }
    let rule = match rule.split_once(' ') {
        Some((number, rest)) if number.bytes().all(|b| b.is_ascii_digit()) => rest,
        _ => rule,
    };
    Some(format!("-D {chain} {rule}"))
}

/// Restores one file per family, one after the other.
pub fn restore(variant: Variant, files: &[PathBuf]) -> Result<Duration, String> {
    let mut took = Duration::ZERO;
    for (family, file) in FAMILIES.into_iter().zip(files) {
        let mut command = Command::new(variant.program(family, "restore"));
        took += timed(command.arg("--noflush").arg(file))?.1;
    }
    Ok(took)
}

/// Saves every table of one family after the other.
pub fn save(variant: Variant) -> Result<Duration, String> {
    let mut took = Duration::ZERO;
    for family in FAMILIES {
        took += timed(&mut Command::new(variant.program(family, "save")))?.1;
    }
    Ok(took)
}

/// The 49 processes that kumactl 2.9 to 2.14 starts for a clean install of both families where both variants are
/// installed: 15 to look at each of nft, legacy and IPv6, then a save and a restore per family.
pub fn kumactl(variant: Variant, files: &[PathBuf]) -> Result<Duration, String> {
    let mut took = Duration::ZERO;
    for (family, looked_at) in
        [("iptables", Variant::Nft), ("iptables", Variant::Legacy), ("ip6tables", variant)]
    {
        for role in ["", "restore", "save"] {
            took += timed(Command::new(looked_at.program(family, role)).arg("--version"))?.1;
        }
        for module in ["owner", "tcp", "udp", "comment", "conntrack", "multiport"] {
            took += timed(Command::new(looked_at.program(family, "")).args(["-m", module, "-h"]))?.1;
        }
        for table in ["nat", "raw", "mangle", "nat", "raw", "mangle"] {
            took += timed(Command::new(looked_at.program(family, "save")).args(["-t", table]))?.1;
        }
    }
    took += save(variant)?;
    took += restore(variant, files)?;
    Ok(took)
}

/// Adds 10,000 rules of somebody else to nat, in a chain that is called, for each family.
pub fn crowd(lab: &Lab, variant: Variant) -> Result<(), String> {
    for family in FAMILIES {
        let mut text = String::from("*nat\n:FOREIGN - [0:0]\n-A OUTPUT -j FOREIGN\n");
        for n in 0..10_000_u32 {
            let (a, b) = (n / 250, n % 250);
            let net = if family == "iptables" {
                format!("10.{a}.{b}.7/32")
            } else {
                format!("fd00:{a:x}:{b:x}::7/128")
            };
            writeln!(text, "-A FOREIGN -d {net} -p tcp -m tcp --dport 80 -j RETURN")
                .map_err(|e| e.to_string())?;
        }
        text.push_str("COMMIT\n");
        let file = lab.keep("crowd", &text)?;
        must(variant.program(family, "restore"), ["--noflush".as_ref(), file.as_os_str()])?;
    }
    Ok(())
}

//! What is measured with `nf_tables` itself.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::cases::{compare, median};
use crate::memory::peak_memory;
use crate::report::Report;
use crate::restore::{Rules, kumactl};
use crate::support::clock::timed;
use crate::support::exclusions;
use crate::support::lab::{Backend, Lab, Variant};

/// Excluded addresses and ports of the large configuration.
const ADDRESSES: u16 = 10_000;
const PORTS: u16 = 1_000;

fn tproxy(lab: &Lab, args: &[&str]) -> Command {
    lab.tproxy(Backend::Nftables, args)
}

/// How many programs a run executes beside itself.
fn executed(lab: &Lab, what: &str) -> Result<usize, String> {
    let tproxy = tproxy(lab, &[what]);
    let log = lab.file("strace.log");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "trace=execve,execveat", "-o"]).arg(&log).arg(tproxy.get_program());
    strace.args(tproxy.get_args());
    for (name, value) in tproxy.get_envs() {
        strace.env(name, value.unwrap_or_default());
    }
    timed(&mut strace)?;
    let log = fs::read_to_string(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    let begun = log.lines().filter(|line| line.contains(" execve(") || line.contains(" execveat("));
    Ok(begun.count().saturating_sub(1))
}

/// Measures everything.
pub fn measure(lab: &Lab, runs: usize, report: &mut Report) -> Result<(), String> {
    lab.host()?;
    let name = Backend::Nftables.name();
    let (rules, _) = timed(&mut tproxy(lab, &["install", "--dry-run"]))?;
    // What is printed takes the place of any table; where there is none, a reader of it need not delete one either.
    let (_, alone) = rules.split_once("delete table inet kuma_mesh\n").ok_or("unknown text of a dry run")?;
    let first = lab.keep("first.nft", alone)?;
    let install = |args: &[&str]| timed(&mut tproxy(lab, args)).map(|(_, took)| took);
    let clean = || lab.host().and_then(|()| install(&["install"]));
    let load = |file: &Path| timed(Command::new("nft").arg("-f").arg(file)).map(|(_, took)| took);

    let theirs = || lab.host().and_then(|()| load(&first));
    report.ratio(name, "clean install / nft -f of the same text", compare(runs, clean, theirs)?, Some(0.45));

    let again = || clean().and_then(|_| install(&["install"]));
    let theirs = || lab.host().and_then(|()| load(&first));
    report.ratio(name, "unchanged install / nft -f of the same text", compare(runs, again, theirs)?, None);

    let replacing = lab.keep("replacing.nft", &rules)?;
    let changed = || clean().and_then(|_| install(&["install", "--exclude-outbound-ports", "22,3306"]));
    let theirs = || lab.host().and_then(|()| load(&first)).and_then(|_| load(&replacing));
    report.ratio(name, "changed install / nft -f that replaces", compare(runs, changed, theirs)?, None);

    let (one, two) =
        (["install", "--exclude-outbound-ports", "22"], ["install", "--exclude-outbound-ports", "22,3306"]);
    let longer = || lab.host().and_then(|()| install(&one)).and_then(|_| install(&two));
    report.ratio(name, "longer list / nft -f that replaces", compare(runs, longer, theirs)?, None);

    let files = Rules::of(lab, Variant::Nft, &[])?.files(lab, "first")?;
    let theirs = || lab.host().and_then(|()| kumactl(Variant::Nft, &files));
    let few = runs.div_ceil(3);
    report.ratio(name, "clean install / kumactl's 49 processes", compare(few, clean, theirs)?, Some(0.1));

    let many = lab.keep("many.yaml", &exclusions::config(ADDRESSES, PORTS))?;
    let many = many.to_string_lossy();
    let large = ["install", "--config", &*many];
    let mut times = Vec::new();
    for _ in 0..7 {
        lab.host()?;
        times.push(install(&large)?);
    }
    let what = format!("install that excludes {ADDRESSES} addresses and {PORTS} ports");
    report.time(name, &what, median(times), Duration::from_millis(150));

    lab.host()?;
    for (what, command) in
        [("a clean install", "install"), ("an unchanged install", "install"), ("an uninstall", "uninstall")]
    {
        report.never(name, &format!("programs executed by {what}"), executed(lab, command)?);
    }

    lab.host()?;
    report.memory(name, "memory of a clean install", peak_memory(&mut tproxy(lab, &["install"]))?);
    lab.host()?;
    report.memory(
        name,
        &format!("memory with {ADDRESSES} addresses"),
        peak_memory(&mut tproxy(lab, &large))?,
    );
    Ok(())
}

//! What is measured with iptables.

use std::path::PathBuf;
use std::time::Duration;

use crate::memory::peak_memory;
use crate::report::Report;
use crate::restore::{Rules, crowd, kumactl, restore, save};
use crate::support::clock::{must, timed};
use crate::support::exclusions;
use crate::support::lab::{Backend, FAMILIES, Lab, Variant};

/// Excluded ports of a long list, none next to another, in each direction.
const PORTS: u16 = 1_000;

/// The flags by which the changed configuration differs.
const CHANGED: &[&str] = &["--exclude-outbound-ports", "22,3306", "--exclude-inbound-ports", "22"];

/// Measures everything with one variant.
pub fn measure(lab: &Lab, variant: Variant, runs: usize, report: &mut Report) -> Result<(), String> {
    lab.host()?;
    let (rules, changed) = (Rules::of(lab, variant, &[])?, Rules::of(lab, variant, CHANGED)?);
    let case = Case {
        lab,
        variant,
        first: rules.files(lab, "first")?,
        replace: changed.replacing(&rules, lab, "replace")?,
    };
    let used = || used_host(lab, variant);
    let crowded = || used().and_then(|()| crowd(lab, variant));
    let backend = Backend::Iptables(variant);
    let name = backend.name();

    let ours = || lab.host().and_then(|()| case.install(&[]));
    let theirs = || lab.host().and_then(|()| case.bare());
    report.ratio(name, "clean install / two restores", compare(runs, ours, theirs)?, Some(1.5));

    let ours = || lab.host().and_then(|()| case.install(&[])).and_then(|_| case.install(&[]));
    let theirs = || lab.host().and_then(|()| case.bare());
    report.ratio(name, "unchanged install / two restores", compare(runs, ours, theirs)?, Some(0.8));

    let ours = || lab.host().and_then(|()| case.install(&[])).and_then(|_| case.install(CHANGED));
    let theirs = || lab.host().and_then(|()| case.bare()).and_then(|_| restore(variant, &case.replace));
    report.ratio(
        name,
        "changed install / two restores that replace",
        compare(runs, ours, theirs)?,
        Some(1.5),
    );

    let ours = || used().and_then(|()| case.install(&[]));
    let theirs = || used().and_then(|()| Ok(save(variant)? + case.bare()?));
    report.ratio(name, "beside one rule / save and restore", compare(runs, ours, theirs)?, Some(1.5));

    // Putting 20,000 rules there takes far longer than what is measured.
    let few = runs.div_ceil(3);
    let ours = || crowded().and_then(|()| case.install(&[]));
    let theirs = || crowded().and_then(|()| Ok(save(variant)? + case.bare()?));
    report.ratio(name, "beside 10,000 rules / save and restore", compare(few, ours, theirs)?, Some(1.5));

    let ours = || lab.host().and_then(|()| case.install(&[]));
    let theirs = || lab.host().and_then(|()| kumactl(variant, &case.first));
    report.ratio(name, "clean install / kumactl's 49 processes", compare(few, ours, theirs)?, None);

    lab.host()?;
    report.memory(name, "memory of a clean install", peak_memory(&mut lab.tproxy(backend, &["install"]))?);
    lab.host()?;
    let ports = exclusions::ports(PORTS);
    let mut many = lab.tproxy(backend, &["install"]);
    many.args(["--exclude-inbound-ports", &ports, "--exclude-outbound-ports", &ports]);
    report.memory(name, &format!("memory with {PORTS} ports"), peak_memory(&mut many)?);
    crowded()?;
    report.memory(name, "memory beside 10,000 rules", peak_memory(&mut lab.tproxy(backend, &["install"]))?);
    Ok(())
}

/// A host with every table that an install writes to, and a rule of somebody else.
fn used_host(lab: &Lab, variant: Variant) -> Result<(), String> {
    lab.host()?;
    for family in FAMILIES {
        for table in ["raw", "mangle", "nat"] {
            must(variant.program(family, ""), ["-t", table, "-A", "OUTPUT", "-p", "udp", "-j", "RETURN"])?;
            must(variant.program(family, ""), ["-t", table, "-D", "OUTPUT", "-p", "udp", "-j", "RETURN"])?;
        }
        must(variant.program(family, ""), ["-t", "nat", "-A", "POSTROUTING", "-p", "udp", "-j", "RETURN"])?;
    }
    Ok(())
}

/// The middle one.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// One variant's files.
struct Case<'a> {
    lab: &'a Lab,
    variant: Variant,
    first: Vec<PathBuf>,
    replace: Vec<PathBuf>,
}

impl Case<'_> {
    /// Time of an install with further flags.
    fn install(&self, flags: &[&str]) -> Result<Duration, String> {
        let mut command = self.lab.tproxy(Backend::Iptables(self.variant), &["install"]);
        command.args(flags);
        timed(&mut command).map(|(_, took)| took)
    }

    /// Time of two bare restores of the same rules.
    fn bare(&self) -> Result<Duration, String> {
        restore(self.variant, &self.first)
    }
}

/// Alternates the two sides, and which of them goes first; the medians, ours first.
pub fn compare(
    runs: usize,
    mut ours: impl FnMut() -> Result<Duration, String>,
    mut theirs: impl FnMut() -> Result<Duration, String>,
) -> Result<(Duration, Duration), String> {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for run in 0..runs {
        if run % 2 == 0 {
            left.push(ours()?);
            right.push(theirs()?);
        } else {
            right.push(theirs()?);
            left.push(ours()?);
        }
    }
    Ok((median(left), median(right)))
}

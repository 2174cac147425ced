//! How long an install takes beside the least that it could take: the same rules through bare
//! `iptables-restore` or `nft -f`.
//!
//! Wall times differ from machine to machine, so every line is a ratio of two medians taken alternately within one
//! run. Everything happens in namespaces of its own. `cargo bench --bench install -- [--runs N] [--backend nftables]`.

mod cases;
mod memory;
mod native;
mod report;
mod restore;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

use report::Report;
use support::lab::{Backend, Lab};
use support::options::Options;

fn run() -> Result<bool, String> {
    let options = Options::read(31)?;
    let lab = Lab::enter()?;
    let mut report = Report::new(options.runs);
    for backend in options.backends {
        match backend {
            Backend::Iptables(variant) => cases::measure(&lab, variant, options.runs, &mut report)?,
            Backend::Nftables => native::measure(&lab, options.runs, &mut report)?,
        }
    }
    report.print();
    Ok(report.all_met())
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("some targets are missed; on a busy machine, measure again with more --runs");
            ExitCode::FAILURE
        }
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::from(2)
        }
    }
}

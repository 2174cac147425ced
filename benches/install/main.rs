//! How long an install takes beside the least that it could take: the same rules through bare `iptables-restore`.
//!
//! Wall times differ from machine to machine, so every line is a ratio of two medians taken alternately within one
//! run. Everything happens in namespaces of its own. `cargo bench --bench install -- [--runs N] [--variant nft]`.

mod cases;
mod lab;
mod report;
mod restore;

use std::process::ExitCode;

use lab::{Lab, Variant};
use report::Report;

/// What was typed.
struct Options {
    /// Measurements per side of a ratio.
    runs: usize,
    /// One variant only.
    variant: Option<Variant>,
}

fn options() -> Result<Options, String> {
    let mut options = Options { runs: 31, variant: None };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            // Cargo adds it to every benchmark.
            "--bench" => {}
            "--runs" => {
                let value = args.next().unwrap_or_default();
                options.runs =
                    value.parse().ok().filter(|n| *n > 0).ok_or("--runs takes a whole number from 1 on")?;
            }
            "--variant" => {
                options.variant = Some(match args.next().as_deref() {
                    Some("nft") => Variant::Nft,
                    Some("legacy") => Variant::Legacy,
                    _ => return Err("--variant takes nft or legacy".into()),
                });
            }
            other => return Err(format!("unknown argument '{other}'; there are --runs N and --variant V")),
        }
    }
    Ok(options)
}

fn run() -> Result<bool, String> {
    let options = options()?;
    let lab = Lab::enter()?;
    let mut report = Report::new(options.runs);
    for variant in [Variant::Nft, Variant::Legacy] {
        if options.variant.is_none_or(|wanted| wanted == variant) {
            cases::measure(&lab, variant, options.runs, &mut report)?;
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

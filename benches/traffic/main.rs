//! What the rules, and a sidecar behind them, cost the traffic.
//!
//! A client connects to a server in another network namespace: without rules, past rules that leave it alone, through
//! the sidecar of `tproxy demo`, and through Envoy. A second table is about long lists of exclusions. Times differ
//! from machine to machine, so everything is measured in turn, over and over, and compared within one round.
//! `cargo bench --bench traffic -- [--runs N] [--backend nftables]`, as root.

mod client;
mod lists;
mod place;
mod report;
mod rounds;
mod server;
mod sidecar;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

use place::{Place, Way};
use report::Report;
use rounds::Rounds;
use sidecar::Envoy;
use support::lab::{Backend, Lab};
use support::options::Options;

/// Ports that are excluded besides.
const EXCLUDED: [u16; 3] = [0, 100, 1_000];

/// Every way to the server; the first one is what all are compared with, and the second one shows the noise.
fn ways(backend: Backend) -> Vec<Way> {
    let mut sidecars = vec![Way::Excluded as fn(_, _) -> _, Way::Demo];
    if Envoy::program().exists() {
        sidecars.push(Way::Envoy);
    }
    let through = sidecars.iter().flat_map(|way| EXCLUDED.map(|ports| way(backend, ports)));
    [Way::Free, Way::Free].into_iter().chain(through).collect()
}

fn run() -> Result<bool, String> {
    let options = Options::read(15)?;
    if !tproxy::host::is_root() {
        return Err("the sidecar and its client have to be two users, which needs root".into());
    }
    if !Envoy::program().exists() {
        eprintln!("without Envoy: none at {}; tests/envoy/install gets it", Envoy::program().display());
    }
    let lab = Lab::enter()?;
    let mut report = Report::default();
    for &backend in &options.backends {
        let places: Vec<_> =
            ways(backend).into_iter().map(|way| Place::make(&lab, way)).collect::<Result<_, _>>()?;
        let rounds = Rounds::take(options.runs, places.len(), |index| places[index].measure())?;
        report.add(backend, &places, &rounds);
    }
    println!(
        "Medians of {} rounds, four times as many in the second table. A ratio is that to the first line of the same\n\
         backend, or of the second table, round by round; ± is half of the range of the middle half.\n",
        options.runs
    );
    report.print();
    println!();
    // A round of these takes less than a second.
    lists::measure(&lab, &options.backends, options.runs * 4)
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

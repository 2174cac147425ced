//! What the rules, and a sidecar behind them, cost the traffic.
//!
//! A client connects to a server in another network namespace: without rules, past rules that leave it alone, through
//! the sidecar of `tproxy demo`, and through Envoy. Times differ from machine to machine, so everything is measured
//! in turn, over and over, and compared with the connection without rules of the same round.
//! `cargo bench --bench traffic -- [--runs N] [--variant nft]`, as root.

mod client;
mod place;
mod report;
mod server;
mod sidecar;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

use client::Sample;
use place::{Place, Way};
use report::Report;
use sidecar::Envoy;
use support::lab::{Lab, Variant};
use support::options::Options;

/// Ports that are excluded besides.
const EXCLUDED: [u16; 3] = [0, 100, 1_000];

/// Every way to the server; the first one is what all are compared with, and the second one shows the noise.
fn ways(variant: Variant) -> Vec<Way> {
    let mut sidecars = vec![Way::Excluded as fn(_, _) -> _, Way::Demo];
    if Envoy::program().exists() {
        sidecars.push(Way::Envoy);
    }
    let through = sidecars.iter().flat_map(|way| EXCLUDED.map(|ports| way(variant, ports)));
    [Way::Free, Way::Free].into_iter().chain(through).collect()
}

/// One sample of every place, beginning with another one each time.
fn round(places: &[Place], number: usize) -> Result<Vec<Sample>, String> {
    let mut samples = vec![Sample::default(); places.len()];
    for step in 0..places.len() {
        let index = (number + step) % places.len();
        samples[index] = places[index].measure()?;
    }
    Ok(samples)
}

fn run() -> Result<(), String> {
    let options = Options::read(15)?;
    if !tproxy::host::is_root() {
        return Err("the sidecar and its client have to be two users, which needs root".into());
    }
    if !Envoy::program().exists() {
        eprintln!("without Envoy: none at {}; tests/envoy/install gets it", Envoy::program().display());
    }
    let lab = Lab::enter()?;
    let mut report = Report::default();
    for variant in options.variants() {
        let places: Vec<_> =
            ways(variant).into_iter().map(|way| Place::make(&lab, way)).collect::<Result<_, _>>()?;
        // What is met for the first time takes longer.
        round(&places, 0)?;
        let rounds: Vec<_> =
            (0..options.runs).map(|number| round(&places, number)).collect::<Result<_, _>>()?;
        report.add(variant, &places, &rounds);
    }
    report.print(options.runs);
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::from(2)
        }
    }
}

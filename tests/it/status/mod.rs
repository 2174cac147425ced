//! `tproxy status`: says what is there, and leaves it alone.

mod ahead;
mod bad_input;
mod bystanders;
mod meets;
mod native;
mod quoted;
mod report;
mod ties;
mod untouched;
mod watch;

use serde_json::Value;

use crate::support::mesh::listening_sidecar;
use crate::support::{Backend, Family, Lab, Run, firewall};

/// `tproxy status` with flags, beside a sidecar.
fn status(lab: &Lab, flags: &[&str]) -> Run {
    let _sidecar = listening_sidecar();
    lab.program().arg("status").args(flags).run()
}

/// Its report for programs, of a run that ended with this code.
#[track_caller]
fn report(lab: &Lab, code: i32, flags: &[&str]) -> Value {
    let run = status(lab, &[&["-o", "json"], flags].concat()).exits(code);
    let report: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run}"));
    assert_eq!(report["schema"], 1);
    report
}

/// The kinds of differences, with the chain of each.
fn differences(report: &Value) -> Vec<(String, String)> {
    let all = report["differences"].as_array().expect("a list");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    all.iter().map(|difference| (text(&difference["kind"]), text(&difference["chain"]))).collect()
}

/// The chain in which it is decided what of the traffic that leaves is redirected.
fn outbound(backend: Backend) -> &'static str {
    match backend {
        Backend::Nftables => "outbound",
        Backend::Iptables(_) => "KUMA_MESH_OUTBOUND",
    }
}

/// Removes the rules about IPv4 that arrives, which in a native table are those about IPv6 too.
fn flush_inbound(backend: Backend) {
    match backend {
        Backend::Nftables => firewall::nft("flush chain inet kuma_mesh inbound\n"),
        Backend::Iptables(variant) => {
            let _ = firewall::iptables(variant, Family::V4, "-t nat -F KUMA_MESH_INBOUND").succeeds();
        }
    }
}

/// Installs with DNS.
#[track_caller]
fn install(lab: &Lab, backend: impl Into<Backend>) {
    let _ = lab.install(backend, &["--redirect-dns"]).succeeds();
}

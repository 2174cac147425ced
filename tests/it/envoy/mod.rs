//! The whole thing: a real Envoy as the sidecar, real clients, and what Envoy itself says about the traffic.
//!
//! `tests/envoy/install` gets Envoy. Without it these tests say that they skip, and fail where `CI` is set.

mod conversation;
mod dns;
mod docker;
mod evidence;
mod paths;
mod resolver;
mod server;
mod sidecar;
mod survival;
mod verified;
mod volume;

use std::fmt::Display;
use std::net::IpAddr;

use crate::support::command::Program;

/// `curl` without proxies and configuration of the machine, which gives up sooner than the test would.
fn curl(to: impl Display, path: &str) -> Program {
    Program::new("curl").args(CURL).arg(format!("http://{to}{path}"))
}

const CURL: [&str; 8] =
    ["--disable", "--noproxy", "*", "--silent", "--show-error", "--fail", "--max-time", "100"];

/// `dig` for one question: the answers alone, and no second try.
fn dig(server: IpAddr, name: &str, kind: &str) -> Program {
    let server = format!("@{server}");
    Program::new("dig").args(["-r", &server, name, kind, "+short", "+tries=1", "+timeout=5"])
}

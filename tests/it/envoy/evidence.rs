//! What Envoy knows: its counters, and its log of connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Deserialize;

use crate::support::Family;

/// Which way through the sidecar; names listeners, clusters and lines of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Out,
    In,
}

impl Way {
    pub const BOTH: [Self; 2] = [Self::Out, Self::In];

    /// As the configuration calls it.
    pub fn name(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::Out, Family::V4) => "outbound_v4",
            (Self::Out, Family::V6) => "outbound_v6",
            (Self::In, Family::V4) => "inbound_v4",
            (Self::In, Family::V6) => "inbound_v6",
        }
    }
}

fn ways() -> impl Iterator<Item = &'static str> {
    Family::BOTH.into_iter().flat_map(|family| Way::BOTH.map(|way| way.name(family)))
}

/// Counters and gauges of one moment.
pub struct Stats(BTreeMap<String, u64>);

impl Stats {
    /// Reads what `/stats` prints. Histograms and texts are left out.
    pub fn parse(text: &str) -> Self {
        let number = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self(text.lines().filter_map(number).collect())
    }

    /// One number. That Envoy has no such name is a mistake of the test.
    #[track_caller]
    pub fn get(&self, name: &str) -> u64 {
        *self.0.get(name).unwrap_or_else(|| panic!("Envoy counts no {name}"))
    }

    /// How many connections a listener has open.
    #[track_caller]
    pub fn open(&self, way: Way, family: Family) -> u64 {
        self.get(&format!("listener.{}.downstream_cx_active", way.name(family)))
    }

    /// How many connections are open in any listener, or from Envoy to anybody.
    pub fn open_anywhere(&self) -> u64 {
        ways()
            .map(|way| {
                let down = self.get(&format!("listener.{way}.downstream_cx_active"));
                down + self.get(&format!("cluster.{way}.upstream_cx_active"))
            })
            .sum()
    }

    /// These listeners had so many connections since the start, and the others none; each was handed on, and nothing
    /// went wrong with any.
    #[track_caller]
    pub fn assert_only(&self, wanted: &[(Way, Family, u64)]) {
        for way in ways() {
            let wanted: u64 = wanted.iter().filter(|(w, f, _)| w.name(*f) == way).map(|(_, _, n)| n).sum();
            let expect = |name: &str, wanted: u64| {
                assert_eq!(self.get(name), wanted, "{name} of Envoy, wanted {wanted}");
            };
            expect(&format!("listener.{way}.downstream_cx_total"), wanted);
            expect(&format!("tcp.{way}.downstream_cx_total"), wanted);
            expect(&format!("tcp.{way}.downstream_cx_no_route"), 0);
            expect(&format!("cluster.{way}.upstream_cx_total"), wanted);
            for trouble in [
                "bind_errors",
                "upstream_cx_connect_fail",
                "upstream_cx_connect_timeout",
                "upstream_cx_overflow",
            ] {
                expect(&format!("cluster.{way}.{trouble}"), 0);
            }
        }
    }
}

/// A line of the log: a connection that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// The listener that had it.
    pub by: String,
    /// The client.
    pub from: SocketAddr,
    /// The address that the client had in mind, which the kernel remembers over a redirection.
    pub meant: SocketAddr,
    /// Where Envoy went with it.
    pub handed_to: Option<SocketAddr>,
    /// And from which of its own addresses.
    pub handed_from: Option<SocketAddr>,
    /// Bytes from the client.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
    /// What went wrong, if something did.
    pub flags: Option<String>,
}

impl Entry {
    /// Reads a log.
    #[track_caller]
    pub fn parse_all(log: &str) -> Vec<Self> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
        log.lines().map(parse).collect()
    }

    /// The connection went from this listener where the client wanted it, without trouble.
    #[track_caller]
    pub fn assert_went(&self, by: &str, meant: SocketAddr) {
        assert_eq!((self.by.as_str(), self.meant, self.handed_to), (by, meant, Some(meant)), "{self:?}");
        assert!(self.flags.as_deref().is_none_or(|flags| flags == "-"), "{self:?}");
    }
}

/// So many connections of a log are this listener's, and all went to one address.
#[track_caller]
pub fn assert_all_went(log: &[Entry], by: &str, meant: SocketAddr, count: usize) {
    let entries: Vec<&Entry> = log.iter().filter(|entry| entry.by == by).collect();
    assert_eq!(entries.len(), count, "{by}");
    for entry in entries {
        entry.assert_went(by, meant);
    }
}

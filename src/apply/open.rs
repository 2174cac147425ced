//! TCP connections that are open when the redirection comes.
//!
//! The kernel redirects the first packet of a connection that it tracks, and on a host where nothing made it track
//! until now the first packet is whatever an open connection sends next: the session over which the administrator
//! works, the one to a database. So connection tracking is told of all of them before, as of connections that go
//! where they go. Only families that were not redirected until now are looked at: where the redirection is, the kernel
//! tracks, and a redirected connection that it forgot it takes up again; entered here, its plaintext would leave.
//!
//! Which are open is asked as late as possible, and once more right after the commit, for those that began in
//! between. Then nothing that is known changes: what sent a packet since then is known, from either end.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::SocketAddr;

use crate::exit::HINT;
use crate::host;
use crate::plan::Family;
use crate::sys::netlink::conntrack::enter::{self, Entry, Phase};
use crate::sys::netlink::streams::{Stage, Stream, streams};
use crate::sys::sockstat::counts;

use super::scene::{Goal, Scene};

/// Whoever finds so many new ones has been at it for so long that there are others by now.
const MANY: usize = 500;
/// How often they are looked for again then.
const ROUNDS: usize = 4;

/// The connections that were open before a commit.
#[derive(Debug, Default)]
pub struct OpenConnections {
    families: Vec<Family>,
    /// As whom the sidecar runs.
    sidecar: Option<u32>,
    /// Whatever was tried, by its client and its server.
    seen: HashSet<(SocketAddr, SocketAddr)>,
    entered: Vec<Entry>,
    refused: usize,
    why: Option<io::Error>,
}

impl OpenConnections {
    /// Enters those that the commit of `goal` may cut.
    pub fn before(scene: &Scene, goal: &Goal, sidecar: Option<u32>) -> Self {
        let mut families = goal.redirected();
        if !families.is_empty() {
            let already = scene.redirected();
            families.retain(|family| !already.contains(family));
        }
        let mut open = Self { families, sidecar, ..Self::default() };
        for _ in 0..ROUNDS {
            let before = open.entered.len();
            open.enter();
            if open.entered.len() - before < MANY {
                break;
            }
        }
        open
    }

    /// The commit is over, whatever became of it: enters those that began meanwhile, and lets those go that ended
    /// unseen. A later connection with the same ends would pass for one of them.
    pub fn after(mut self) {
        let there = self.enter();
        let gone: Vec<Entry> = std::mem::take(&mut self.entered)
            .into_iter()
            .filter(|Entry { client, server, .. }| {
                !there.contains(&(*client, *server)) && !there.contains(&(*server, *client))
            })
            .collect();
        if let Err(error) = enter::leave(&gone) {
            tracing::debug!("connections that ended meanwhile stay in connection tracking: {error}");
        }
        self.warn();
    }

    /// Enters what is new; both ends of all that are open, as sockets know them.
    fn enter(&mut self) -> HashSet<(SocketAddr, SocketAddr)> {
        if self.families.is_empty() {
            return HashSet::new();
        }
        let found = match all(&self.families) {
            Ok(found) => found,
            Err(error) => {
                self.why = Some(error);
                return HashSet::new();
            }
        };
        if found.is_empty() {
            return HashSet::new();
        }
        let there = found.iter().map(|stream| (stream.local, stream.remote)).collect();
        let listening = host::listening_tcp_ports().unwrap_or_default();
        let new: Vec<Entry> = untranslated(&found, &there, self.sidecar, |port| listening.contains(&port))
            .filter(|entry| self.seen.insert((entry.client, entry.server)))
            .collect();
        let result = enter::enter(&new);
        self.entered.extend(result.new.into_iter().filter_map(|place| new.get(place).copied()));
        if let Some((count, why)) = result.refused {
            self.refused += count;
            self.why = Some(why);
        }
        there
    }

    fn warn(&self) {
        let Some(why) = &self.why else { return };
        let cut = "those that the kernel did not track yet are cut as soon as they carry data";
        if self.refused > 0 {
            let (count, are) =
                (self.refused, if self.refused == 1 { "connection is" } else { "connections are" });
            tracing::warn!("{count} open {are} not in connection tracking ({why}): {cut}");
            if why.kind() == io::ErrorKind::Unsupported {
                tracing::info!(target: HINT, "'modprobe nf_conntrack_netlink' before an installation keeps them");
            }
        } else {
            tracing::warn!("which connections are open is not known ({why}): {cut}");
        }
    }
}

fn all(families: &[Family]) -> io::Result<Vec<Stream>> {
    let mut found = Vec::new();
    if counts().are_without_tcp() {
        return Ok(found);
    }
    for family in Family::BOTH {
        let wanted = |stream: &Stream| {
            families.contains(if stream.remote.is_ipv4() { &Family::V4 } else { &Family::V6 })
        };
        match streams(family, |stream| found.extend(wanted(&stream).then_some(stream))) {
            // A kernel without IPv6 has no such sockets.
            Err(error) if family == Family::V6 && error.kind() == io::ErrorKind::Unsupported => {}
            told => told?,
        }
    }
    Ok(found)
}

/// The connections that go where their sockets say, each once or twice.
///
/// A socket of this host that talks to another of its own sockets, which talks to somebody else, is the sidecar's end
/// of a connection that is redirected, and the other one the application's. Neither is what it says. Only a socket of the
/// sidecar's user, or of root's, at a port that is listened on is believed to be such an end: every user can have one that
/// only says so, and would have the other end's connections cut.
fn untranslated<'a>(
    all: &'a [Stream],
    there: &'a HashSet<(SocketAddr, SocketAddr)>,
    sidecar: Option<u32>,
    listens: impl Fn(u16) -> bool + 'a,
) -> impl Iterator<Item = Entry> + 'a {
    let here: HashSet<SocketAddr> = all.iter().map(|stream| stream.local).collect();
    let lonely = |stream: &&Stream| !there.contains(&(stream.remote, stream.local));
    let is_sidecars = |stream: &&Stream| {
        let whose = stream.uid == 0 || Some(stream.uid) == sidecar;
        stream.stage == Stage::Open && whose && listens(stream.local.port())
    };
    let translated: HashSet<SocketAddr> = all
        .iter()
        .filter(lonely)
        .filter(is_sidecars)
        .map(|stream| stream.remote)
        .filter(|remote| here.contains(remote))
        .collect();
    let timeouts = Timeouts::default();
    all.iter()
        .filter(move |stream| {
            !lonely(stream) || !translated.contains(&stream.local) && !translated.contains(&stream.remote)
        })
        .map(move |stream| {
            let (phase, asked) = match stream.stage {
                Stage::Asked => (Phase::SynSent, true),
                Stage::Agreed => (Phase::SynReceived, false),
                Stage::Open => (Phase::Established, asked(stream, &listens)),
                Stage::Ending => (Phase::FinWait, asked(stream, &listens)),
            };
            let (client, server) =
                if asked { (stream.local, stream.remote) } else { (stream.remote, stream.local) };
            Entry { client, server, phase, timeout: timeouts.of(phase) }
        })
}

/// Whether this end asked for the connection. A server may have stopped listening; then the lower port is the
/// server's. Packets are judged alike in both directions, so a mistake is seen in listings alone.
fn asked(stream: &Stream, listens: impl Fn(u16) -> bool) -> bool {
    let (local, remote) = (stream.local.port(), stream.remote.port());
    !listens(local) && local >= remote
}

/// After how many seconds of silence the kernel forgets a connection.
struct Timeouts([u32; 4]);

impl Default for Timeouts {
    /// As they are set in this network namespace, and where that cannot be read as they are without a setting.
    fn default() -> Self {
        let setting = |name: &str, usual: u32| {
            let path = format!("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_{name}");
            fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(usual)
        };
        Self([
            setting("syn_sent", 120),
            setting("syn_recv", 60),
            setting("established", 432_000),
            setting("fin_wait", 120),
        ])
    }
}

impl Timeouts {
    fn of(&self, phase: Phase) -> u32 {
        let Self([asked, agreed, open, ending]) = *self;
        match phase {
            Phase::SynSent => asked,
            Phase::SynReceived => agreed,
            Phase::Established => open,
            Phase::FinWait => ending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSH: u16 = 22;
    const SIDECAR: u32 = 5678;

    fn stream(local: &str, remote: &str) -> Stream {
        Stream {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            stage: Stage::Open,
            uid: SIDECAR,
        }
    }

    fn entered(all: &[Stream]) -> Vec<(String, String)> {
        let there = all.iter().map(|stream| (stream.local, stream.remote)).collect();
        let ends = |entry: Entry| (entry.client.to_string(), entry.server.to_string());
        let mut entries: Vec<_> =
            untranslated(all, &there, Some(SIDECAR), |port| [SSH, 8080, 15001].contains(&port))
                .map(ends)
                .collect();
        entries.dedup();
        entries
    }

    fn pair(client: &str, server: &str) -> (String, String) {
        (client.to_owned(), server.to_owned())
    }

    #[test]
    fn the_client_is_who_does_not_listen() {
        let session = stream("192.0.2.1:22", "192.0.2.9:50000");
        let database = stream("192.0.2.1:40000", "192.0.2.9:5432");
        let both = [stream("127.0.0.1:9000", "127.0.0.1:8080"), stream("127.0.0.1:8080", "127.0.0.1:9000")];
        assert_eq!(entered(&[session]), [pair("192.0.2.9:50000", "192.0.2.1:22")]);
        assert_eq!(entered(&[database]), [pair("192.0.2.1:40000", "192.0.2.9:5432")]);
        assert_eq!(entered(&both), [pair("127.0.0.1:9000", "127.0.0.1:8080")], "from both ends");
    }

    #[test]
    fn neither_end_of_a_redirected_connection_is_what_it_says() {
        let application = stream("192.0.2.1:40000", "203.0.113.9:80");
        let sidecar = stream("127.0.0.1:15001", "192.0.2.1:40000");
        let other = stream("192.0.2.1:40001", "203.0.113.9:80");
        assert_eq!(entered(&[application, sidecar, other]), [pair("192.0.2.1:40001", "203.0.113.9:80")]);
    }

    #[test]
    fn no_other_socket_has_a_connection_left_out() {
        let session = stream("192.0.2.1:22", "192.0.2.9:50000");
        let wanted = [pair("192.0.2.9:50000", "192.0.2.1:22")];
        let end = stream("127.0.0.1:15001", "192.0.2.1:22");
        assert_eq!(entered(&[session, end]), [], "the sidecar's");
        let others = [
            Stream { uid: 5700, ..end },
            Stream { stage: Stage::Asked, ..end },
            Stream { stage: Stage::Ending, ..end },
            stream("127.0.0.1:40000", "192.0.2.1:22"),
        ];
        for other in others {
            let entries = entered(&[session, other]);
            assert!(entries.contains(&wanted[0]), "{other:?}: {entries:?}");
        }
    }

    #[test]
    fn a_port_may_be_used_twice() {
        let out = stream("192.0.2.1:40000", "203.0.113.9:80");
        let here = [stream("192.0.2.1:40000", "192.0.2.1:8080"), stream("192.0.2.1:8080", "192.0.2.1:40000")];
        let all = [out, here[0], here[1]];
        assert_eq!(
            entered(&all),
            [pair("192.0.2.1:40000", "203.0.113.9:80"), pair("192.0.2.1:40000", "192.0.2.1:8080")]
        );
    }
}

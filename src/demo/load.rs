//! Load that is not kind: a connection is begun every so often, whatever becomes of the earlier ones, so that a hole
//! of any length is seen as long as it is.

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::talk::{self, Call};
use crate::present::demo::{Tally, Way};
use crate::sidecar::Channel;
use crate::sys::{signal, socket};

/// What has no answer after this time gets none: two repetitions of a lost packet fit in.
const PATIENCE: Duration = Duration::from_secs(4);

/// How far it may be behind its time before it gives up the rest.
const MOST_BEHIND: Duration = Duration::from_millis(100);

/// How many connections are begun before the answers are looked at.
const AT_ONCE: usize = 16;

/// How many may wait for an answer; by then everything stands still, which is seen without more of them.
const MOST_OPEN: usize = 500;

struct Open {
    stream: TcpStream,
    own: SocketAddr,
    to: SocketAddr,
    since: Instant,
}

/// What became of a connection: an answer, or why there is none.
pub type Outcome = Result<Call, String>;

/// Begins connections, to each of some addresses in turn, until told to stop, and waits for the answers to all of
/// them. `begun` hears how many there are.
pub fn run(to: &[SocketAddr], every: Duration, stop: &AtomicBool, begun: impl Fn(usize)) -> Vec<Outcome> {
    // Each connection in flight holds some descriptors, here and in the sidecar.
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(65_536)), hard);
    }
    let mut open: Vec<Open> = Vec::new();
    let mut outcomes = Vec::new();
    let mut count = 0;
    let mut due = Instant::now();
    loop {
        let stopped = stop.load(Ordering::SeqCst) || signal::interrupted().is_some();
        // Behind its time it begins the next ones at once, so that what slows it down for a moment thins nothing out.
        // What slows it down for good must not keep it from anything else.
        due = due.max(Instant::now().checked_sub(MOST_BEHIND).unwrap_or(due));
        for _ in 0..AT_ONCE {
            if stopped || due > Instant::now() || open.len() >= MOST_OPEN {
                break;
            }
            match begin(to[count % to.len()]) {
                Ok(connection) => open.push(connection),
                Err(error) => outcomes.push(Err(error.to_string())),
            }
            due += every;
            count += 1;
            begun(count);
        }
        if stopped && open.is_empty() {
            return outcomes;
        }
        let until = if stopped || open.len() >= MOST_OPEN { Instant::now() + every } else { due };
        let fds: Vec<&dyn AsFd> = open.iter().map(|open| &open.stream as &dyn AsFd).collect();
        let ready = socket::readable(&fds, Some(until)).unwrap_or_default();
        for index in ready.into_iter().rev() {
            outcomes.push(end(open.swap_remove(index)));
        }
        let late = Instant::now().checked_sub(PATIENCE);
        let before = open.len();
        open.retain(|open| late.is_none_or(|late| open.since > late));
        outcomes.extend((open.len()..before).map(|_| Err("no answer".to_owned())));
    }
}

fn begin(to: SocketAddr) -> io::Result<Open> {
    let fd = socket::tcp(to.ip())?;
    socket::begin_connect(&fd, to)?;
    let stream = TcpStream::from(fd);
    Ok(Open { own: stream.local_addr()?, stream, to, since: Instant::now() })
}

fn end(mut open: Open) -> Outcome {
    let mut text = [0; 64];
    let size = open.stream.read(&mut text).map_err(|error| error.to_string())?;
    let told =
        talk::read_greeting(&String::from_utf8_lossy(&text[..size])).map_err(|error| error.to_string())?;
    Ok(Call { own: open.own, to: open.to, told })
}

/// Counts what became of connections, by what both witnesses say.
pub fn tally(outcomes: &[Outcome], noted: &HashMap<SocketAddr, (Channel, SocketAddr)>) -> Tally {
    let mut tally = Tally { connections: outcomes.len(), ..Tally::default() };
    for outcome in outcomes {
        let way = match outcome {
            Ok(call) => talk::way(call, noted.get(&call.own)),
            Err(error) => Way::Lost(error.clone()),
        };
        match way {
            Way::Straight => tally.escaped += 1,
            Way::Sidecar(Channel::Outbound) => tally.through += 1,
            Way::Sidecar(Channel::Inbound) => {
                *tally.lost.entry("came to the inbound port".to_owned()).or_default() += 1;
            }
            Way::Lost(why) => *tally.lost.entry(why).or_default() += 1,
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sidecar::{Port, Sidecar};

    #[test]
    fn without_a_sidecar_every_connection_escapes() {
        let uid = nix::unistd::geteuid().as_raw();
        let port = Port::tcp(Channel::Inbound, uid, "127.0.0.1:0".parse().unwrap(), None).unwrap();
        let Port::Tcp(_, listener) = &port else { unreachable!() };
        let to = listener.local_addr().unwrap();
        let _running = Sidecar::start(vec![port], Arc::new(talk::Greeter)).unwrap();
        let stop = AtomicBool::new(false);
        let stop_at = |count| stop.store(count >= 50, Ordering::SeqCst);
        let outcomes = run(&[to], Duration::from_micros(500), &stop, stop_at);
        let tally = tally(&outcomes, &HashMap::new());
        assert!(tally.connections >= 50, "{tally:?}");
        assert_eq!((tally.escaped, tally.through), (tally.connections, 0), "{tally:?}");
    }

    #[test]
    fn each_connection_is_counted_once() {
        let addr = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let to = addr(80);
        let call = |own, told| Ok(Call { own: addr(own), to, told: addr(told) });
        let outcomes =
            [call(1, 1), call(2, 12), call(3, 13), Err("refused".to_owned()), call(4, 4), call(5, 15)];
        let noted = [(2, Channel::Outbound), (3, Channel::Outbound), (5, Channel::Inbound)];
        let noted = noted.into_iter().map(|(port, channel)| (addr(port), (channel, to))).collect();
        let tally = tally(&outcomes, &noted);
        assert_eq!((tally.connections, tally.escaped, tally.through), (6, 2, 2));
        assert_eq!(tally.lost.values().sum::<usize>(), 2, "{tally:?}");
    }

    #[test]
    fn nobody_there_is_a_failure_and_no_escape() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = free.local_addr().unwrap();
        drop(free);
        let stop = AtomicBool::new(false);
        let outcomes = run(&[to], Duration::from_micros(500), &stop, |_| stop.store(true, Ordering::SeqCst));
        let tally = tally(&outcomes, &HashMap::new());
        assert_eq!((tally.escaped, tally.through, tally.connections), (0, 0, tally.lost.values().sum()));
    }
}

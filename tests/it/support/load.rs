//! Open-loop load: a connection is started every so often, whatever becomes of the earlier ones.
//!
//! A closed loop, which waits for one connection before it starts the next, looks away for as long as something
//! goes wrong, and does not see a short hole.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt,
};

/// From here on an answer is late: the first repetition of a lost SYN comes after a second.
const STALL: Duration = Duration::from_millis(500);

/// What is not answered so long after the last start, is not answered: several repetitions fit in.
pub const PATIENCE: Duration = Duration::from_secs(20);

struct Open {
    stream: TcpStream,
    since: Instant,
}

struct Shared {
    epoll: Epoll,
    open: Mutex<HashMap<u64, Open>>,
    stop: AtomicBool,
    /// Until when answers are waited for; nobody knows before the last start.
    end: Mutex<Option<Instant>>,
}

/// Load under way.
pub struct Load {
    shared: Arc<Shared>,
    starter: JoinHandle<Report>,
    reaper: JoinHandle<Report>,
}

/// What became of the connections.
#[derive(Debug, Default)]
pub struct Report {
    pub started: usize,
    /// How often each listener answered.
    pub answers: BTreeMap<String, usize>,
    /// What went wrong instead of an answer.
    pub failures: BTreeMap<String, usize>,
    /// Answers that came late.
    pub stalls: usize,
    pub slowest: Duration,
}

impl Load {
    /// Starts connections from the caller's namespace, and as its user.
    pub fn start(to: SocketAddr, every: Duration) -> Self {
        // Connections that wait for an answer all hold a descriptor.
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        let _ = setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(65_536)), hard);
        let shared = Arc::new(Shared {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("an epoll descriptor"),
            open: Mutex::default(),
            stop: AtomicBool::new(false),
            end: Mutex::default(),
        });
        let (starting, reaping) = (shared.clone(), shared.clone());
        let starter =
            thread::Builder::new().name("load".to_owned()).spawn(move || start_all(&starting, to, every));
        let reaper = thread::Builder::new().name("answers".to_owned()).spawn(move || reap_all(&reaping));
        Self { shared, starter: starter.expect("a thread"), reaper: reaper.expect("a thread") }
    }

    /// Starts no more.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }

    /// Starts no more, and waits so long for what is under way.
    pub fn finish(self, patience: Duration) -> Report {
        self.stop();
        let started = self.starter.join().expect("the load ends");
        *self.shared.end.lock().expect("no panic") = Some(Instant::now() + patience);
        let mut report = self.reaper.join().expect("the load ends");
        report.started = started.started;
        for (failure, times) in started.failures {
            *report.failures.entry(failure).or_default() += times;
        }
        report
    }
}

fn start_all(shared: &Shared, to: SocketAddr, every: Duration) -> Report {
    let mut report = Report::default();
    let begin = Instant::now();
    let mut due = begin;
    while !shared.stop.load(Ordering::SeqCst) {
        // Behind its time it starts the next one at once: a slow machine thins nothing out.
        if let Some(early) = due.checked_duration_since(Instant::now()) {
            thread::sleep(early);
        }
        due += every;
        let number = report.started as u64;
        report.started += 1;
        if let Err(error) = start_one(shared, to, number) {
            *report.failures.entry(format!("connect: {error}")).or_default() += 1;
        }
    }
    report
}

fn start_one(shared: &Shared, to: SocketAddr, number: u64) -> io::Result<()> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket: OwnedFd = socket(family, SockType::Stream, flags, None)?;
    // Closing resets, so that ports are free again at once.
    setsockopt(&socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    let since = Instant::now();
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let stream: TcpStream = socket.into();
    let mut open = shared.open.lock().expect("no panic");
    shared.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, number))?;
    open.insert(number, Open { stream, since });
    Ok(())
}

fn reap_all(shared: &Shared) -> Report {
    let mut report = Report::default();
    let mut events = [EpollEvent::empty(); 256];
    loop {
        if let Some(end) = *shared.end.lock().expect("no panic") {
            let open = shared.open.lock().expect("no panic");
            if open.is_empty() {
                return report;
            }
            if Instant::now() > end {
                *report.failures.entry("no answer".to_owned()).or_default() += open.len();
                return report;
            }
        }
        let count = match shared.epoll.wait(&mut events, EpollTimeout::from(50_u8)) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => panic!("epoll: {error}"),
        };
        for event in &events[..count] {
            let Some(mut open) = shared.open.lock().expect("no panic").remove(&event.data()) else {
                continue;
            };
            let took = open.since.elapsed();
            report.slowest = report.slowest.max(took);
            report.stalls += usize::from(took > STALL);
            let mut text = [0; 256];
            match open.stream.read(&mut text) {
                Ok(0) => *report.failures.entry("closed without an answer".to_owned()).or_default() += 1,
                Ok(length) => {
                    let text = String::from_utf8_lossy(&text[..length]);
                    let name = text.split('|').next().unwrap_or_default().to_owned();
                    *report.answers.entry(name).or_default() += 1;
                }
                Err(error) => *report.failures.entry(error.to_string()).or_default() += 1,
            }
        }
    }
}

impl Report {
    /// How many were answered by anybody else.
    pub fn escaped(&self, wanted: &str) -> usize {
        self.answers.iter().filter(|(name, _)| *name != wanted).map(|(_, times)| times).sum()
    }

    /// Every connection was answered, and by this listener.
    #[track_caller]
    pub fn assert_all_met(&self, wanted: &str) {
        assert!(self.started > 0);
        assert_eq!(self.escaped(wanted), 0, "escapes: {self}");
        assert!(self.failures.is_empty(), "failures: {self}");
        assert_eq!(self.answers.get(wanted), Some(&self.started), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} connections, answers {:?}, failures {:?}, {} stalls, slowest {:?}",
            self.started, self.answers, self.failures, self.stalls, self.slowest
        )
    }
}

//! Cables between machines.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, unshare};

use super::command;

type Job = Box<dyn FnOnce() + Send>;

/// Another machine: a thread in a network namespace of its own that does what it is given.
pub struct Peer {
    /// Kernel id of the thread, by which devices are moved to its namespace.
    tid: i32,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    /// A machine without cables. It shares the files of the caller.
    pub fn new(name: &str) -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, tid) = mpsc::channel();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
                ready.send(nix::unistd::gettid().as_raw()).expect("somebody waits");
                for job in queue {
                    job();
                }
            })
            .expect("a thread");
        let tid = tid.recv().expect("the thread starts");
        Self { tid, jobs: Some(jobs), thread: Some(thread) }
    }

    /// Does something there. A panic there is one here.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, result) = mpsc::channel();
        let job = move || {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            let _ = sender.send(outcome);
        };
        self.jobs.as_ref().expect("alive").send(Box::new(job)).expect("the thread lives as long as this");
        let outcome = result.recv().expect("the thread answers");
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Its end of a cable to the caller, made now: `here` and `there` name the two interfaces.
    pub fn plug(&self, here: &str, there: &str) {
        let tid = self.tid.to_string();
        command::must("ip", &["link", "add", here, "type", "veth", "peer", "name", there, "netns", &tid]);
    }

    /// `ip -batch` there.
    pub fn ip(&self, batch: &str) {
        let batch = batch.to_owned();
        self.run(move || ip(&batch));
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.jobs.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `ip -batch` in the caller's namespace.
pub fn ip(batch: &str) {
    super::lab::in_a_namespace_of_our_own();
    command::must_with("ip", &["-batch", "-"], batch);
}

/// The machine at the other end of `eth0`. Behind it lies everything else: whole networks answer there, so that
/// whatever escapes a redirection arrives somewhere and is seen.
pub fn cable() -> Peer {
    let peer = Peer::new("peer");
    peer.plug("eth0", "eth0");
    ip("link set lo up
        link set eth0 up
        addr add 10.77.0.1/24 dev eth0
        addr add fd77::1/64 dev eth0 nodad
    ");
    peer.ip("link set lo up
        link set eth0 up
        addr add 10.77.0.2/24 dev eth0
        addr add fd77::2/64 dev eth0 nodad
        route add local 203.0.113.0/24 dev lo
        addr add 10.96.0.10/32 dev lo
        addr add 10.96.0.99/32 dev lo
        route add local 2001:db8::/64 dev lo
        addr add fd00:96::10/128 dev lo nodad
        addr add fd00:96::99/128 dev lo nodad
    ");
    ip("route add default via 10.77.0.2
        route add ::/0 via fd77::2
    ");
    peer
}

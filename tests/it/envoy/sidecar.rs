//! Envoy's life: started as the sidecar's user, asked by its administration port, stopped.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};

use super::evidence::{Entry, Stats};
use crate::support::command::{self, Program, Running};
use crate::support::lab::skip;
use crate::support::{Lab, SIDECAR};

const TEMPLATE: &str = include_str!("../../envoy/envoy.yaml");

/// Longer than Envoy takes for anything on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at something that comes by itself.
const PULSE: Duration = Duration::from_millis(5);

/// A running Envoy.
pub struct Sidecar {
    running: Option<Running>,
    pid: u32,
    admin: &'static str,
    log: PathBuf,
}

impl Sidecar {
    /// Starts Envoy, which asks `resolver` for names that are not the mesh's, and waits until it is ready. `None`:
    /// there is none, and the test has said so.
    #[track_caller]
    pub fn start(lab: &Lab, resolver: IpAddr) -> Option<Self> {
        Self::start_with(lab, TEMPLATE, resolver)
    }

    /// The same without one of its listeners.
    #[track_caller]
    pub fn start_without(lab: &Lab, listener: &str, resolver: IpAddr) -> Option<Self> {
        let begin = TEMPLATE.find(&format!("    - name: {listener}\n")).expect("one of the listeners");
        let (before, it) = TEMPLATE.split_at(begin);
        // It ends where the next one begins, or the clusters.
        let ends = ["\n    - name: ", "\n  clusters:"].map(|next| it.find(next));
        let end = ends.into_iter().flatten().min().expect("it is not the end of the file");
        Self::start_with(lab, &format!("{before}{}", &it[end + 1..]), resolver)
    }

    fn start_with(lab: &Lab, template: &str, resolver: IpAddr) -> Option<Self> {
        let built = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("envoy").join("envoy");
        let Ok(built) = built.canonicalize() else {
            skip(&format!("no Envoy at {}; tests/envoy/install gets it", built.display()));
            return None;
        };
        for tool in ["curl", "dig"] {
            if command::find(tool).is_none() {
                skip(&format!("this machine has no {tool}"));
                return None;
            }
        }
        Some(Self::launch(lab, &built, template, resolver))
    }

    fn launch(lab: &Lab, built: &Path, template: &str, resolver: IpAddr) -> Self {
        many_descriptors();
        // The user may be kept out of the directory that Envoy was built in, and has to write the log.
        let dir = lab.dir().join("envoy");
        fs::create_dir(&dir).expect("a directory of its own");
        chown(&dir, Some(SIDECAR), Some(SIDECAR)).expect("the sidecar's directory");
        let program = dir.join("envoy");
        fs::write(&program, "").expect("a file in the private /run");
        command::must("mount", &["--bind", &built.to_string_lossy(), &program.to_string_lossy()]);

        let log = dir.join("access.log");
        let config = dir.join("envoy.yaml");
        let text =
            template.replace("@LOG@", &log.to_string_lossy()).replace("@RESOLVER@", &resolver.to_string());
        fs::write(&config, text).expect("a file in the private /run");
        let running = Program::new(&program)
            .args(["--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"])
            .args(["--file-flush-interval-msec", "20", "--config-path"])
            .arg(&config)
            .user(SIDECAR)
            .start();
        let mut sidecar = Self { pid: running.pid, running: Some(running), admin: "127.0.0.1:9901", log };
        sidecar.wait_until_ready();
        sidecar
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.ask("/ready").is_none_or(|answer| answer.trim() != "LIVE") {
            let ended = !Path::new("/proc").join(self.pid.to_string()).exists();
            if ended || Instant::now() > deadline {
                let _ = kill(command::pid(self.pid), Signal::SIGKILL);
                let run = self.running.take().expect("not stopped yet").finish();
                panic!("Envoy did not become ready: {run}");
            }
            thread::sleep(PULSE);
        }
    }

    /// What the administration port answers, if it does.
    fn ask(&self, path: &str) -> Option<String> {
        let run = super::curl(self.admin, path).run();
        (run.code == Some(0)).then_some(run.stdout)
    }

    /// Its counters now.
    #[track_caller]
    pub fn stats(&self) -> Stats {
        Stats::parse(&self.ask("/stats").expect("Envoy answers its administrator"))
    }

    /// Waits until its counters say something.
    #[track_caller]
    pub fn wait_until(&self, what: &str, mut says: impl FnMut(&Stats) -> bool) -> Stats {
        wait_for(what, || Some(self.stats()).filter(|stats| says(stats)))
    }

    /// Waits until no connection is open any more; the counters then.
    #[track_caller]
    pub fn at_rest(&self) -> Stats {
        self.wait_until("every connection has ended", |stats| stats.open_anywhere() == 0)
    }

    /// Stops it when no connection is open any more; every connection it ever had.
    #[track_caller]
    pub fn stop(mut self) -> Vec<Entry> {
        self.at_rest();
        let _ = kill(command::pid(self.pid), Signal::SIGTERM);
        self.running.take().expect("stopped once").finish().succeeds();
        Entry::parse_all(&fs::read_to_string(&self.log).expect("the log of Envoy"))
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = kill(command::pid(self.pid), Signal::SIGKILL);
            let _ = running.finish();
        }
    }
}

/// Looks again and again until there is something.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(PULSE);
    }
}

/// Thousands of connections hold a descriptor each, or two.
fn many_descriptors() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let _ = setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(65_536)), hard);
}

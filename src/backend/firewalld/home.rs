//! Whose direct.xml it is: firewalld's configuration is about the network namespace that firewalld is in.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::sys::{bus, netns, private};

/// What firewalld is called on the system bus.
const NAME: &str = "org.fedoraproject.FirewallD1";

/// Where firewalld notes its process, unless it is started with `--nopid` as by its systemd unit.
const PID_FILE: &str = "/run/firewalld.pid";

/// As much as a process ID needs, and a line break.
const LONGEST: u64 = 32;

/// Why the file is none of this run's business. `None`: this is the network namespace that it is about.
///
/// That is the one of firewalld's process, by its pid file or by its name on the system bus; where no firewalld runs,
/// the one of PID 1, in which it would be started.
pub fn why_not_here() -> Option<String> {
    if private::is_left() {
        return Some("this run is on a host of its own".to_owned());
    }
    let firewalld = noted().or_else(on_the_bus);
    let (pid, whose) = match firewalld {
        Some(pid) => (pid, format!("firewalld (process {pid})")),
        None => (1, "PID 1, in which firewalld would be started".to_owned()),
    };
    match netns::is_of_process(pid) {
        Ok(true) => None,
        Ok(false) => Some(format!("this is not the network namespace of {whose}")),
        Err(error) => Some(format!("the network namespace of {whose} cannot be seen: {error}")),
    }
}

/// The process that has firewalld's name on the system bus. A bus that does not answer is asked once in a run; a process
/// made by fork, which may go on when firewalld has been restarted, asks again.
fn on_the_bus() -> Option<u32> {
    static ANSWER: Mutex<Option<(u32, Option<u32>)>> = Mutex::new(None);
    let mut answer = ANSWER.lock().unwrap_or_else(PoisonError::into_inner);
    let us = std::process::id();
    match *answer {
        Some((asked_by, pid)) if asked_by == us && pid.is_none_or(lives) => pid,
        _ => {
            let pid = bus::owner(Path::new(bus::SYSTEM_BUS), NAME).ok().flatten();
            *answer = Some((us, pid));
            pid
        }
    }
}

fn lives(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// The process in firewalld's pid file, if it lives. Only root's word counts.
fn noted() -> Option<u32> {
    let pid = read(Path::new(PID_FILE)).ok()?;
    let pid = pid.trim().parse::<u32>().ok().filter(|pid| *pid > 0)?;
    lives(pid).then_some(pid)
}

fn read(path: &Path) -> io::Result<String> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() || about.uid() != 0 {
        return Err(io::Error::other("not a file of root's"));
    }
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

//! Who holds a file lock, as `/proc/locks` has it.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::escape;
use super::open_files::{End, KEEPERS, search};

/// A process that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its ID in our PID namespace.
    pub pid: u32,
    /// Its command line, control characters escaped; empty if it has ended and we may not see who has the lock now.
    pub command: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.command.is_empty() {
            write!(f, "a process that inherited it from process {}", self.pid)
        } else {
            write!(f, "process {} ({})", self.pid, self.command)
        }
    }
}

/// The holder of the flock on this inode, from the text of `/proc/locks`.
///
/// That text names who took the lock. Who has it is whoever has the open file: `flock 9` in a shell script takes
/// it, ends, and leaves it to the shell.
pub(super) fn holder_of(locks: &str, device: u64, inode: u64) -> Option<Holder> {
    let taker = pid_of(locks, device, inode)?;
    let pid = if Path::new(&format!("/proc/{taker}")).exists() {
        taker
    } else {
        heirs(device, inode).0.first().copied().unwrap_or(taker)
    };
    Some(process(pid))
}

/// The processes with an open file that has the lock, and whether those are all; `/proc/PID/fdinfo` lists a file's locks
/// in the form of `/proc/locks`.
pub(super) fn heirs(device: u64, inode: u64) -> (Vec<u32>, End) {
    let mut found = Vec::new();
    let end = search(
        Path::new("/proc"),
        "fdinfo",
        |_| Some(0),
        KEEPERS,
        |pid, file| {
            let info = std::fs::read_to_string(file).unwrap_or_default();
            let has_it = info
                .lines()
                .filter_map(|line| line.strip_prefix("lock:"))
                .any(|line| pid_of(line, device, inode).is_some());
            if has_it && !found.contains(&pid) {
                found.push(pid);
            }
            false
        },
    );
    (found, end)
}

/// A process of our PID namespace that writes its error messages to this file.
pub fn writing_errors_to(device: u64, inode: u64) -> Option<u32> {
    let mut numbers =
        std::fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.find(|pid: &u32| {
        let file = std::fs::metadata(format!("/proc/{pid}/fd/2"));
        file.is_ok_and(|file| (file.dev(), file.ino()) == (device, inode))
    })
}

/// The user as which a process sends, which can be another one than made its sockets: many make them as root first
/// (the fourth number behind `Uid:`, `proc_pid_status(5)`).
pub fn user_of(pid: u32) -> Option<u32> {
    users_of(pid)?.get(3).copied()
}

/// The real, effective, saved and file system UID of a process.
pub(super) fn users_of(pid: u32) -> Option<Vec<u32>> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().map(|number| number.parse().ok()).collect()
}

/// A process and those that started it, from itself to the first one of all; of a very long line the nearest ones.
pub fn ancestry(pid: u32) -> Vec<u32> {
    const MOST: usize = 256;
    let parent = |pid: u32| -> Option<u32> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
    };
    let mut all = vec![pid];
    while all.len() < MOST
        && let Some(next) =
            all.last().and_then(|pid| parent(*pid)).filter(|pid| *pid > 0 && !all.contains(pid))
    {
        all.push(next);
    }
    all
}

/// A process that is known by its number.
pub(super) fn process(pid: u32) -> Holder {
    Holder { pid, command: command(pid) }
}

/// The command line of a process, if it still runs a program of that name (cut off after 15 bytes, as the kernel
/// keeps it) and its number is the same in our PID namespace; a line of its parent's in brackets behind.
pub fn process_command(pid: u32, name: Option<&str>) -> Option<String> {
    let read = |pid: u32, file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    if read(pid, "comm")?.trim_end() != name? {
        return None;
    }
    let status = read(pid, "status").unwrap_or_default();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
    let parent = parent
        .filter(|parent: &u32| *parent > 1)
        .map(|parent| format!(" [by {}: {}]", parent, command(parent)));
    Some(command(pid) + &parent.unwrap_or_default())
}

/// Whether a process of our PID namespace runs no code until it is told to continue, or has ended. One that a debugger
/// holds goes on at any time.
pub fn is_stopped(pid: u32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Its name is in parentheses, which may be in the name too.
    let state = text.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, Some('T' | 'Z' | 'X'))
}

/// Reads lines such as `3: FLOCK  ADVISORY  WRITE 1234 00:1a:5678 0 EOF`; `->` in the second column marks those who
/// wait (`lock_get_status` in the kernel's `fs/locks.c`).
fn pid_of(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let wanted = (u64::from(libc::major(device)), u64::from(libc::minor(device)), inode);
    locks.lines().find_map(|line| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        if columns.next()? != "FLOCK" {
            return None;
        }
        let pid = columns.nth(2)?.parse().ok()?;
        let mut place = columns.next()?.split(':');
        let major = u64::from_str_radix(place.next()?, 16).ok()?;
        let minor = u64::from_str_radix(place.next()?, 16).ok()?;
        let inode = place.next()?.parse().ok()?;
        ((major, minor, inode) == wanted).then_some(pid)
    })
}

fn command(pid: u32) -> String {
    const CHARS: usize = 200;
    let read = |file| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let mut line = read("cmdline");
    if line.is_empty() {
        line = read("comm");
    }
    let line = String::from_utf8_lossy(&line);
    let words = line.trim_end_matches(['\0', '\n']).replace('\0', " ");
    escape(&words.chars().take(CHARS).collect::<String>())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOCKS: &str = "\
1: POSIX  ADVISORY  WRITE 11 fd:01:77 0 EOF
2: -> FLOCK  ADVISORY  WRITE 12 fd:01:77 0 EOF
3: FLOCK  ADVISORY  WRITE 13 00:1a:77 0 EOF
4: FLOCK  ADVISORY  WRITE 14 fd:01:770 0 EOF
5: FLOCK  ADVISORY  WRITE 15 fd:01:77 0 EOF
5: -> FLOCK  ADVISORY  WRITE 16 fd:01:77 0 EOF
";

    #[test]
    fn only_the_holder_of_that_inode_on_that_device() {
        let device = libc::makedev(0xfd, 1);
        assert_eq!(pid_of(LOCKS, device, 77), Some(15));
        assert_eq!(pid_of(LOCKS, libc::makedev(0, 0x1a), 77), Some(13));
        assert_eq!(pid_of(LOCKS, device, 78), None);
        assert_eq!(pid_of("", device, 77), None);
    }

    #[test]
    fn holders_in_words() {
        let ours = Holder { pid: std::process::id(), command: command(std::process::id()) };
        assert!(!ours.command.is_empty() && !ours.command.contains('\0'));
        assert_eq!(Holder { pid: 7, command: "iptables -w".into() }.to_string(), "process 7 (iptables -w)");
        assert_eq!(
            Holder { pid: 7, command: String::new() }.to_string(),
            "a process that inherited it from process 7"
        );
    }

    #[test]
    fn who_is_stopped_is_told() {
        use nix::sys::signal::{Signal, kill};
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        assert!(!is_stopped(child.id()));
        kill(pid, Signal::SIGSTOP).unwrap();
        nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WUNTRACED)).unwrap();
        assert!(is_stopped(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_stopped(child.id()));
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "([0-9]+: |-> |FLOCK |WRITE |[0-9a-f:]{0,9}|\n|\\PC)*") {
            pid_of(&text, 1, 2);
        }
    }
}

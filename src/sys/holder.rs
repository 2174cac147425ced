//! Who holds a file lock, as `/proc` has it.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::open_files::{End, KEEPERS, identity, search};
use super::{escape, proc};

/// How long a list of locks is read, and how long processes are asked for theirs. Every user can take locks without end, and
/// the kernel takes the longer for each page of a list the more comes before it.
const LIST: Duration = Duration::from_millis(200);
const SEARCH: Duration = Duration::from_secs(1);

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

/// Who took a lock, as far as a list says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taker {
    /// This process. It may have ended.
    Is(u32),
    /// Nobody who is seen here.
    Nobody,
    /// The list is too long.
    Unknown,
}

/// Who took the flock on this inode, by `/proc/locks`.
pub(super) fn taker(device: u64, inode: u64) -> Taker {
    let Ok(locks) = File::open("/proc/locks") else { return Taker::Nobody };
    in_list(BufReader::new(locks), device, inode, Instant::now() + LIST)
}

/// The holder of the flock on this inode.
///
/// The list names who took the lock. Who has it is whoever has the open file: `flock 9` in a shell script takes it,
/// ends, and leaves it to the shell.
pub(super) fn holder_of(device: u64, inode: u64) -> Option<Holder> {
    let heir = || heirs(device, inode).0.first().copied();
    let pid = match taker(device, inode) {
        Taker::Nobody => return None,
        Taker::Unknown => heir()?,
        Taker::Is(taker) if Path::new(&format!("/proc/{taker}")).exists() => taker,
        Taker::Is(taker) => heir().unwrap_or(taker),
    };
    Some(process(pid))
}

/// The processes with an open file that has the lock, and whether those are all; `/proc/PID/fdinfo` lists a file's locks
/// in the form of `/proc/locks`, and is read for open files of that inode only: it can be as long as the whole list.
pub(super) fn heirs(device: u64, inode: u64) -> (Vec<u32>, End) {
    let mut found = Vec::new();
    let (until, mut late) = (Instant::now() + SEARCH, false);
    let end = search(
        Path::new("/proc"),
        "fd",
        |_| Some(0),
        KEEPERS,
        |pid, file| {
            late = Instant::now() >= until;
            if identity(file) == Some((device, inode))
                && !found.contains(&pid)
                && has_lock(pid, file, device, inode, until)
            {
                found.push(pid);
            }
            late
        },
    );
    (found, if late { End::Cut } else { end })
}

fn has_lock(pid: u32, file: &Path, device: u64, inode: u64, until: Instant) -> bool {
    let number = file.file_name().unwrap_or_default();
    let Ok(info) = File::open(Path::new(&format!("/proc/{pid}/fdinfo")).join(number)) else { return false };
    in_list(BufReader::new(info), device, inode, until) != Taker::Nobody
}

/// A process of our PID namespace that writes its error messages to this file.
pub fn writing_errors_to(device: u64, inode: u64) -> Option<u32> {
    let mut numbers =
        std::fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.find(|pid: &u32| {
        let process = format!("/proc/{pid}");
        let is_ours = std::fs::metadata(&process).is_ok_and(|process| is_trusted(process.uid()));
        // Files of other users may be on file systems of theirs, which answer when they like.
        is_ours && identity(&Path::new(&process).join("fd/2")) == Some((device, inode))
    })
}

/// The user as which a process sends, which can be another one than made its sockets: many make them as root first
/// (the fourth number behind `Uid:`, `proc_pid_status(5)`).
pub fn user_of(pid: u32) -> Option<u32> {
    users_of(pid)?.get(3).copied()
}

/// The real, effective, saved and file system UID of a process.
pub(super) fn users_of(pid: u32) -> Option<Vec<u32>> {
    let status = proc::text(&format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().map(|number| number.parse().ok()).collect()
}

/// A process and those that started it, from itself to the first one of all; of a very long line the nearest ones.
pub fn ancestry(pid: u32) -> Vec<u32> {
    const MOST: usize = 256;
    let parent = |pid: u32| -> Option<u32> {
        let status = proc::text(&format!("/proc/{pid}/status"))?;
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
    let read = |pid: u32, file: &str| proc::text(&format!("/proc/{pid}/{file}"));
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
    let text = proc::text(&format!("/proc/{pid}/stat")).unwrap_or_default();
    // Its name is in parentheses, which may be in the name too.
    let state = text.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, Some('T' | 'Z' | 'X'))
}

/// Reads lines such as `3: FLOCK  ADVISORY  WRITE 1234 00:1a:5678 0 EOF`, in a process's list behind `lock:`; `->` in the
/// second column marks those who wait (`lock_get_status` in the kernel's `fs/locks.c`).
fn in_list(mut list: impl BufRead, device: u64, inode: u64, until: Instant) -> Taker {
    let wanted = (u64::from(libc::major(device)), u64::from(libc::minor(device)), inode);
    let takes = |line: &[u8]| -> Option<u32> {
        let line = std::str::from_utf8(line).ok()?;
        let mut columns = line.strip_prefix("lock:").unwrap_or(line).split_ascii_whitespace().skip(1);
        if columns.next()? != "FLOCK" {
            return None;
        }
        let pid = columns.nth(2)?.parse().ok()?;
        let mut place = columns.next()?.split(':');
        let major = u64::from_str_radix(place.next()?, 16).ok()?;
        let minor = u64::from_str_radix(place.next()?, 16).ok()?;
        let inode = place.next()?.parse().ok()?;
        ((major, minor, inode) == wanted).then_some(pid)
    };
    let mut line = Vec::new();
    loop {
        line.clear();
        if !list.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            return Taker::Nobody;
        }
        if let Some(pid) = takes(&line) {
            return Taker::Is(pid);
        }
        if Instant::now() >= until {
            return Taker::Unknown;
        }
    }
}

/// Whether a process of this user is root's of this user namespace, or ours.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

/// The command line of a process, of another user's only its name: to read the line takes a lock of that process's
/// memory, which its threads can hold for ever (a page fault on a file system of theirs that does not answer).
fn command(pid: u32) -> String {
    const CHARS: usize = 200;
    let read = |file| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let is_ours = users_of(pid).is_some_and(|users| users.into_iter().all(is_trusted));
    let mut line = if is_ours { read("cmdline") } else { Vec::new() };
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
        let in_time = Instant::now() + Duration::from_secs(60);
        let taker = |device, inode| in_list(LOCKS.as_bytes(), device, inode, in_time);
        assert_eq!(taker(device, 77), Taker::Is(15));
        assert_eq!(taker(libc::makedev(0, 0x1a), 77), Taker::Is(13));
        assert_eq!(taker(device, 78), Taker::Nobody);
        assert_eq!(in_list(&b""[..], device, 77, in_time), Taker::Nobody);
        let of_a_process = LOCKS.replace("5: FLOCK", "lock:\t5: FLOCK");
        assert_eq!(in_list(of_a_process.as_bytes(), device, 77, in_time), Taker::Is(15));
        // A list that took too long already says what its first line says.
        let late = Instant::now();
        assert_eq!(in_list(LOCKS.as_bytes(), device, 77, late), Taker::Unknown);
        assert_eq!(
            in_list(&LOCKS.as_bytes()[LOCKS.find("5: FLOCK").unwrap()..], device, 77, late),
            Taker::Is(15)
        );
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
            in_list(text.as_bytes(), 1, 2, Instant::now() + Duration::from_secs(60));
        }
    }
}

//! A machine of this process's own: new user, mount and network namespaces around the whole process, which end with
//! it. Nothing that is done from then on concerns the host.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use super::files;
use super::netlink;
use super::netns;
use super::run::{self, Command};

/// How long a program that looks up or maps users may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Users that are wanted beside the caller, by their UIDs in the new namespace; the first is needed most.
pub type Wanted<'a> = &'a [u32];

/// Why there is no such machine.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct NoMachine {
    what: &'static str,
    source: io::Error,
}

/// Mounts are shared or not as wholes, and only at the place of the mount itself can it be said.
const CHROOT: &str = "the root directory is no mount point, as in a chroot, so the mounts cannot be separated from those of the host";

impl NoMachine {
    /// Whether it is for a root directory that is only a directory.
    pub fn is_in_chroot(&self) -> bool {
        self.what == CHROOT
    }
}

fn failed(what: &'static str) -> impl Fn(Errno) -> NoMachine {
    move |errno| NoMachine { what, source: errno.into() }
}

/// Whether this process has a machine of its own. There is no way back.
static LEFT: AtomicBool = AtomicBool::new(false);

/// Whether this process has left the host, whose files under `/etc` it still sees.
pub fn is_left() -> bool {
    LEFT.load(Ordering::Relaxed)
}

/// Moves this process to a machine of its own, with an empty network and a private `/run`.
///
/// Root keeps its users. Whoever may not do that becomes root of a user namespace, in which some of the wanted users exist if
/// `/etc/subuid` grants any to the caller and `newuidmap` is there to map them; [`super::user::is_mapped`] tells.
///
/// Must be called while this process has a single thread: user namespaces are for whole processes.
///
/// # Errors
/// The kernel or its administrator permits no such namespaces. The host is untouched then too, but the process may
/// have lost its place in it and should end.
pub fn leave_host(wanted: Wanted<'_>) -> Result<(), NoMachine> {
    LEFT.store(true, Ordering::Relaxed);
    netlink::forget();
    let before = netns::current_id().ok();
    let elsewhere = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
    let direct = if geteuid().is_root() { unshare(elsewhere) } else { Err(Errno::EPERM) };
    // Root of a container often lacks the right, too.
    if direct.is_err() {
        become_root(wanted)?;
        unshare(elsewhere).map_err(failed("no mount and network namespaces can be made"))?;
    }
    // First of all: what is mounted from here on must not show on the host.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).map_err(
        |errno| match errno {
            Errno::EINVAL => failed(CHROOT)(errno),
            _ => failed("the mounts cannot be separated from those of the host")(errno),
        },
    )?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::MS_NODEV | MsFlags::MS_NOSUID, Some("mode=0755"))
        .map_err(failed("no private /run can be mounted"))?;
    if before.is_some() && before == netns::current_id().ok() {
        return Err(failed("this is still the network namespace of the host")(Errno::EEXIST));
    }
    Ok(())
}

fn become_root(wanted: Wanted<'_>) -> Result<(), NoMachine> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    // Only a process outside can map more than one user, so it is started here and held until there is something
    // to map.
    let mapping = mapping_of_users(uid, wanted);
    let helper = mapping.as_ref().and_then(|command| run::hold(command).ok());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(failed("no user namespace can be made"))?;
    let mapped = helper.is_some_and(|held| {
        held.release().and_then(run::Started::finish).is_ok_and(|output| output.success())
    });
    let write = |file: &str, text: String| {
        fs::write(Path::new("/proc/self").join(file), text)
            .map_err(|source| NoMachine { what: "the users of a namespace cannot be mapped", source })
    };
    if !mapped {
        write("uid_map", format!("0 {uid} 1"))?;
    }
    // Nobody compares groups, so the caller's own one will do; the kernel grants that to those alone who can drop
    // no group.
    write("setgroups", "deny".to_owned())?;
    write("gid_map", format!("0 {gid} 1"))
}

/// `newuidmap` for this process, held back by a shell until it gets a line to read.
fn mapping_of_users(uid: u32, wanted: Wanted<'_>) -> Option<Command> {
    let subuid = files::read("/etc/subuid".as_ref(), 1 << 20).ok()?;
    let subuid = String::from_utf8_lossy(&subuid);
    let name = run::run(&Command::new("id", ["-un"], DEADLINE)).ok().filter(run::Output::success);
    let name = name.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let granted = granted(&subuid, uid, name.as_deref());
    let mut words = vec![0, uid, 1];
    for (inside, outside) in wanted.iter().zip(&granted) {
        words.extend([*inside, *outside, 1]);
    }
    if granted.is_empty() {
        return None;
    }
    let script = "read -r go && exec newuidmap \"$@\"";
    let mut args = vec!["-c".to_owned(), script.to_owned(), "sh".to_owned(), std::process::id().to_string()];
    args.extend(words.iter().map(u32::to_string));
    let mut command = Command::new("sh", args, DEADLINE);
    command.stdin = b"go\n".to_vec();
    Some(command)
}

/// At most this many users are ever asked for.
const MOST: u32 = 16;

/// The first UIDs that a text in the form of `/etc/subuid` (subuid(5)) grants to a user.
fn granted(text: &str, uid: u32, name: Option<&str>) -> Vec<u32> {
    let uid = uid.to_string();
    let ranges = text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let (first, count) = (fields.next()?.parse::<u32>().ok()?, fields.next()?.parse::<u32>().ok()?);
        (owner == uid || Some(owner) == name).then(|| first..first.saturating_add(count.min(MOST)))
    });
    ranges.flatten().take(MOST as usize).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_granted_by_name_and_by_number() {
        let text = "root:1:9\nanna:100000:65536\n1001:7:2\n\nanna:5:1\nbroken\nanna:x:y\n";
        assert_eq!(granted(text, 1000, Some("anna"))[..2], [100_000, 100_001]);
        assert!(granted(text, 1000, None).is_empty());
        assert_eq!(granted(text, 1001, Some("bert")), [7, 8]);
        assert_eq!(granted("1:5:1\n1:9:1\n", 1, None), [5, 9]);
        assert_eq!(granted("1:4294967295:10\n", 1, None).len(), 0);
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "([0-9]{1,11}|:|a|\n|\\PC)*") {
            prop_assert!(granted(&text, 1, Some("a")).len() <= MOST as usize);
        }
    }
}

//! On which TCP ports this host is reached by SSH. Reads only.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;

use super::{listeners, own_addresses, ssh_socket};
use crate::config::values::Protocol;
use crate::plan::Family;
use crate::sys::rights::Right;
use crate::sys::sockstat::Counts;
use crate::sys::{proc, signal, socket_holders};

const ROOT: u32 = 0;

/// The port that SSH has unless somebody says otherwise.
const USUAL: u16 = 22;
/// How far up the parents of this process are asked.
const PARENTS: usize = 64;
/// What holds the ports of socket units.
const SYSTEMD: &str = "systemd";
const VARIABLE: &str = "SSH_CONNECTION";

/// Ports on which an SSH server of this network namespace listens, and the port of the connection from which this
/// program was started. Where it cannot be seen whose port 22 is, it is taken for SSH's.
pub fn ssh_ports(sockets: Counts) -> BTreeSet<u16> {
    if sockets.are_without_tcp() {
        return BTreeSet::new();
    }
    let mut ports = listening();
    ports.extend(connection());
    ports
}

fn listening() -> BTreeSet<u16> {
    let mut waiting = BTreeMap::new();
    for family in Family::BOTH {
        let sockets = listeners(Protocol::Tcp, family).unwrap_or_default().into_iter();
        // Of others no server's name tells anything.
        for socket in sockets.filter(|socket| socket.uid == ROOT || socket.port == USUAL) {
            waiting.insert(socket.inode, (socket.port, socket.uid));
        }
    }
    let units = OnceCell::new();
    let mut ports = BTreeSet::new();
    // Sockets on the usual port whose process was not seen.
    let mut unseen: BTreeMap<u32, u32> = waiting
        .iter()
        .filter(|(_, (port, _))| *port == USUAL)
        .map(|(inode, (_, uid))| (*inode, *uid))
        .collect();
    let all = (!waiting.is_empty()).then(|| fs::read_dir("/proc")).into_iter().flatten().flatten();
    for pid in all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        let Some(name) = name(pid).filter(|name| is_named(name) && is_of_this_host(pid)) else { continue };
        for fd in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            if signal::interrupted().is_some() {
                return ports;
            }
            let Some(inode) = fs::read_link(fd.path()).ok().and_then(|link| socket(&link.to_string_lossy()))
            else {
                continue;
            };
            let Some(&(port, uid)) = waiting.get(&inode) else { continue };
            let in_a_unit = || units.get_or_init(ssh_socket::ports).contains(&port);
            if is_server(&name, port, uid) || name == SYSTEMD && uid == ROOT && in_a_unit() {
                ports.insert(port);
            }
            unseen.remove(&inode);
        }
    }
    // The usual port is another program's only where that program is seen.
    let holders = socket_holders(unseen.clone());
    let is_other =
        |inode| holders.get(inode).and_then(|of| name(of.pid)).is_some_and(|name| !is_named(&name));
    if unseen.keys().any(|inode| !is_other(inode)) {
        ports.insert(USUAL);
    }
    ports
}

fn name(pid: u32) -> Option<String> {
    let mut name = proc::text(&format!("/proc/{pid}/comm"))?;
    name.truncate(name.trim_end().len());
    Some(name)
}

fn is_named(name: &str) -> bool {
    name.starts_with("sshd") || name == "dropbear" || name == SYSTEMD
}

/// Whether a process is root's and can let users in, and is of this host or container: any program can call itself as it
/// likes, also one that inherited a socket which root made, or the root of a container that shares this network namespace.
fn is_of_this_host(pid: u32) -> bool {
    let is_here = |kind: &str| {
        let of = |process: &str| fs::metadata(format!("/proc/{process}/ns/{kind}")).map(|of| of.ino());
        matches!((of(&pid.to_string()), of("thread-self")), (Ok(theirs), Ok(ours)) if theirs == ours)
    };
    proc::text(&format!("/proc/{pid}/status")).is_some_and(|status| lets_users_in(&status))
        && is_here("user")
        && (is_here("pid") || is_here("mnt"))
}

/// Whether a process with this `/proc/PID/status` is root in all of its UIDs, and can become another user.
fn lets_users_in(status: &str) -> bool {
    let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
    let is_root =
        line("Uid:").is_some_and(|uids| uids.split_ascii_whitespace().all(|uid| uid.parse() == Ok(ROOT)));
    let effective = line("CapEff:").and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    is_root && effective.is_some_and(|set| set & 1 << Right::SetUid as u64 != 0)
}

/// Whether a process of this name that listens on a port with a socket of this user's serves SSH there. systemd holds the
/// port until somebody comes; other ports that it holds for SSH its units tell.
fn is_server(name: &str, port: u16, uid: u32) -> bool {
    is_named(name) && (name != SYSTEMD || port == USUAL) && (uid == ROOT || port == USUAL)
}

/// The inode in `socket:[12345]`.
fn socket(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The port of the connection by which somebody is here. sudo takes the variable away, so parents are asked too.
fn connection() -> Option<u16> {
    let mut said = std::env::var(VARIABLE).ok();
    let mut pid = nix::unistd::getppid().as_raw();
    for _ in 0..PARENTS {
        if said.is_some() || pid <= 0 {
            break;
        }
        said = proc::bytes(&format!("/proc/{pid}/environ")).and_then(|environment| variable(&environment));
        pid = proc::text(&format!("/proc/{pid}/stat")).as_deref().and_then(parent)?;
    }
    let (addr, port) = server(&said?)?;
    // It may have come to another network namespace than the one whose traffic is redirected.
    own_addresses().contains(&addr).then_some(port)
}

fn variable(environment: &[u8]) -> Option<String> {
    let mut all = environment.split(|byte| *byte == 0);
    let text = all.find_map(|entry| entry.strip_prefix(VARIABLE.as_bytes())?.strip_prefix(b"="))?;
    String::from_utf8(text.to_vec()).ok()
}

/// The parent in a line of `/proc/PID/stat`; the name in it may hold anything.
fn parent(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The server's end in `CLIENT PORT SERVER PORT`.
fn server(connection: &str) -> Option<(IpAddr, u16)> {
    let mut words = connection.split_ascii_whitespace().skip(2);
    let addr: IpAddr = words.next()?.split('%').next()?.parse().ok()?;
    Some((addr.to_canonical(), words.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_tells_its_servers_end() {
        let of = |text: &str| server(text).map(|(addr, port)| format!("{addr} {port}"));
        assert_eq!(of("192.0.2.7 50000 192.0.2.1 2222").as_deref(), Some("192.0.2.1 2222"));
        assert_eq!(of("fe80::2%eth0 50000 fe80::1%eth0 22").as_deref(), Some("fe80::1 22"));
        assert_eq!(of("::ffff:192.0.2.7 1 ::ffff:192.0.2.1 22").as_deref(), Some("192.0.2.1 22"));
        for wrong in ["", "a b c d", "192.0.2.7 50000 192.0.2.1", "192.0.2.7 50000 192.0.2.1 99999"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn parents_and_their_variables_are_read() {
        assert_eq!(parent("42 (a) b) S 7 42 42 0"), Some(7));
        assert_eq!(parent("42"), None);
        let environment = b"A=1\0XSSH_CONNECTION=no\0SSH_CONNECTION=a b c 22\0";
        assert_eq!(variable(environment).as_deref(), Some("a b c 22"));
        assert_eq!(variable(b"A=1\0\xff"), None);
        assert_eq!(socket("socket:[123]"), Some(123));
        assert_eq!(socket("pipe:[123]"), None);
    }

    #[test]
    fn only_root_with_its_rights_lets_users_in() {
        let is =
            |uids: &str, set: &str| lets_users_in(&format!("Name:\tsshd\nUid:\t{uids}\nCapEff:\t{set}\n"));
        assert!(is("0\t0\t0\t0", "000001ffffffffff") && is("0 0 0 0", "00000000000000c0"));
        for uids in ["5700 5700 5700 5700", "0 5700 0 5700", "5700 0 0 0", "0 0 5700 0", "x"] {
            assert!(!is(uids, "000001ffffffffff"), "{uids}");
        }
        assert!(!is("0 0 0 0", "0000000000000000") && !is("0 0 0 0", "0000000000000400"));
        assert!(!lets_users_in("") && !lets_users_in("CapEff: ffff\n"));
    }

    #[test]
    fn servers_are_known_by_their_process() {
        for uid in [0, 1000] {
            assert!(is_server("sshd-session", 22, uid) && is_server("systemd", 22, uid));
            assert!(!is_server("systemd", 80, uid) && !is_server("python3", 22, uid));
        }
        assert!(is_server("sshd", 2222, 0) && is_server("dropbear", 2222, 0));
        assert!(!is_server("sshd", 2222, 1000), "any user can have that name");
    }
}

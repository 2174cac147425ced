//! What is there: users, interfaces, IPv6, DNS servers. Reads only.

pub mod chains;
mod facts;
mod guests;
mod listeners;
mod net;
pub mod owners;
mod resolv_conf;
mod ssh;
mod ssh_socket;
mod uid_map;
mod user;

use std::path::Path;

use crate::exit::{Exit, Failure};
use crate::passing::Passing;
use crate::sys::files::{self, Unread};
pub use facts::{HostFacts, Ipv6Support, Resolver, Translated};
pub use guests::{Guests, guests};
pub use listeners::listeners;
pub use net::{Interfaces, PASSTHROUGH, interfaces, is_up, links, listening_tcp_ports, own_addresses};
pub use resolv_conf::parse as parse_resolv_conf;
pub use ssh::ssh_ports;
pub use uid_map::check_users;
pub use user::{User, sidecar_user, sidecar_user_takes_a_program};

/// The longest resolv.conf that is read, in bytes; the C library reads three servers of it.
const LARGEST: u64 = 1 << 20;

/// The DNS servers of a resolv.conf, and what in it should be looked at: one sentence each.
///
/// # Errors
/// The file cannot be read; see [`unread`].
pub fn resolvers(path: &Path) -> Result<(Vec<Resolver>, Vec<String>), Failure> {
    let text = files::read(path, LARGEST).map_err(|error| {
        unread(&format!("the DNS servers from {}", path.display()), &error)
            .hint("name the file with redirect.dns.resolvConfigPath, or redirect every DNS question with --redirect-all-dns-traffic")
    })?;
    let (resolvers, notes) = parse_resolv_conf(&text);
    Ok((resolvers, notes.into_iter().map(|note| format!("{}: {note}", path.display())).collect()))
}

/// A file of the host's that was not read. One that is there and is no regular file, is too long, or lets nobody read it
/// is wrong ([`Exit::Usage`]): nobody knows when a pipe ends. One that is missing is the host's ([`Exit::Host`]), and a lack
/// of memory or descriptors passes ([`Exit::Failed`]).
pub fn unread(what: &str, error: &Unread) -> Failure {
    let exit = match error {
        Unread::Io(error) if error.is_passing() => Exit::Failed,
        error if error.is_missing() => Exit::Host,
        _ => Exit::Usage,
    };
    let passing = exit == Exit::Failed;
    Failure::new(exit, format!("cannot read {what}: {error}")).passing(passing)
}

/// Whether this process may change the firewall, as far as its user ID says it.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_named() {
        let failure = resolvers(Path::new("/nowhere/resolv.conf")).unwrap_err();
        assert_eq!(failure.exit, Exit::Host);
        assert!(failure.message.contains("/nowhere/resolv.conf: No such file"), "{failure}");
    }

    #[test]
    fn notes_name_the_file() {
        let path = std::env::temp_dir().join(format!("tproxy-resolv-{}", std::process::id()));
        std::fs::write(&path, "nameserver 10.0.0.1\nnameserver nonsense\n").unwrap();
        let result = resolvers(&path);
        std::fs::remove_file(&path).unwrap();
        let (resolvers, notes) = result.unwrap();
        assert_eq!(resolvers.len(), 1);
        assert!(notes[0].starts_with(&format!("{}: line 2: ", path.display())), "{notes:?}");
    }
}

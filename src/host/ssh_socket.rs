//! Ports of systemd's socket units for SSH: systemd itself listens there, and starts a server for whoever comes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::sys::files;

/// As Debian and its kin call the unit, and everybody else.
const UNITS: [&str; 2] = ["ssh.socket", "sshd.socket"];

/// Where systemd looks for units (`systemd.unit(5)`). What sshd's own configuration asks for, Debian's generator writes
/// below `/run/systemd/generator`.
const DIRECTORIES: [&str; 6] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// The longest file of a unit that is read, in bytes.
const LARGEST: u64 = 64 << 10;

/// Every port that any file of such a unit names. Whether systemd listens there is for the caller to see.
pub fn ports() -> BTreeSet<u16> {
    let mut ports = BTreeSet::new();
    for directory in DIRECTORIES.map(Path::new) {
        for unit in UNITS {
            let more = fs::read_dir(directory.join(format!("{unit}.d"))).into_iter().flatten().flatten();
            let more =
                more.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|of| of == "conf"));
            for file in [directory.join(unit)].into_iter().chain(more.collect::<Vec<PathBuf>>()) {
                let bytes = files::read(&file, LARGEST).unwrap_or_default();
                ports.extend(listed(&String::from_utf8_lossy(&bytes)));
            }
        }
    }
    ports
}

/// The ports in lines such as `ListenStream=[::]:2222` (`systemd.socket(5)`).
fn listed(unit: &str) -> impl Iterator<Item = u16> {
    let value = |line: &str| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "ListenStream").then(|| value.trim().to_owned())
    };
    let port = |value: String| value.rsplit(':').next().and_then(|port| port.parse().ok());
    unit.lines().filter_map(value).filter_map(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_units_are_read() {
        let unit = "[Unit]\nDescription=a=b:7\n[Socket]\nListenStream=\nListenStream=22\nListenStream = 0.0.0.0:2222\n\
                    ListenStream=[::]:2223\nListenStream=/run/ssh.sock\nListenDatagram=99\n#ListenStream=98\nAccept=no\n";
        assert_eq!(listed(unit).collect::<Vec<_>>(), [22, 2222, 2223]);
    }
}

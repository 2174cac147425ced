//! One setting of firewalld that stands in the way of redirected IPv6 connections.
//!
//! With `RFC3964_IPv4=yes`, the default, firewalld rejects what leaves for addresses that have an IPv4 address within
//! them, `::/96` among those, unless it leaves by `lo`. A redirected connection of a local process has `::1` as its
//! destination by then, which is in `::/96`, and still the interface of its first route.

use crate::sys::files;

const CONF: &str = "/etc/firewalld/firewalld.conf";

/// The longest that is read of it, in bytes.
const LARGEST: u64 = 1 << 20;

/// What should be said before IPv6 is redirected, if firewalld rules this network namespace and would reject it.
pub fn ipv6_warning() -> Option<String> {
    if !super::rules_here() {
        return None;
    }
    let conf = match files::read(CONF.as_ref(), LARGEST) {
        Ok(conf) => conf,
        Err(error) if error.is_missing() => Vec::new(),
        // What it says is not known, so nothing is said of it.
        Err(_) => return None,
    };
    is_on(&String::from_utf8_lossy(&conf)).then(|| {
        format!(
            "firewalld rejects redirected IPv6 connections of this host ('No route to host'): set RFC3964_IPv4=no in \
             {CONF} and run `firewall-cmd --reload`"
        )
    })
}

/// Reads the setting as firewalld does (`firewall/core/io/firewalld_conf.py`): on where it is not there or makes no
/// sense.
fn is_on(conf: &str) -> bool {
    let values = conf.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    let mut values =
        values.filter_map(|line| line.split_once('=')).filter(|(key, _)| key.trim() == "RFC3964_IPv4");
    let value = values.next().map(|(_, value)| value.trim().to_ascii_lowercase());
    !value.is_some_and(|value| matches!(value.as_str(), "no" | "false"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_no_turns_it_off() {
        for conf in
            ["", "RFC3964_IPv4=yes", "# RFC3964_IPv4=no", "RFC3964_IPv4=", "RFC3964_IPv4=maybe", "IPv4=no"]
        {
            assert!(is_on(conf), "{conf}");
        }
        for conf in ["RFC3964_IPv4=no", "a=b\n\nRFC3964_IPv4 = No \n", "#\nRFC3964_IPv4=false\r\n"] {
            assert!(!is_on(conf), "{conf}");
        }
    }
}

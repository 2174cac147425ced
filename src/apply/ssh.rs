//! SSH, by which whoever runs this may be here.

use std::collections::BTreeSet;

use crate::config::values::Port;
use crate::config::{Config, leaving_alone};
use crate::exit::{Exit, Failure, HINT};
use crate::host;
use crate::status::doors::is_redirected;
use crate::sys::sockstat::{Counts, counts};

/// The port that SSH has unless somebody says otherwise.
const USUAL: u16 = 22;

/// Leaves this host's SSH ports alone, if `redirect.inbound.keepSSH` asks for it: they become excluded ports, and are
/// recorded as such, so that whoever compares later compares with the same.
///
/// # Errors
/// Only SSH ports would have been redirected.
pub fn keep(config: &mut Config) -> Result<(), Failure> {
    if !config.redirect.inbound.keep_ssh {
        return Ok(());
    }
    let mut ports = host::ssh_ports(counts());
    if ports.is_empty() {
        // At boot it may come later.
        tracing::info!("no SSH server is seen on this host yet, so the usual port {USUAL} is left alone");
        ports.insert(USUAL);
    } else {
        let word = if ports.len() == 1 { "port" } else { "ports" };
        let listed = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        tracing::info!("left alone for SSH: TCP {word} {listed}");
    }
    leave_alone(config, &ports)
}

fn leave_alone(config: &mut Config, ports: &BTreeSet<u16>) -> Result<(), Failure> {
    let inbound = &mut config.redirect.inbound;
    let is_ssh = |port: &Port| ports.contains(&port.get());
    if inbound.include_ports.is_empty() {
        let more = ports.iter().filter_map(|port| Port::try_from(*port).ok());
        let more: Vec<Port> = more.filter(|port| !inbound.exclude_ports.contains(port)).collect();
        inbound.exclude_ports.extend(more);
        return Ok(());
    }
    if inbound.include_ports.iter().all(is_ssh) {
        let what = "redirect.inbound.includePorts lists SSH ports alone, which redirect.inbound.keepSSH leaves alone";
        return Err(Failure::new(Exit::Usage, what)
            .hint("turn inbound redirection off with --redirect-inbound=false"));
    }
    inbound.include_ports.retain(|port| !is_ssh(port));
    Ok(())
}

/// Whoever is here by SSH should know before, not after.
pub fn warn(config: &Config, sockets: Counts) {
    let ports: Vec<u16> =
        host::ssh_ports(sockets).into_iter().filter(|port| is_redirected(config, *port)).collect();
    if let Some((what, hint)) = words(config, &ports) {
        tracing::warn!("{what}");
        tracing::info!(target: HINT, "{hint}");
    }
}

fn words(config: &Config, ports: &[u16]) -> Option<(String, String)> {
    let inbound = &config.redirect.inbound;
    let listed = |ports: &[u16]| ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    if ports.is_empty() {
        return None;
    }
    let what = format!(
        "new SSH connections to this host (port {}) are redirected to the inbound port {}: they are refused where no sidecar \
         listens there, and else wherever it refuses ports that nobody declared, as Kuma's does since 2.13",
        listed(ports),
        inbound.port
    );
    let exclusion = if inbound.include_ports.is_empty() {
        format!("{} or --keep-ssh leaves them alone", leaving_alone(config, ports.iter().copied()))
    } else {
        "--keep-ssh leaves them alone".to_owned()
    };
    let hint =
        format!("{exclusion}; with --confirm 60s the host goes back unless 'tproxy confirm' is run in time");
    Some((what, hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(include: &[u16], exclude: &[u16]) -> Config {
        let mut config = Config::default();
        let ports = |numbers: &[u16]| numbers.iter().map(|number| Port::of(*number)).collect();
        config.redirect.inbound.include_ports = ports(include);
        config.redirect.inbound.exclude_ports = ports(exclude);
        config
    }

    #[test]
    fn kept_ports_are_excluded_or_not_included() {
        let ssh = BTreeSet::from([22, 2222]);
        let mut all = config(&[], &[80, 22]);
        leave_alone(&mut all, &ssh).unwrap();
        assert_eq!(all.redirect.inbound.exclude_ports, [80, 22, 2222].map(Port::of));
        let once = all.clone();
        leave_alone(&mut all, &ssh).unwrap();
        assert_eq!(all, once);
        let mut some = config(&[80, 2222], &[]);
        leave_alone(&mut some, &ssh).unwrap();
        assert_eq!(some.redirect.inbound.include_ports, [Port::of(80)]);
        // An empty list would mean every port.
        assert_eq!(leave_alone(&mut config(&[22], &[]), &ssh).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn what_is_redirected_is_said_with_the_real_ports() {
        let said = |config: &Config, ports: &[u16]| words(config, ports);
        assert_eq!(said(&config(&[], &[]), &[]), None);
        let (what, hint) = said(&config(&[], &[80]), &[2222]).unwrap();
        assert!(what.contains("(port 2222)") && what.contains("15006"), "{what}");
        assert!(hint.starts_with("--exclude-inbound-ports 80,2222 or --keep-ssh"), "{hint}");
        assert!(hint.contains("--confirm 60s"), "{hint}");
        assert!(is_redirected(&config(&[], &[80]), 22) && !is_redirected(&config(&[], &[22]), 22));
        assert!(is_redirected(&config(&[22], &[22]), 22) && !is_redirected(&config(&[80], &[]), 22));
    }
}

//! A rule in the words of iptables. Pure.

use std::fmt::Write as _;

use crate::config::values::{PortRange, UidRange};
use crate::plan::{Match, OWNER_TAG, Rule, Target};

/// Short options as people type them, or long ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `-A OUTPUT -p tcp …`
    Short,
    /// `--append OUTPUT --protocol tcp …`
    Long,
}

/// Longest comment that iptables takes: `XT_MAX_COMMENT_LEN` (256) less the terminating zero, less one that Kuma
/// leaves free.
const MAX_COMMENT: usize = 254;

/// The comment of a rule with this reason: owner tag, slash, reason.
pub fn comment(why: &str) -> String {
    let mut comment = format!("{OWNER_TAG}/{why}");
    let mut end = MAX_COMMENT.min(comment.len());
    while !comment.is_char_boundary(end) {
        end -= 1;
    }
    comment.truncate(end);
    comment
}

/// Everything of a rule behind the chain and the position, with a leading space; the order of options is Kuma's.
pub fn rule_args(rule: &Rule, comments: bool, style: Style) -> String {
    let mut out = String::new();
    if comments {
        let option = style.pick("-m", "--match");
        // Writing to a String cannot fail, here and below.
        let _ = write!(out, " {option} comment --comment {}", quoted(&comment(&rule.why)));
    }
    for matching in &rule.matches {
        write_match(&mut out, matching, style);
    }
    write_target(&mut out, &rule.target, style);
    out
}

impl Style {
    fn pick(self, short: &'static str, long: &'static str) -> &'static str {
        match self {
            Self::Short => short,
            Self::Long => long,
        }
    }
}

fn write_match(out: &mut String, matching: &Match, style: Style) {
    let not = |negated: &bool| if *negated { " !" } else { "" };
    let module = style.pick("-m", "--match");
    let protocol_option = style.pick("-p", "--protocol");
    let to_port = style.pick("--dport", "--destination-port");
    let _ = match matching {
        Match::Protocol(protocol) => write!(out, " {protocol_option} {protocol}"),
        Match::Source(net) => write!(out, " {} {net}", style.pick("-s", "--source")),
        Match::Destination { net, negated } => {
            write!(out, "{} {} {net}", not(negated), style.pick("-d", "--destination"))
        }
        Match::ForOtherHosts => write!(out, " {module} addrtype ! --dst-type LOCAL"),
        Match::InInterface(name) => write!(out, " {} {name}", style.pick("-i", "--in-interface")),
        Match::OutInterface(name) => write!(out, " {} {name}", style.pick("-o", "--out-interface")),
        Match::SourcePort(port) => write!(out, " {} {port}", style.pick("--sport", "--source-port")),
        Match::DestinationPort(port) => write!(out, " {to_port} {port}"),
        Match::DestinationPorts { protocol, ports } => {
            let ports = ports.iter().copied().map(port_range).collect::<Vec<_>>().join(",");
            write!(out, " {module} multiport {protocol_option} {protocol} {to_port} {ports}")
        }
        Match::Explicit(protocol) => write!(out, " {module} {protocol}"),
        Match::Owner { uids, negated } => {
            write!(out, " {module} owner{} --uid-owner {}", not(negated), uid_range(*uids))
        }
        Match::Invalid => write!(out, " {module} conntrack --ctstate INVALID"),
        Match::NotOriginalDestination(net) => write!(out, " {module} conntrack ! --ctorigdst {net}"),
    };
}

fn write_target(out: &mut String, target: &Target, style: Style) {
    let jump = style.pick("-j", "--jump");
    let _ = match target {
        Target::Return => write!(out, " {jump} RETURN"),
        Target::Jump(chain) => write!(out, " {jump} {}", chain.name()),
        Target::DockerOutput => write!(out, " {jump} DOCKER_OUTPUT"),
        Target::Redirect(port) => write!(out, " {jump} REDIRECT --to-ports {port}"),
        Target::CtZone(zone) => write!(out, " {jump} CT --zone {zone}"),
        Target::Drop => write!(out, " {jump} DROP"),
        Target::Log { prefix, level } => {
            write!(out, " {jump} LOG --log-prefix {prefix} --log-level {level}")
        }
    };
}

/// iptables writes ranges with a colon.
fn port_range(range: PortRange) -> String {
    if range.first == range.last {
        range.first.to_string()
    } else {
        format!("{}:{}", range.first, range.last)
    }
}

fn uid_range(range: UidRange) -> String {
    if range.first == range.last {
        range.first.to_string()
    } else {
        format!("{}:{}", range.first, range.last)
    }
}

/// In double quotes, with a backslash before each character that `iptables-restore` would read otherwise.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

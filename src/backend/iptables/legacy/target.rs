//! A target of iptables in the words of a save program. Pure.
//!
//! Layouts are those of the kernel's `include/uapi/linux/netfilter_ipv4/ipt_REJECT.h`,
//! `netfilter_ipv6/ip6t_REJECT.h` and `netfilter/nf_nat.h`.

use super::super::save::UNREAD;
use super::table::{native16, native32};
use super::words::{range, spelled};
use crate::plan::Family;

/// Everything behind `-j`, with `…` in place of what is not known here.
pub fn words(name: &str, revision: u32, data: &[u8], family: Family) -> String {
    let known = match name {
        _ if data.is_empty() => Some(String::new()),
        // The first is XT_CT_NOTRACK, the second tells by which of two names that was asked for.
        "CT" => match native16(data, 0).unwrap_or_default() & 3 {
            3 => return "NOTRACK".to_owned(),
            1 => Some(" --notrack".to_owned()),
            _ => None,
        },
        "REJECT" => reject(data, family),
        "REDIRECT" | "DNAT" | "MASQUERADE" => nat(name, revision, data, family),
        _ => None,
    };
    known.map_or_else(|| format!("{name} {UNREAD}"), |known| format!("{name}{known}"))
}

/// The answer, by its number.
fn reject(data: &[u8], family: Family) -> Option<String> {
    let four = [
        "icmp-net-unreachable",
        "icmp-host-unreachable",
        "icmp-proto-unreachable",
        "icmp-port-unreachable",
        "",
        "icmp-net-prohibited",
        "icmp-host-prohibited",
        "tcp-reset",
        "icmp-admin-prohibited",
    ];
    let six = [
        "icmp6-no-route",
        "icmp6-adm-prohibited",
        "",
        "icmp6-addr-unreachable",
        "icmp6-port-unreachable",
        "",
        "tcp-reset",
        "icmp6-policy-fail",
        "icmp6-reject-route",
    ];
    let answer = if family == Family::V4 { four } else { six };
    let word = answer.get(usize::try_from(native32(data, 0)?).ok()?).filter(|word| !word.is_empty())?;
    Some(format!(" --reject-with {word}"))
}

/// Flags, first and last address, first and last port (`struct nf_nat_range`); those of IPv4 used to be a list of one
/// (`struct nf_nat_ipv4_multi_range_compat`).
fn nat(name: &str, revision: u32, data: &[u8], family: Family) -> Option<String> {
    const ADDRESS: u32 = 1;
    const PORT: u32 = 2;
    let short = family == Family::V4 && revision == 0;
    let (flags, size, at) = if short { (native32(data, 4)?, 4, 8) } else { (native32(data, 0)?, 16, 4) };
    let port = |at: usize| Some(u32::from(u16::from_be_bytes(*data.get(at..)?.first_chunk()?)));
    // Random, persistent and the like have words of their own.
    if flags & !(ADDRESS | PORT) != 0 || short && native32(data, 0)? != 1 {
        return None;
    }
    let width = if family == Family::V4 { 4 } else { 16 };
    let address = |at: usize| data.get(at..at + width).map(spelled);
    let ports = at + 2 * size;
    let ports = (flags & PORT != 0).then(|| Some(range(port(ports)?, port(ports + 2)?, '-')));
    let ports = match ports {
        Some(ports) => Some(ports?),
        None => None,
    };
    if name != "DNAT" {
        return Some(ports.map_or_else(String::new, |ports| format!(" --to-ports {ports}")));
    }
    let (first, last) = (address(at)?, address(at + size)?);
    let addresses = if first == last { first } else { format!("{first}-{last}") };
    let addresses = if flags & ADDRESS != 0 { addresses } else { String::new() };
    Some(match ports {
        Some(ports) if family == Family::V6 && !addresses.is_empty() => {
            format!(" --to-destination [{addresses}]:{ports}")
        }
        Some(ports) => format!(" --to-destination {addresses}:{ports}"),
        None => format!(" --to-destination {addresses}"),
    })
}

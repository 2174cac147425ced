//! Rules of an installation in a text in the form of iptables-save. Pure.

use crate::backend::firewalld::args;
use crate::backend::iptables::lines::lines;
use crate::plan::{OwnChain, Table};

/// The first and the last line, counted from 1, of what an installation wrote: our chains, what is in them and leads to
/// them, and rules with the owner tag.
pub fn lines_of_ours(text: &str) -> Option<(usize, usize)> {
    let mut found: Option<(usize, usize)> = None;
    let mut nat = false;
    let mut number = 1;
    for line in lines(text) {
        let more = line.matches('\n').count();
        let word = line.trim();
        if let Some(table) = word.strip_prefix('*') {
            nat = table.trim() == Table::Nat.name();
        } else if is_ours(word, nat) {
            let first = found.map_or(number, |(first, _)| first);
            found = Some((first, number + more));
        }
        number += more + 1;
    }
    found
}

fn is_ours(line: &str, nat: bool) -> bool {
    if let Some(declared) = line.strip_prefix(':') {
        let name = declared.split_ascii_whitespace().next().unwrap_or_default();
        return nat && OwnChain::named(name).is_some();
    }
    // With counters before it.
    let rule = match line.strip_prefix('[') {
        Some(counted) => counted.split_once(']').map_or("", |(_, rule)| rule.trim_start()),
        None => line,
    };
    if !rule.starts_with('-') {
        return false;
    }
    let Some(words) = args::split(rule) else { return false };
    let own_chain = words.get(1).is_some_and(|chain| OwnChain::named(chain).is_some());
    args::is_tagged(&words) || nat && (own_chain || args::leads_to_us(&words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_installation_wrote_counts() {
        let theirs = "# kuma/mesh/transparent/proxy\n*filter\n:INPUT ACCEPT [0:0]\n:KUMA_MESH_INBOUND - [0:0]\n\
                      -A INPUT -m comment --comment \"about kuma/mesh/transparent/proxy\" -j ACCEPT\nCOMMIT\n*nat\n\
                      -A OUTPUT -m comment --comment KUMA_MESH_INBOUND -j RETURN\n# -A OUTPUT -j KUMA_MESH_OUTBOUND\n";
        assert_eq!(lines_of_ours(theirs), None);
        for (ours, last) in [
            (":KUMA_MESH_INBOUND - [0:0]", 10),
            ("-A KUMA_MESH_OUTBOUND -j RETURN", 10),
            ("[7:8] -A OUTPUT -p tcp -j KUMA_MESH_OUTBOUND", 10),
            ("-A OUTPUT -m comment --comment kuma/mesh/transparent/proxy/x -j LOG", 10),
            ("-A OUTPUT -m comment --comment \"kuma/mesh/transparent/proxy/x\ny\" -j LOG", 11),
        ] {
            assert_eq!(lines_of_ours(&format!("{theirs}{ours}\nCOMMIT\n")), Some((10, last)), "{ours}");
        }
    }

    #[test]
    fn the_span_goes_from_the_first_to_the_last() {
        let text = "*nat\n:KUMA_MESH_INBOUND - [0:0]\n-A X -j Y\n-A KUMA_MESH_INBOUND -j RETURN\n-A X -j Z\nCOMMIT\n";
        assert_eq!(lines_of_ours(text), Some((2, 4)));
        assert_eq!(lines_of_ours(""), None);
    }
}

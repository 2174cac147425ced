//! What is said of IPv4 and of IPv6 in the same words, said once.

use crate::status::model::Finding;
use crate::text::is_command;

/// What one family has in place of the other.
const PAIRS: [(&str, &str); 4] =
    [("IPv4", "IPv6"), ("127.0.0.6", "::6"), ("127.0.0.1", "::1"), ("0.0.0.0/0", "::/0")];
/// So many findings are compared with the next one.
const COMPARED: usize = 64;

/// One text for both, if they differ in the family alone.
pub fn both(one: &str, other: &str) -> Option<String> {
    let (mut ones, mut others) = (one.split('\''), other.split('\''));
    let mut parts = Vec::new();
    loop {
        let (part, of_other) = match (ones.next(), others.next()) {
            (None, None) => return Some(parts.join("'")),
            (Some(part), Some(of_other)) => (part, of_other),
            _ => return None,
        };
        parts.push(if part == of_other {
            part.to_owned()
        } else if is_command(part) {
            same_command(part, of_other)?
        } else {
            same_words(part, of_other)?
        });
    }
}

/// Both commands, one after the other.
fn same_command(one: &str, other: &str) -> Option<String> {
    let plain = |text: &str| text.replace("ip6tables", "iptables").replace(" ip6 ", " ip ");
    let (four, six) = if one.contains("ip6") { (other, one) } else { (one, other) };
    (plain(four) == plain(six)).then(|| format!("{four} && {six}"))
}

fn same_words(one: &str, other: &str) -> Option<String> {
    let same = |(one, other): (&str, &str)| {
        let exchanged = |(four, six): &(&str, &str)| {
            let (from, to) = if one.contains(four) { (*four, *six) } else { (*six, *four) };
            (one.contains(from) && one.replace(from, to) == other)
                .then(|| one.replace(from, &format!("{four} and {six}")))
        };
        match (one, other) {
            _ if one == other => Some(one.to_owned()),
            ("ip", "ip6") | ("ip6", "ip") => Some("ip and ip6".to_owned()),
            _ => PAIRS.iter().find_map(exchanged),
        }
    };
    let (ones, others) = (one.split(' '), other.split(' '));
    if ones.clone().count() != others.clone().count() {
        return None;
    }
    let all: Option<Vec<String>> = ones.zip(others).map(same).collect();
    all.map(|all| all.join(" "))
}

/// Findings, each once for both families.
pub fn once(findings: impl IntoIterator<Item = Finding>) -> Vec<Finding> {
    let (mut all, mut seen): (Vec<Finding>, Vec<Finding>) = (Vec::new(), Vec::new());
    for next in findings {
        if seen.iter().rev().take(COMPARED).any(|known| *known == next) {
            continue;
        }
        seen.push(next.clone());
        let merged = |known: &Finding| {
            let fix = match (&known.fix, &next.fix) {
                (None, None) => None,
                (Some(one), Some(other)) => Some(both(one, other)?),
                _ => return None,
            };
            Some(Finding { what: both(&known.what, &next.what)?, fix })
        };
        let mut known = all.iter().enumerate().rev().take(COMPARED);
        let found = known.find_map(|(at, known)| Some((at, merged(known)?)));
        match found {
            Some((at, merged)) => all[at] = merged,
            None => all.push(next),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_in_the_family_alone_is_said_once() {
        let of = |family: &str, ip: &str, tables: &str| {
            Finding::new(
                format!(
                    "nothing that arrives over {family} reaches it: 'policy drop' in chain INPUT of {ip} filter drops it"
                ),
                format!("run '{tables} -I INPUT -p tcp --dport 15006 -j ACCEPT', and keep it"),
            )
        };
        let (four, six) = (of("IPv4", "ip", "iptables"), of("IPv6", "ip6", "ip6tables"));
        let said = once([four.clone(), four, Finding::note("between"), six.clone(), six]);
        let one = Finding::new(
            "nothing that arrives over IPv4 and IPv6 reaches it: 'policy drop' in chain INPUT of ip and ip6 filter drops it",
            "run 'iptables -I INPUT -p tcp --dport 15006 -j ACCEPT && ip6tables -I INPUT -p tcp --dport 15006 -j ACCEPT', \
             and keep it",
        );
        assert_eq!(said, [one, Finding::note("between")]);
        let one = both("it comes from ::6, (IPv6)", "it comes from 127.0.0.6, (IPv4)");
        assert_eq!(one.as_deref(), Some("it comes from 127.0.0.6 and ::6, (IPv4 and IPv6)"));
    }

    #[test]
    fn what_differs_in_more_is_said_of_each() {
        for (one, other) in [
            ("TCP port 80 (IPv4)", "TCP port 81 (IPv6)"),
            ("'-s 10.0.0.1/32 -j DROP' in it", "'-s fd00::1/128 -j DROP' in it"),
            ("IPv4", "IPv6 and more"),
            ("run 'iptables -F'", "run 'ip6tables -X'"),
        ] {
            assert_eq!(both(one, other), None, "{one}");
        }
    }
}

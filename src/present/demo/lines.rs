//! The lines themselves.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use super::{Answer, Cast, DNS, Flow, INBOUND, Ink, Lookup, OUTBOUND, Receipt, Style, Tally, WIDTH, Way};
use crate::plan::Family;
use crate::sidecar::Channel;
use crate::sidecar::forward::Seen;

/// How far everything below a heading stands to the right.
const INDENT: &str = "   ";

/// At the very beginning.
pub fn title(style: Style) -> String {
    let mut text = style.ink(Ink::Bold, "tproxy demo");
    text.push_str(
        ": two hosts with a cable between them, inside this process alone.\n\
         Nothing on this machine is changed, and nothing stays.\n\n\
         An app talks to a shop, a customer to the app. After an installation, all of it\n\
         goes through a proxy beside the app, the sidecar, and neither end can tell.\n\n",
    );
    text
}

/// What exists, and who works there.
pub fn picture(style: Style, cast: &Cast, strangers: usize) -> String {
    const LEFT: usize = 36;
    const RIGHT: usize = 25;
    let addresses =
        |addresses: &[IpAddr]| addresses.iter().map(|addr| format!("  {addr}")).collect::<Vec<_>>().concat();
    let app = match &cast.guest {
        None => [format!("app      user {:<5}        :8080", cast.app), String::new()],
        Some(guest) => {
            ["app      listens            :8080".to_owned(), format!("  its container{}", addresses(guest))]
        }
    };
    let [first, second] = app;
    let left = [
        first,
        second,
        format!("sidecar  user {:<5}  out   :{OUTBOUND}", cast.sidecar),
        format!("                     in    :{INBOUND}"),
        format!("                     DNS   :{DNS}"),
    ];
    let right = ["shop           :80", "DNS server     :53", "customer", "", ""];
    let between = ["", "  cable  ", "─────────", "", ""];
    let mut text = String::new();
    let heads = [format!("host A{}", addresses(&cast.near)), format!("host B{}", addresses(&cast.far))];
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  {:<width$}{}", heads[0], heads[1], width = LEFT + 13);
    let line = |count: usize| "─".repeat(count);
    let _ = writeln!(text, " ┌{}┐         ┌{}┐", line(LEFT + 2), line(RIGHT + 2));
    for ((left, between), right) in left.iter().zip(between).zip(right) {
        let _ = writeln!(text, " │ {left:<LEFT$} │{between:<9}│ {right:<RIGHT$} │");
    }
    let _ = writeln!(text, " └{}┘         └{}┘", line(LEFT + 2), line(RIGHT + 2));
    if cast.guest.is_some() {
        text.push_str(
            "\nRules know the sidecar by its user, and only one user can be mapped here. So the\n\
             app connects from a container of host A, which --vnet redirects too. With\n\
             newuidmap (package uidmap) and a range in /etc/subuid it needs no container.\n",
        );
    }
    if cast.families.len() < Family::BOTH.len() {
        text.push_str("\nThis machine has no IPv6, so all of this is shown with IPv4 alone.\n");
    }
    if strangers > 0 {
        let _ = writeln!(text, "\nHost A has {strangers} foreign firewall rules.");
    }
    style.done(text)
}

/// Above an act.
pub fn heading(style: Style, text: &str) -> String {
    format!("\n{}\n\n", style.ink(Ink::Bold, text))
}

/// A command, as it is typed; a flag and its value stay on one line.
pub fn command(style: Style, verb: &str, flags: &[String]) -> String {
    let mut lines = vec![format!("{INDENT}$ tproxy {verb}")];
    for (index, flag) in flags.iter().enumerate() {
        let more = if index + 1 < flags.len() { " \\".len() } else { 0 };
        let Some(last) = lines.last_mut() else { continue };
        if last.chars().count() + 1 + flag.chars().count() + more <= WIDTH {
            *last = format!("{last} {flag}");
        } else {
            last.push_str(" \\");
            lines.push(format!("{INDENT}    {flag}"));
        }
    }
    lines.iter().map(|line| style.ink(Ink::Bold, line) + "\n").collect()
}

/// What it said.
pub fn receipt(style: Style, receipt: &Receipt, took: Duration) -> String {
    let rules: Vec<_> = receipt.rules.iter().map(|(family, count)| format!("{count} {family}")).collect();
    let rules = rules.join(" and ");
    let what = match (receipt.installed, receipt.changed) {
        (true, true) => format!("{rules} rules in place"),
        (false, true) => format!("{rules} rules removed"),
        (_, false) => "nothing to do".to_owned(),
    };
    let where_ = receipt.where_.as_ref().map_or(String::new(), |place| format!(" ({place})"));
    let line = format!("{INDENT}{what}{where_}, in {} ms", took.as_millis());
    format!("{}\n\n", style.ink(Ink::Dim, &line))
}

/// Families that went the same way stand on one line.
fn together(ways: &[(Family, Way)]) -> Vec<(&Way, String)> {
    let mut groups: Vec<(&Way, String)> = Vec::new();
    for (family, way) in ways {
        match groups.iter_mut().find(|(of, _)| *of == way) {
            Some((_, families)) => *families = format!("{families} and {family}"),
            None => groups.push((way, family.to_string())),
        }
    }
    groups
}

/// An arrow from end to end, as long as one through the sidecar.
const STRAIGHT: &str = "─────────────────────▶";

fn through(style: Style, port: u16) -> String {
    format!("──▶ {}", style.ink(Ink::Sidecar, &format!(":{port} sidecar")))
}

/// Who talked to whom, and through which port.
pub fn flows(style: Style, flows: &[Flow]) -> String {
    let mut text = String::new();
    for flow in flows {
        let (from, to) = (flow.from, format!("{} :{}", flow.to, flow.port));
        for (way, families) in together(&flow.ways) {
            let line = match way {
                Way::Straight => format!("{from:<9} {STRAIGHT} {to:<11}  {families}"),
                Way::Sidecar(channel) => {
                    let port = match channel {
                        Channel::Outbound => OUTBOUND,
                        Channel::Inbound => INBOUND,
                    };
                    format!("{from:<9} {} ──▶ {to:<11}  {families}", through(style, port))
                }
                Way::Lost(why) => {
                    let line = cut(&format!("{from:<9} did not reach {to} over {families}: {why}"));
                    style.ink(Ink::Bad, &line)
                }
            };
            let _ = writeln!(text, "{INDENT}{}", line.trim_end());
        }
    }
    style.done(text)
}

/// Who answered a question, and what.
pub fn lookup(style: Style, lookup: &Lookup) -> String {
    let mut groups: Vec<(bool, Vec<String>)> = Vec::new();
    let mut text = String::new();
    for (family, answer) in &lookup.answers {
        match answer {
            Ok(Answer { by_sidecar, found }) => {
                let found = found.map_or("no such name".to_owned(), |addr| addr.to_string());
                match groups.iter_mut().find(|(of, _)| of == by_sidecar) {
                    Some((_, answers)) if answers.contains(&found) => {}
                    Some((_, answers)) => answers.push(found),
                    None => groups.push((*by_sidecar, vec![found])),
                }
            }
            Err(why) => {
                let line = cut(&format!("app       got no answer over {family}: {why}"));
                let _ = writeln!(text, "{INDENT}{}", style.ink(Ink::Bad, &line));
            }
        }
    }
    for (by_sidecar, answers) in groups {
        let (name, answers) = (lookup.name, answers.join(", "));
        let way = if by_sidecar {
            format!("{}                ", through(style, DNS))
        } else {
            format!("{STRAIGHT} DNS :53    ")
        };
        let _ = writeln!(text, "{INDENT}app       {way}  {name}? {answers}");
    }
    style.done(text)
}

/// What the sidecar noted.
pub fn seen(style: Style, seen: &[Seen]) -> String {
    if seen.is_empty() {
        return format!("\n{INDENT}The sidecar saw nothing of it.\n");
    }
    let mut text = format!("\n{INDENT}The sidecar saw\n");
    for seen in seen {
        let (port, from, what) = match seen {
            Seen::Connection { channel: Channel::Outbound, peer, original } => {
                (OUTBOUND, peer, format!("to {original}"))
            }
            Seen::Connection { channel: Channel::Inbound, peer, original } => {
                (INBOUND, peer, format!("to {original}"))
            }
            Seen::Question { name, from } => (DNS, from, format!("{name}?")),
        };
        let line = cut(&format!("  on :{port}  from {:<20}  {what}", from.to_string()));
        let _ = writeln!(text, "{INDENT}{}", style.ink(Ink::Dim, &line));
    }
    text
}

/// What became of the load.
pub fn tally(style: Style, tally: &Tally) -> String {
    let ink = if tally.escaped == 0 { Ink::Good } else { Ink::Bad };
    let escaped = format!("{} of {} connections escaped", tally.escaped, tally.connections);
    let failed = tally.connections - tally.escaped - tally.through;
    let mut text = format!(
        "{INDENT}{}: {} went through the sidecar, {failed} failed\n",
        style.ink(ink, &escaped),
        tally.through
    );
    for (why, count) in tally.lost.iter().take(5) {
        let _ = writeln!(text, "{INDENT}  {}", style.ink(Ink::Bad, &cut(&format!("{count}: {why}"))));
    }
    text
}

/// Whether the firewall is as it was.
pub fn firewall(style: Style, changes: &[String], size: usize) -> String {
    if changes.is_empty() && size == 0 {
        let empty = style.ink(Ink::Good, "The firewall is empty, as it was before.");
        return format!("\n{INDENT}{empty}\n");
    }
    if changes.is_empty() {
        let same = "The firewall is as it was before, counters and empty built-in tables aside";
        let same = style.ink(Ink::Good, same);
        return format!(
            "\n{INDENT}{same}\n{INDENT}({size} bytes of chains, rules and sets were compared).\n"
        );
    }
    let mut text = format!("\n{INDENT}{}\n", style.ink(Ink::Bad, "The firewall is not as it was before:"));
    for change in changes.iter().take(10) {
        let _ = writeln!(text, "{INDENT}{}", cut(&crate::text::escape(change)));
    }
    text
}

/// At the very end.
pub fn end(style: Style, took: Duration) -> String {
    let mut text =
        format!("\nDone in {:.1} s; the two hosts are gone. On a real one:\n\n", took.as_secs_f64());
    for line in ["sudo tproxy install --kuma-dp-user kuma-dp --redirect-dns", "sudo tproxy verify"] {
        let _ = writeln!(text, "{INDENT}{}", style.ink(Ink::Bold, &format!("$ {line}")));
    }
    text
}

/// Leaves room for the indent.
fn cut(line: &str) -> String {
    let most = WIDTH - INDENT.len() - 2;
    if line.chars().count() <= most {
        return line.to_owned();
    }
    line.chars().take(most - 3).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const PLAIN: Style = Style { colour: false, unicode: true };

    #[track_caller]
    fn assert_fits(text: &str) {
        let wide: Vec<_> = text.lines().filter(|line| line.chars().count() > WIDTH).collect();
        assert!(wide.is_empty(), "{wide:#?}");
    }

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn pictures_have_straight_walls() {
        let (near, far) = (vec![addr("10.0.0.1"), addr("fd00::1")], vec![addr("10.0.0.2"), addr("fd00::2")]);
        for guest in [None, Some(vec![addr("10.0.1.2"), addr("fd00:1::2")])] {
            let families = Family::BOTH.to_vec();
            let cast =
                Cast { app: 1000, sidecar: 5678, near: near.clone(), far: far.clone(), guest, families };
            let text = picture(PLAIN, &cast, 7);
            assert_fits(&text);
            let walls = |line: &str| -> Vec<_> {
                line.chars()
                    .enumerate()
                    .filter(|(_, char)| "│┌┐└┘".contains(*char))
                    .map(|(at, _)| at)
                    .collect()
            };
            let walls: Vec<_> = text.lines().map(walls).filter(|walls| !walls.is_empty()).collect();
            assert_eq!(walls.len(), 7);
            assert!(walls.iter().all(|of| *of == walls[0]), "{text}");
        }
    }

    #[test]
    fn families_that_went_different_ways_stand_apart() {
        let lost = "Connection refused by somebody who had a great many words to say about it (os error 111)";
        let ways =
            vec![(Family::V4, Way::Sidecar(Channel::Outbound)), (Family::V6, Way::Lost(lost.to_owned()))];
        let text = flows(PLAIN, &[Flow { from: "customer", to: "app", port: 8080, ways }]);
        assert_fits(&text);
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        assert_eq!(lines[0], "customer  ──▶ :15001 sidecar ──▶ app :8080    IPv4");
        assert!(lines[1].starts_with("customer  did not reach app :8080 over IPv6: Connection refused"));
    }

    #[test]
    fn answers_of_different_servers_stand_apart() {
        let answers = vec![
            (Family::V4, Ok(Answer { by_sidecar: true, found: Some(addr("10.0.0.2")) })),
            (Family::V6, Ok(Answer { by_sidecar: false, found: None })),
        ];
        let text = lookup(PLAIN, &Lookup { name: "shop.mesh", answers });
        assert_fits(&text);
        let words: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0], ["app", "──▶", ":15053", "sidecar", "shop.mesh?", "10.0.0.2"]);
        assert_eq!(words[1][2..], ["DNS", ":53", "shop.mesh?", "no", "such", "name"]);
        // One below the other.
        let column =
            |line: &str| line.chars().collect::<String>().split("shop").next().map(|l| l.chars().count());
        let columns: Vec<_> = text.lines().map(column).collect();
        assert_eq!(columns[0], columns[1], "{text}");
    }

    #[test]
    fn what_was_compared_is_said() {
        assert_eq!(firewall(PLAIN, &[], 0).trim(), "The firewall is empty, as it was before.");
        let same = firewall(PLAIN, &[], 12);
        assert!(same.contains("counters and empty built-in tables aside\n   (12 bytes of"), "{same}");
        assert_fits(&same);
        assert!(firewall(PLAIN, &["- a rule".to_owned()], 0).contains("is not as it was before"));
    }

    #[test]
    fn long_commands_are_broken_between_flags() {
        let flags = ["--kuma-dp-user 0", "--vnet guest0:10.0.1.0/24", "--vnet guest0:fd00:1::/64"];
        let text = command(PLAIN, "install", &flags.map(str::to_owned));
        assert_fits(&text);
        assert_eq!(text.lines().count(), 2, "{text}");
        let typed = text.replace("\\\n", "").split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(typed, format!("$ tproxy install {}", flags.join(" ")));
    }

    #[test]
    fn a_tally_adds_up() {
        let lost = BTreeMap::from([("no answer".to_owned(), 3)]);
        let some = Tally { connections: 10, escaped: 2, through: 5, lost };
        let text = tally(PLAIN, &some);
        assert!(text.contains("2 of 10 connections escaped: 5 went through the sidecar, 3 failed"), "{text}");
        assert!(!some.is_clean() && !Tally::default().is_clean());
        assert!(Tally { connections: 5, through: 5, ..Tally::default() }.is_clean());
    }

    #[test]
    fn ink_and_unicode_are_for_those_who_can_see_them() {
        let plain = Style { colour: false, unicode: false };
        let flow = Flow { from: "app", to: "shop", port: 80, ways: vec![(Family::V4, Way::Straight)] };
        assert!(flows(plain, std::slice::from_ref(&flow)).is_ascii());
        let inked = Style { colour: true, unicode: true };
        assert!(heading(inked, "x").contains("\u{1b}[1m") && !heading(PLAIN, "x").contains('\u{1b}'));
    }

    #[test]
    fn receipts_are_read_and_shortened() {
        let json = r#"{"action":"install","changed":true,"variant":"nft","rules":{"ipv4":18,"ipv6":17}}"#;
        let text = receipt(PLAIN, &Receipt::read(json), Duration::from_millis(41));
        assert_eq!(text.trim(), "18 IPv4 and 17 IPv6 rules in place (nft), in 41 ms");
        let json = r#"{"action":"uninstall","changed":true,"variant":null,"rules":{"ipv4":18}}"#;
        let text = receipt(PLAIN, &Receipt::read(json), Duration::from_millis(7));
        assert_eq!(text.trim(), "18 IPv4 rules removed, in 7 ms");
    }
}

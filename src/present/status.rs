//! What `tproxy status` found, for people.

use std::fmt::Write as _;

use super::both::{both, once};
use crate::plan::Family;
use crate::status::listen::place;
use crate::status::model::{
    Ahead, Compared, Difference, Finding, Installer, Listening, Program, Report, Resolvers, Verdict, Who,
};
use crate::status::words::time;
use crate::text::{escape, wrapped};

/// Columns that a terminal is sure to have.
const WIDTH: usize = 80;

/// For people: 80 columns are enough for it.
pub fn status_text(report: &Report) -> String {
    let mut text = String::new();
    line(&mut text, "", headline(report));
    if report.verdict != Verdict::NotInstalled {
        summary(&mut text, report);
        ports(&mut text, report);
    }
    if let Some(resolvers) = report.resolvers.as_ref().filter(|resolvers| !resolvers.as_captured()) {
        section(&mut text, "DNS servers");
        resolver_lines(&mut text, resolvers);
    }
    if !report.differences.is_empty() {
        section(&mut text, "Rules that are not as wanted");
        differences(&mut text, &report.differences);
        if !report.out_of_our_hands {
            fix(
                &mut text,
                "run 'tproxy install' with the wanted configuration; it changes only what differs",
            );
        }
    }
    if !report.ahead.is_empty() {
        section(&mut text, "Rules that take traffic before ours see it");
        let mut told = Vec::new();
        for ahead in &report.ahead {
            ahead_lines(&mut text, report, ahead, &mut told);
        }
    }
    let meets = report.meets.iter().map(|met| Finding::new(&met.what, &met.fix));
    let title = "Rules that meet the sidecar in place of others";
    findings(&mut text, title, &meets.collect::<Vec<_>>());
    findings(&mut text, "Problems", &report.problems);
    findings(&mut text, "Notes", &report.notes);
    if report.verdict == Verdict::NotInstalled && report.notes.is_empty() {
        fix(&mut text, "run 'tproxy install'; 'tproxy install --dry-run' shows what it would do");
    }
    text
}

fn headline(report: &Report) -> &'static str {
    match report.verdict {
        Verdict::Installed => "installed, as wanted",
        Verdict::Differs if report.rules_are_as_wanted() => {
            "installed, but redirected traffic does not reach the sidecar"
        }
        Verdict::Differs => "installed, but not as wanted",
        Verdict::NotInstalled => "not installed",
    }
}

fn summary(text: &mut String, report: &Report) {
    let rules: Vec<_> =
        report.families.iter().map(|family| format!("{} for {}", family.rules, family.family)).collect();
    let rules = if rules.is_empty() { "none".to_owned() } else { rules.join(" and ") };
    let rules = match (report.table_rules, &report.variant) {
        // Most of them are for both families, so the two numbers do not add up to the rules there are.
        (Some(all), _) => format!("{all} in the nftables table inet kuma_mesh: {rules}"),
        (None, Some(variant)) => format!("{rules}, through iptables ({variant})"),
        (None, None) => rules,
    };
    field(text, "rules", &rules);
    if let Some(installer) = &report.installer {
        field(text, "installed", &installed(installer));
    }
    field(text, "compared", compared(report.compared));
    if let Some(sidecar) = &report.sidecar {
        let name = sidecar.name.as_ref().map_or(String::new(), |name| format!(" ({})", escape(name)));
        field(text, "sidecar", &format!("UID {}{name}", sidecar.uid));
    }
}

fn installed(installer: &Installer) -> String {
    let since = installer.since.map_or(String::new(), |since| format!(" on {}", time(since)));
    let version = installer.version.as_ref().map(|version| escape(version));
    match installer.program {
        Program::Tproxy => format!("by tproxy{}{since}", version.map_or(String::new(), |v| format!(" {v}"))),
        Program::Unrecorded => {
            let like = version
                .map_or(String::new(), |version| format!("; the rules are those of kumactl {version}"));
            format!("unknown: kumactl, or restored from a file, or tproxy without a record{like}")
        }
        Program::UnrecordedTable => "unknown: tproxy without a record, or restored from a file".to_owned(),
    }
}

fn compared(compared: Compared) -> &'static str {
    match compared {
        Compared::Given => "with the configuration given to this command",
        Compared::Recorded => "with the configuration that the installation recorded",
        Compared::Inferred => "with a configuration read off the rules, as none was given or recorded",
        Compared::Nothing => "with nothing",
    }
}

/// A table: a line for each port, a column for each family.
fn ports(text: &mut String, report: &Report) {
    let hits = report.hits;
    let rows = [
        ("outbound", report.ports.outbound, hits.outbound),
        ("inbound", report.ports.inbound, hits.inbound),
        ("dns", report.ports.dns, hits.dns),
    ];
    if rows.iter().all(|(_, port, _)| port.is_none()) {
        text.push('\n');
        return line(text, "  ", "no rule redirects anything");
    }
    let mut families: Vec<Family> = report.listeners.iter().map(|listening| listening.family).collect();
    families.sort_unstable();
    families.dedup();
    text.push('\n');
    let heads: Vec<_> = families.iter().map(|family| format!("{:<21}", format!("on {family}"))).collect();
    let heads = heads.join(" ");
    line(text, "", format!("{:<11}port   redirected  {heads}", "").trim_end());
    for (name, port, redirected) in rows {
        let Some(port) = port else { continue };
        let cells: Vec<_> = families
            .iter()
            .map(|family| {
                let here = |l: &&Listening| l.name == name && l.family == *family;
                let who = report.listeners.iter().find(here).map_or("", |l| short(&l.who));
                format!("{who:<21}")
            })
            .collect();
        let row = format!("  {name:<9}{port:<7}{:<12}{}", number(redirected), cells.join(" "));
        line(text, "", row.trim_end());
    }
    let excluded = hits.excluded.map(|count| format!("left alone as excluded: {count} connections"));
    let dropped = hits.invalid_dropped.map(|count| format!("dropped as invalid: {count} packets"));
    let rest: Vec<_> = excluded.into_iter().chain(dropped).collect();
    if !rest.is_empty() {
        paragraph(text, "  ", "  ", &rest.join("; "));
    }
    for (name, ..) in rows {
        let here: Vec<_> = report.listeners.iter().filter(|listening| listening.name == name).collect();
        if let Some(warning) = refused(&here) {
            paragraph(text, "  ", "    ", &warning);
        }
    }
    for listening in &report.listeners {
        if let Some(warning) = warning(listening, report.sidecar.as_ref().map(|sidecar| sidecar.uid)) {
            paragraph(text, "  ", "    ", &warning);
        }
    }
}

/// What is lost at a port on which nobody listens; the port of one kind of traffic, by family.
fn refused(here: &[&Listening]) -> Option<String> {
    let silent: Vec<_> = here.iter().filter(|listening| listening.who == Who::Nobody).collect();
    let Listening { name, port, family, .. } = silent.first()?;
    let of = if silent.len() == here.len() { String::new() } else { format!("{family} ") };
    let lost = match *name {
        "dns" => format!("redirected {of}DNS questions get no answer"),
        "inbound" => format!("every new {of}connection to this host is refused"),
        _ => format!("every new {of}connection of local processes is refused"),
    };
    Some(format!("nobody listens on {of}port {port} ({name}): {lost} until the sidecar does"))
}

fn number(count: Option<u64>) -> String {
    count.map_or_else(|| "-".to_owned(), |count| count.to_string())
}

fn short(who: &Who) -> &'static str {
    match who {
        Who::Sidecar => "the sidecar listens",
        Who::Other { .. } => "ANOTHER PROGRAM",
        Who::Elsewhere(_) => "not at that address",
        Who::Nobody => "nobody listens",
        Who::Unknown => "unknown",
    }
}

fn warning(listening: &Listening, sidecar: Option<u32>) -> Option<String> {
    let Listening { name, port, family, who } = listening;
    match who {
        Who::Other { address, uid, process } => {
            let at = place(address);
            let process = process.as_ref().map_or(String::new(), |process| format!(", {}", escape(process)));
            let sidecar = sidecar
                .map_or_else(|| "the user that the rules are for".to_owned(), |uid| format!("UID {uid}"));
            Some(format!(
                "{family} port {port} ({name}){at} is taken by UID {uid}{process}, whose own traffic is redirected: what it \
                 passes on comes back to it without end. If that is the sidecar, run it as {sidecar}, or install with \
                 --kuma-dp-user {uid}; else stop that program, or install with another port for the sidecar"
            ))
        }
        Who::Elsewhere(address) => Some(format!(
            "{family} port {port} ({name}) is listened on at {address} alone, where redirected traffic does not go: \
             let the sidecar listen on all addresses"
        )),
        _ => None,
    }
}

fn resolver_lines(text: &mut String, resolvers: &Resolvers) {
    let file = escape(&resolvers.file);
    if let Err(why) = &resolvers.current {
        paragraph(
            text,
            "  ",
            "    ",
            &format!("{} - so the redirected servers cannot be compared with it", escape(why)),
        );
        fix(text, "restore that file, or install with --redirect-all-dns-traffic, which needs none");
        return;
    }
    for addr in &resolvers.not_captured {
        paragraph(
            text,
            "  ",
            "    ",
            &format!("{addr} is in {file}, but questions to it are not redirected"),
        );
    }
    for addr in &resolvers.gone {
        paragraph(text, "  ", "    ", &format!("{addr} is redirected, but no longer in {file}"));
    }
    fix(text, "run 'tproxy install' again; it takes the servers of today");
}

fn differences(text: &mut String, differences: &[Difference]) {
    let mut place = String::new();
    for difference in differences {
        let Difference { kind, chain, set, rule, .. } = difference;
        let here = place_of(difference);
        if here != place {
            line(text, "  ", &here);
            place = here;
        }
        let rule = match (rule.as_str(), chain.as_str(), set) {
            ("", _, Some(set)) => format!("the set {}", escape(set)),
            ("", "", None) => "the order of what is in it".to_owned(),
            ("", chain, None) => format!("the chain {}", escape(chain)),
            (rule, ..) => escape(rule),
        };
        paragraph(text, &format!("    {:<11}", kind.name()), &" ".repeat(15), &rule);
    }
}

fn place_of(difference: &Difference) -> String {
    let Difference { variant, family, table, chain, set, .. } = difference;
    match (variant, family, set) {
        (Some(variant), Some(family), _) => format!("{family} {table} {} ({variant})", escape(chain)),
        (_, _, Some(set)) => format!("{table} set {}", escape(set)),
        _ if chain.is_empty() => table.clone(),
        _ => format!("{table} chain {}", escape(chain)),
    }
}

/// What takes the same of both families is told with the first; `told`: whose turn is over.
fn ahead_lines<'a>(text: &mut String, report: &'a Report, ahead: &'a Ahead, told: &mut Vec<&'a Ahead>) {
    if told.iter().any(|of| std::ptr::eq(*of, ahead)) {
        return;
    }
    let Ahead { place, rule, packets, fix: next, .. } = ahead;
    let alike = |of: &&Ahead| Ahead { family: ahead.family, ..(*of).clone() } == *ahead;
    let other = report.ahead.iter().filter(|of| of.family != ahead.family).find(alike);
    told.extend(other);
    let met = packets.map_or(String::new(), |packets| format!(", {packets} packets so far"));
    let taking = ahead.taking();
    let taking = other.and_then(|other| both(&taking, &other.taking())).unwrap_or(taking);
    paragraph(text, "  ", "    ", &format!("{taking}{met}"));
    paragraph(text, "    ", "      ", &format!("{}: {}", escape(place), escape(rule)));
    fix(text, next);
}

fn findings(text: &mut String, title: &str, findings: &[Finding]) {
    if findings.is_empty() {
        return;
    }
    section(text, title);
    for finding in once(findings.iter().cloned()) {
        paragraph(text, "  ", "    ", &escape(&finding.what));
        if let Some(next) = &finding.fix {
            fix(text, next);
        }
    }
}

fn section(text: &mut String, title: &str) {
    text.push('\n');
    line(text, "", &format!("{title}:"));
}

fn field(text: &mut String, name: &str, value: &str) {
    paragraph(text, &format!("  {name:<11}"), &" ".repeat(13), value);
}

fn fix(text: &mut String, next: &str) {
    paragraph(text, "  fix: ", "       ", next);
}

// Writing to a String cannot fail.
fn line(text: &mut String, indent: &str, content: &str) {
    let _ = writeln!(text, "{indent}{content}");
}

fn paragraph(text: &mut String, first: &str, further: &str, content: &str) {
    for (nth, part) in wrapped(content, WIDTH - further.len()).iter().enumerate() {
        line(text, if nth == 0 { first } else { further }, part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::model::{DifferenceKind, FamilyReport, Hits, Ports, Sidecar};

    fn report() -> Report {
        let hits = Hits {
            outbound: Some(12),
            inbound: Some(3),
            dns: Some(7),
            excluded: Some(4),
            invalid_dropped: None,
        };
        let listening = |name, port, family, who| Listening { name, port, family, who };
        let mut report = Report {
            backend: Some("iptables"),
            variant: Some("nft".into()),
            hits,
            installer: Some(Installer {
                program: Program::Tproxy,
                version: Some("0.1.0".into()),
                since: Some(1_795_254_548),
            }),
            compared: Compared::Recorded,
            families: vec![
                FamilyReport { family: Family::V4, rules: 19, hits },
                FamilyReport { family: Family::V6, rules: 19, hits: Hits::default() },
            ],
            sidecar: Some(Sidecar { uid: 5678, name: Some("kuma-dp".into()) }),
            ports: Ports { outbound: Some(15001), inbound: Some(15006), dns: Some(15053) },
            listeners: vec![
                listening("outbound", 15001, Family::V4, Who::Sidecar),
                listening("outbound", 15001, Family::V6, Who::Sidecar),
                listening("inbound", 15006, Family::V4, Who::Sidecar),
                listening("inbound", 15006, Family::V6, Who::Sidecar),
                listening("dns", 15053, Family::V4, Who::Sidecar),
                listening("dns", 15053, Family::V6, Who::Unknown),
            ],
            ..Report::nothing()
        };
        report.judge();
        report
    }

    #[test]
    fn what_only_another_process_can_change_is_not_to_be_installed_again() {
        let with = |out_of_our_hands| status_text(&Report { out_of_our_hands, ..differing() });
        let fix = "run 'tproxy install' with the wanted";
        assert!(with(false).contains(fix) && !with(true).contains(fix));
    }

    fn differing() -> Report {
        let mut report = report();
        let address = "0.0.0.0".parse().expect("an address");
        let process = Some("process 812 (nginx: master)".into());
        report.listeners[2].who = Who::Other { address, uid: 33, process };
        report.listeners[3].who = Who::Elsewhere("::1".parse().expect("an address"));
        report.listeners[0].who = Who::Nobody;
        report.listeners[1].who = Who::Nobody;
        report.listeners[4].who = Who::Nobody;
        let difference = |kind, chain: &str, rule: &str| Difference {
            kind,
            variant: Some("nft".into()),
            family: Some(Family::V4),
            table: "nat".into(),
            chain: chain.into(),
            set: None,
            rule: rule.into(),
        };
        let long = "-m comment --comment \"kuma/mesh/transparent/proxy/redirect inbound TCP traffic to our custom \
                    chain for processing\" -p tcp -j KUMA_MESH_INBOUND";
        report.differences = vec![
            difference(DifferenceKind::Missing, "PREROUTING", long),
            difference(DifferenceKind::Missing, "KUMA_MESH_INBOUND", ""),
            difference(DifferenceKind::Foreign, "KUMA_MESH_OUTBOUND", "-p tcp -j ACCEPT\u{1b}[2J"),
        ];
        report.resolvers = Some(Resolvers::compare(
            "/etc/resolv.conf".into(),
            Ok(vec!["10.0.0.2".parse().expect("an address")]),
            vec!["10.0.0.1".parse().expect("an address")],
            &[Family::V4],
        ));
        report.ahead = vec![Ahead {
            whose: "kube-proxy".into(),
            family: Family::V4,
            hook: "output",
            place: "nat OUTPUT (nft)".into(),
            rule: "-m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES".into(),
            traffic: "outbound",
            all: false,
            unsure: false,
            packets: Some(42),
            fix: "install with --redirect-outbound-insert-instead-of-append".into(),
        }];
        report.problems = vec![Finding::new("a run of tproxy was killed", "run 'tproxy install' again")];
        report.notes = vec![Finding::note("IPv6 is not redirected")];
        report.judge();
        report
    }

    #[test]
    fn reports_read_as_in_the_fixtures() {
        let fixtures = [
            (report(), include_str!("../../tests/golden/status/installed.txt")),
            (differing(), include_str!("../../tests/golden/status/differs.txt")),
            (Report::nothing(), include_str!("../../tests/golden/status/not-installed.txt")),
        ];
        for (report, wanted) in fixtures {
            let text = status_text(&report);
            assert!(text == wanted, "--- wanted\n{wanted}\n--- found\n{text}");
            assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        }
    }

    #[test]
    fn others_text_cannot_play_with_the_terminal() {
        assert!(!status_text(&differing()).contains('\u{1b}'));
    }
}

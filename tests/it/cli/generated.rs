//! Help, completions and manual pages.

use super::run::tproxy;

#[test]
fn help_groups_flags_and_hides_what_only_confuses() {
    for args in [["install", "--help"], ["install", "-h"]] {
        let said = tproxy(args).said();
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
        let headings = ["Traffic in:", "Traffic out:", "DNS:", "Host:", "Safety:", "Output:"];
        let places = headings.map(|heading| said.out.find(&format!("\n{heading}\n")).expect(heading));
        assert!(places.is_sorted(), "{places:?}");
        for hidden in
            ["kuma-dp-uid", "config-file", "ebpf", "skip-resolv-conf", "log-level", "no-config", "engine"]
        {
            assert!(!said.out.contains(hidden), "{hidden} is shown");
        }
        assert!(said.out.contains("--exclude-inbound-ports"));
    }
    let long = tproxy(["install", "--help"]).said().out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(long.contains("SSH (TCP port 22) is redirected like every other port unless it is excluded"));
}

#[test]
fn uninstalls_help_shows_what_counts_there() {
    let help = tproxy(["uninstall", "--help"]).said().out;
    for shown in ["--iptables-executables", "--wait ", "--force", "--adopt", "--dry-run", "--config"] {
        assert!(help.contains(shown), "{shown} is missing");
    }
    for hidden in ["--redirect-inbound", "--exclude-", "--strict", "--kuma-dp-user"] {
        assert!(!help.contains(hidden), "{hidden} is shown");
    }
}

#[test]
fn only_what_works_is_a_command() {
    let help = tproxy(["--help"]).said().out;
    let commands = help.split("Commands:").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = commands.lines().filter_map(|line| line.split_whitespace().next()).collect::<Vec<_>>();
    assert_eq!(
        names,
        [
            "install",
            "uninstall",
            "confirm",
            "status",
            "verify",
            "demo",
            "config",
            "completions",
            "man",
            "help"
        ]
    );
    for (name, instead) in [("diff", "install --dry-run=diff"), ("remove", "uninstall"), ("list", "status")] {
        let said = tproxy([name]).said();
        assert_eq!(said.code, Some(2), "{name}");
        assert!(said.err.contains(&format!("'{instead}'")), "{}", said.err);
    }
    assert_eq!(tproxy::<&str>([]).said().code, Some(2));
    let version = tproxy(["--version"]).said();
    assert_eq!((version.code, version.out), (Some(0), format!("tproxy {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn every_shell_gets_a_script_with_every_shown_flag() {
    for (shell, sign) in [
        ("bash", "complete -F _tproxy"),
        ("zsh", "#compdef tproxy"),
        ("fish", "complete -c tproxy"),
        ("elvish", "edit:completion"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let said = tproxy(["completions", shell]).said();
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{shell}");
        assert!(said.out.contains(sign), "{shell}");
        for word in ["uninstall", "redirect-dns-port", "sources"] {
            assert!(said.out.contains(word), "{shell}: {word}");
        }
        assert!(!said.out.contains("skip-resolv-conf"), "{shell}");
    }
    assert_eq!(tproxy(["completions", "tcsh"]).said().code, Some(2));
}

#[test]
fn bash_can_read_its_script() {
    let script = tproxy(["completions", "bash"]).said().out;
    let Ok(output) = std::process::Command::new("bash").args(["-n", "-c", &script]).output() else {
        eprintln!("skipped: there is no bash here");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn manual_pages_describe_their_command() {
    for (args, title, has) in [
        (["man"].as_slice(), ".TH tproxy 1", "uninstall"),
        (&["man", "install"], ".TH tproxy-install 1", "exclude\\-inbound\\-ports"),
        (&["man", "uninstall"], ".TH tproxy-uninstall 1", "force"),
        (&["man", "config"], ".TH tproxy-config 1", "validate"),
    ] {
        let said = tproxy(args).said();
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{args:?}");
        assert!(said.out.contains(title) && said.out.contains(has), "{args:?}: {}", said.out);
        assert!(said.out.contains(".SH NAME") && said.out.contains(".SH SYNOPSIS"), "{args:?}");
        assert!(!said.out.contains("skip\\-resolv\\-conf"), "{args:?}");
    }
    assert_eq!(tproxy(["man", "nothing"]).said().code, Some(2));
}

#[test]
fn help_of_a_command_is_its_long_help() {
    for words in [["help", "install"].as_slice(), &["help", "config", "show"]] {
        let said = tproxy(words).said();
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{words:?}");
        let flag = words[1..].iter().copied().chain(["--help"]);
        assert_eq!(said.out, tproxy(flag.collect::<Vec<_>>()).said().out);
    }
}

/// Help is wrapped, and a command that is broken without a backslash does something else when it is copied.
#[test]
fn commands_in_help_can_be_copied() {
    let path = |line: &str| line.trim_start().starts_with('/');
    for name in
        ["install", "uninstall", "confirm", "status", "verify", "demo", "config", "completions", "man"]
    {
        let examples = |columns: &str| -> Vec<String> {
            let help = tproxy([name, "--help"]).env("COLUMNS", columns).said().out;
            assert!(!help.lines().any(path), "{help}");
            let behind =
                help.split("\n\n").filter(|part| part.starts_with("Example") || part.contains("as root:"));
            behind.map(|part| part.trim_end().to_owned()).collect()
        };
        let wide = examples("250");
        assert_eq!(wide.is_empty(), !["install", "completions", "man"].contains(&name), "{name}: {wide:?}");
        for columns in ["70", "80", "100"] {
            assert_eq!(examples(columns), wide, "{name}");
        }
    }
    let help = tproxy(["man", "--help"]).env("COLUMNS", "80").said().out;
    let script = help.split("as root:\n").nth(1).expect("an example");
    let home = std::env::temp_dir();
    let traced = format!("tproxy() {{ echo page; }}; install() {{ echo \"$*\"; }}; {script}");
    let run =
        std::process::Command::new("sh").args(["-c", &traced]).current_dir(home).output().expect("a shell");
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    let at = "/usr/local/share/man/man1/tproxy";
    let wanted = format!("-D /dev/stdin -m 644 {at}.1\n-D /dev/stdin -m 644 {at}-page.1\n");
    assert_eq!((said.as_str(), run.stderr.as_slice()), (wanted.as_str(), b"".as_slice()));
}

#[test]
fn help_fits_a_hundred_columns() {
    for name in ["install", "uninstall", "status", "verify", "demo", "completions", "man"] {
        let help = tproxy([name, "--help"]).env("COLUMNS", "250").said().out;
        let long: Vec<&str> = help.lines().filter(|line| line.chars().count() > 100).collect();
        assert!(long.is_empty(), "{name}: {long:?}");
    }
}

#[test]
fn every_command_has_a_page_with_all_its_options() {
    let list = tproxy(["man", "--list"]).said().out;
    assert!(
        list.lines().any(|name| name == "config-show") && list.lines().any(|name| name == "confirm"),
        "{list}"
    );
    for name in list.lines() {
        let (page, words) = (tproxy(["man", name]).said(), name.split('-').collect::<Vec<_>>());
        assert_eq!((page.code, page.err.as_str()), (Some(0), ""), "{name}");
        assert_eq!(page.out, tproxy(["man"].iter().chain(&words).collect::<Vec<_>>()).said().out);
        let help = tproxy(words.iter().copied().chain(["--help"]).collect::<Vec<_>>()).said().out;
        for flag in help.lines().filter_map(|line| line.trim_start().strip_prefix("--")) {
            let flag = flag.split([' ', '[', '=']).next().unwrap().replace('-', "\\-");
            assert!(page.out.contains(&format!("\\-\\-{flag}")), "{name}: {flag}");
        }
    }
}

#[test]
fn pages_keep_paragraphs_and_lines() {
    let page = tproxy(["man", "install"]).said().out;
    assert!(page.contains("arrives at them\n\nNothing is excluded by default"), "{page}");
    let root = tproxy(["man"]).said().out;
    assert!(root.contains(".SH \"EXIT STATUS\"") && root.contains(".nf\n\\&  0  done"), "{root}");
}

/// What bash offers behind these words, the last one unfinished.
fn bash_offers(words: &[&str]) -> Option<Vec<String>> {
    let script = tproxy(["completions", "bash"]).said().out;
    let asked = format!(
        "{script}\nCOMP_WORDS=({}); COMP_CWORD={}; _tproxy tproxy \"${{COMP_WORDS[$COMP_CWORD]}}\" \
         \"${{COMP_WORDS[$COMP_CWORD-1]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
        words.len() - 1
    );
    let output = std::process::Command::new("bash").args(["-c", &asked]).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

#[test]
fn bash_offers_values_where_there_are_some() {
    for (flag, values) in [
        ("--backend", ["auto", "iptables", "nftables"].as_slice()),
        ("--ip-family-mode", &["dualstack", "ipv4"]),
        ("--dry-run", &["true", "false", "diff"]),
        ("--redirect-dns", &["true", "false"]),
    ] {
        let Some(offered) = bash_offers(&["tproxy", "install", flag, ""]) else {
            eprintln!("skipped: there is no bash here");
            return;
        };
        assert_eq!(offered, values, "{flag}");
    }
    assert!(
        bash_offers(&["tproxy", "install", "--kuma-dp-user", "roo"]).unwrap().contains(&"root".to_owned())
    );
    assert!(!bash_offers(&["tproxy", "install", "--config", "/et"]).unwrap().is_empty());
    assert_eq!(bash_offers(&["tproxy", "unin"]).unwrap(), ["uninstall"]);
}

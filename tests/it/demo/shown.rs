//! What is on the screen.

use super::room::{Demo, Who};
use crate::support::snapshot::Snapshot;
use crate::support::{Lab, Run, Variant};

const WIDTH: usize = 80;

/// How many connections escaped, and of how many.
fn escaped(run: &Run) -> (usize, usize) {
    let line = run.stdout.lines().find(|line| line.contains("connections escaped"));
    let words: Vec<_> = line.unwrap_or_else(|| panic!("{run}")).split_whitespace().collect();
    (words[0].parse().expect("a number"), words[2].parse().expect("a number"))
}

fn has_line(run: &Run, words: &[&str]) -> bool {
    run.stdout.lines().any(|line| line.split_whitespace().collect::<Vec<_>>() == *words)
}

/// The whole of it: twice straight, once through the sidecar.
#[track_caller]
pub fn assert_whole(run: &Run) {
    let run = run.clone().exits(0);
    let arrow = "─────────────────────▶";
    for (from, to, port) in [("app", "shop", 80), ("customer", "app", 8080)] {
        let to = [to, &format!(":{port}"), "IPv4", "and", "IPv6"];
        let straight = run.stdout.lines().filter(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            words == [&[from, arrow][..], &to].concat()
        });
        assert_eq!(straight.count(), 2, "{from} before and after: {run}");
        let through = if from == "app" { ":15001" } else { ":15006" };
        assert!(has_line(&run, &[&[from, "──▶", through, "sidecar", "──▶"][..], &to].concat()), "{run}");
    }
    let run = run.prints("shop.mesh? no such name").prints("The sidecar saw nothing of it");
    assert!(
        has_line(&run, &["app", "──▶", ":15053", "sidecar", "shop.mesh?", "10.0.0.2,", "fd00::2"]),
        "{run}"
    );
    for seen in ["on :15001", "on :15006", "on :15053"] {
        assert_eq!(run.stdout.matches(seen).count(), 2, "{seen}, once for each family: {run}");
    }
    let (escaped, of) = escaped(&run);
    assert!(escaped == 0 && of >= 100, "{run}");
    let run = run.prints(&format!("{of} went through the sidecar, 0 failed"));
    // Without iptables there is nothing in it before and after.
    let same = [
        "The firewall is as it was before, counters and empty built-in tables aside",
        "The firewall is empty, as it was before.",
    ];
    assert!(same.iter().any(|words| run.stdout.contains(words)), "{run}");
}

#[track_caller]
fn assert_readable(run: &Run) {
    let wide: Vec<_> = run.stdout.lines().filter(|line| line.chars().count() > WIDTH).collect();
    assert!(wide.is_empty(), "{wide:#?}");
    assert!(!run.stdout.contains('\u{1b}'), "colour where nobody sees it: {run}");
    assert!(run.stdout.lines().all(|line| line.trim_end() == line), "{run}");
}

#[test]
fn root_sees_all_of_it_and_the_machine_is_left_alone() {
    Lab::enter(|lab| {
        lab.install(Variant::Nft, &["--redirect-dns"]).succeeds();
        lab.silence();
        let before = Snapshot::take();
        let run = Demo::by(Who::Root).run(lab).expect("root may");
        assert_whole(&run);
        assert_readable(&run);
        assert_eq!(run.stderr, "", "{run}");
        Snapshot::take().assert_unchanged_since(&before);
    });
}

#[test]
fn an_ordinary_user_sees_the_same() {
    Lab::enter(|lab| {
        let Some(run) = Demo::by(Who::WithUsers).run(lab) else { return };
        assert_whole(&run);
        assert_readable(&run);
        run.prints("user 1000").prints("$ tproxy install --kuma-dp-user 5678 --redirect-dns\n");
    });
}

#[test]
fn with_one_user_alone_the_app_is_in_a_container() {
    Lab::enter(|lab| {
        let Some(run) = Demo::by(Who::Alone).run(lab) else { return };
        assert_whole(&run);
        assert_readable(&run);
        run.prints("only one user can be mapped here").prints("--vnet guest0:10.0.1.0/24");
    });
}

#[test]
fn a_terminal_gets_colours_unless_it_is_asked_not_to() {
    Lab::enter(|lab| {
        let shown = |no_colour: &str| {
            let program = format!("{} demo", lab.program_path().display());
            let script =
                crate::support::command::Program::new("script").args(["-qec", &program, "/dev/null"]);
            script
                .env("TERM", "xterm")
                .env("LANG", "C.UTF-8")
                .env("NO_COLOR", no_colour)
                .run()
                .exits(0)
                .stdout
        };
        assert!(shown("").contains("\u{1b}[1m"));
        assert!(!shown("1").contains('\u{1b}'));
    });
}

#[test]
fn a_screen_without_unicode_gets_none() {
    Lab::enter(|lab| {
        let run = Demo::by(Who::Root).env("LC_ALL", "C").run(lab).expect("root may").exits(0);
        assert!(run.stdout.is_ascii(), "{run}");
        run.prints("--> :15001 sidecar --> shop :80");
    });
}

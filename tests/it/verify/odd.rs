//! Hosts on which not everything can be tested, and users who may not.

use crate::support::command::{self, Program};
use crate::support::{APP, Lab, Variant};

#[test]
fn an_ordinary_user_is_told_to_be_root() {
    Lab::enter(|lab| {
        command::must("chmod", &["755", &lab.program_path().to_string_lossy()]);
        lab.program()
            .arg("verify")
            .user(APP)
            .run()
            .exits(3)
            .says("only root can send packets as other users");
    });
}

/// Whether the defaults could be verified is nobody's concern where nobody asked for them.
#[test]
fn a_clean_host_is_told_that_nothing_is_installed() {
    Lab::enter(|lab| {
        let clean = || {
            for more in [&[][..], &["-o", "json"]] {
                let run = lab.program().arg("verify").args(more).run().exits(3);
                let said = "error: nothing is installed here, and no configuration is given to verify\nhint: tproxy install\n";
                assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", said));
            }
        };
        clean();
        lab.install(Variant::Nft, &[]).succeeds();
        lab.program().arg("verify").run().exits(0);
        lab.uninstall(Variant::Nft, &[]).succeeds();
        clean();
        lab.replace("/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
        clean();
        lab.program().args(["verify", "--redirect-dns"]).run().exits(3).says("no UID or username provided");
    });
}

/// Where next to nothing can be tested, nobody is told that all is well.
#[test]
fn without_its_capabilities_it_says_so() {
    Lab::enter(|lab| {
        lab.install(Variant::Nft, &[]).succeeds();
        let program = lab.program_path().to_string_lossy().into_owned();
        let without = ["--inh-caps", "-sys_admin", "--bounding-set", "-sys_admin"];
        let run = Program::new("setpriv").args(without).args([program.as_str(), "verify"]).run();
        run.exits(3).says("nothing can be tested here: no network namespace can be made").says("SYS_ADMIN");
    });
}

/// Its lines fit a terminal of 100 columns, whatever the addresses.
#[test]
fn lines_are_short() {
    Lab::enter(|lab| {
        let flags =
            ["--redirect-dns", "--exclude-outbound-ips", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ff00/120"];
        let run = lab.program().args(["verify", "--kuma-dp-user", "kuma-dp"]).args(flags).run().exits(12);
        // A command is whole, so that it can be copied.
        let is_prose = |line: &&str| !line.starts_with("  next      tproxy ");
        let prose = run.stdout.lines().filter(is_prose);
        let long: Vec<_> = prose.filter(|line| line.chars().count() > 100).collect();
        assert!(long.is_empty(), "{long:#?}");
        assert!(run.stdout.contains("IPv4  outbound     fail        app to "), "{}", run.stdout);
        assert!(run.stderr.contains("checks failed"), "{}", run.stderr);
    });
}

/// What is redirected on this host goes over loopback, so without it nothing works.
#[test]
fn the_loopback_interface_is_down() {
    Lab::enter(|lab| {
        lab.install(Variant::Nft, &["--redirect-dns"]).succeeds();
        command::must("ip", &["link", "set", "lo", "down"]);
        let run = lab.program().arg("verify").run();
        run.exits(12)
            .prints("happened  the loopback interface lo is down")
            .prints("next      ip link set lo up")
            .says("hint: ip link set lo up");
    });
}

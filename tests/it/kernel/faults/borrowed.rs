//! What the one who starts the program could make root do: a program with rights that its starter lacks does nothing,
//! and of the starter's variables the programs of iptables get the lock file alone.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;

use crate::support::command::{Program, copy_program, find, must};
use crate::support::lab::{each_iptables_variant, skip};
use crate::support::snapshot::Snapshot;
use crate::support::wrappers::{Fault, Wrappers};
use crate::support::{APP, Lab};

/// A copy of the program, of this owner and group, with this mode.
fn copy(lab: &Lab, name: &str, owner: u32, group: u32, mode: u32) -> PathBuf {
    let copy = lab.dir().join(name);
    copy_program(lab.program_path(), &copy);
    chown(&copy, Some(owner), Some(group)).expect("its owner");
    fs::set_permissions(&copy, fs::Permissions::from_mode(mode)).expect("its mode");
    copy
}

#[test]
fn rights_of_the_file_are_refused() {
    Lab::enter(|lab| {
        let capable = copy(lab, "capable", 0, 0, 0o755);
        if find("setcap").is_none() {
            return skip("this machine has no setcap");
        }
        must("setcap", &["cap_net_admin,cap_net_raw,cap_dac_override+ep", &capable.to_string_lossy()]);
        let borrowing = [
            (Some(APP), capable),
            (Some(APP), copy(lab, "set-user", 0, 0, 0o4755)),
            (Some(APP), copy(lab, "set-group", 0, 0, 0o2755)),
            (None, copy(lab, "set-other-user", APP, APP, 0o4755)),
        ];
        let before = Snapshot::take();
        let commands: [&[&str]; 4] =
            [&["--version"], &["status"], &["install", "--config", "/run/lab/none.yaml"], &["uninstall"]];
        for (user, program) in borrowing {
            for args in commands {
                let run = Program::new(&program).args(args);
                let run = match user {
                    Some(user) => run.user(user),
                    None => run,
                };
                let run = run.run().exits(2).says("rights that its starter lacks").says("hint: take them");
                assert_eq!(run.stdout, "", "{run}");
                assert!(!run.stderr.contains("none.yaml"), "{run}");
            }
        }
        Snapshot::take().assert_unchanged_since(&before);
        // Nothing is borrowed where root starts a file of root's, or anybody one without rights.
        let own = copy(lab, "own", 0, 0, 0o4755);
        Program::new(own).arg("--version").run().succeeds();
        Program::new(copy(lab, "plain", 0, 0, 0o755)).arg("--version").user(APP).run().succeeds();
    });
}

each_iptables_variant! {
    fn the_starters_variables_do_not_reach_iptables(lab, variant) {
        let told = lab.dir().join("environment");
        let tell = Fault::Before(format!("env >> {}", told.display()));
        let mut tools = Wrappers::new(variant);
        for family in ["iptables", "ip6tables"] {
            for role in ["", "-save", "-restore"] {
                tools = tools.every(&format!("{family}{role}"), &tell);
            }
        }
        let lock = lab.dir().join("xtables.lock");
        let lock = lock.to_string_lossy();
        for (named, reaches) in [("xtables.lock", false), ("./run/x.lock", false), ("", false), (&*lock, true)] {
            for command in [&["install", "--kuma-dp-user", "kuma-dp"][..], &["uninstall"]] {
                let _ = fs::remove_file(&told);
                let run = lab.program().args(command).args(tools.flags());
                let run = run.env("XTABLES_LIBDIR", "/run/lab/evil").env("IPTABLES_LIB_DIR", "/run/lab/evil");
                let run = run.env("XTABLES_LOCKFILE", named).env("OTHER", "evil").run().succeeds();
                let told = fs::read_to_string(&told).expect("the tools were run");
                assert!(told.contains("PATH=") && !told.contains("evil"), "{run}\n{told}");
                let locks: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("XTABLES_LOCKFILE=")).collect();
                assert_eq!(!locks.is_empty(), reaches, "{run}\n{told}");
                assert!(locks.iter().all(|path| *path == named), "{run}\n{told}");
            }
        }
    }
}

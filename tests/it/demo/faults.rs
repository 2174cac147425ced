//! Machines on which it does not work, and somebody who does to host A what nobody should.

use super::room::{Demo, Who};
use super::shown::assert_whole;
use crate::support::Lab;
use crate::support::command::{Program, copy_program, find, must};
use crate::support::lab::skip;

/// Does something on host A.
fn on_host_a(what: &str) -> String {
    format!("nsenter --target $pid --net -- {what}")
}

#[test]
fn connections_that_escape_are_counted() {
    Lab::enter(|lab| {
        let past_the_sidecar = on_host_a("iptables-nft -t nat -I OUTPUT -p tcp --dport 80 -j ACCEPT");
        let demo = Demo::by(Who::Root).when("3. Upgrade", &past_the_sidecar);
        let run = demo.run(lab).expect("root may").exits(1).says("connections did not reach the sidecar");
        let line = run.stdout.lines().find(|line| line.contains("connections escaped"));
        let words: Vec<_> = line.unwrap_or_else(|| panic!("{run}")).split_whitespace().collect();
        let [escaped, of] = [words[0], words[2]].map(|word| word.parse::<usize>().expect("a number"));
        // Only IPv4, which is every second connection.
        assert!(escaped > 0 && escaped <= of / 2 + 1, "{run}");
    });
}

#[test]
fn connections_that_fail_are_no_escapes_and_no_success() {
    Lab::enter(|lab| {
        let nobody_home =
            on_host_a("iptables-nft -t nat -I OUTPUT -p tcp --dport 80 -j REDIRECT --to-ports 1");
        let demo = Demo::by(Who::Root).when("3. Upgrade", &nobody_home);
        let run = demo.run(lab).expect("root may").exits(1).says("connections did not reach the sidecar");
        run.prints(" 0 of ").prints("Connection refused");
    });
}

#[test]
fn a_firewall_that_differs_at_the_end_is_shown() {
    Lab::enter(|lab| {
        let somebody = on_host_a("iptables-nft -A INPUT -p tcp --dport 4444 -j DROP");
        let demo = Demo::by(Who::Root).when("4. Uninstall", &somebody);
        let run = demo.run(lab).expect("root may").exits(1).says("the firewall is not as it was before");
        run.prints("+ -A INPUT -p tcp -m tcp --dport 4444 -j DROP");
    });
}

/// The limit is for everybody in this further user namespace, and for nobody else.
const NO_MORE: &str = "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"";

#[test]
fn without_user_namespaces_an_ordinary_user_is_sent_to_sudo() {
    Lab::enter(|lab| {
        let further = ["unshare", "--user", "--map-user=1000", "--keep-caps", "sh", "-c", NO_MORE, "sh"];
        let run = Demo::by(Who::Root).through(&further).run(lab).expect("root may").exits(3);
        let run = run.says("No space left on device").says("hint: run 'sudo /run/lab/tproxy demo'");
        assert_eq!((run.stdout.as_str(), run.stderr.lines().count()), ("", 2), "{run}");
    });
}

#[test]
fn root_without_rights_needs_user_namespaces_too() {
    Lab::enter(|lab| {
        let weak = ["setpriv", "--bounding-set=-sys_admin", "--"];
        Demo::by(Who::Root).through(&weak).run(lab).expect("root may").exits(0);
        let further = ["unshare", "--user", "--map-root-user", "sh", "-c", NO_MORE, "sh"];
        let run = Demo::by(Who::Root).through(&further).through(&weak).run(lab).expect("root may").exits(3);
        let run = run.says("No space left on device").says("CAP_SYS_ADMIN");
        assert_eq!(run.stdout, "", "{run}");
    });
}

/// Whether that is enough depends on what else can write rules; if it is not, the reader is told what to do.
#[test]
fn without_iptables_it_says_so_or_does_without() {
    Lab::enter(|lab| {
        let hide = "for place in /usr/sbin /sbin; do mount -t tmpfs tmpfs $place; done; exec \"$@\"";
        let bare = ["unshare", "--mount", "sh", "-c", hide, "sh"];
        let run = Demo::by(Who::Root).through(&bare).run(lab).expect("root may");
        if run.code == Some(0) {
            assert_whole(&run);
        } else {
            run.exits(3).says("no iptables found").says("hint: install it");
        }
    });
}

#[test]
fn in_a_chroot_it_says_what_is_needed() {
    Lab::enter(|lab| {
        let root = lab.dir().join("root");
        let path = root.to_string_lossy().into_owned();
        for place in ["bin", "dev", "etc", "lib", "lib64", "proc", "sbin", "usr"] {
            if std::path::Path::new("/").join(place).exists() {
                std::fs::create_dir_all(root.join(place)).expect("a directory in the private /run");
                must("mount", &["--rbind", &format!("/{place}"), &format!("{path}/{place}")]);
            }
        }
        std::fs::create_dir(root.join("run")).expect("a directory in the private /run");
        copy_program(lab.program_path(), &root.join("tproxy"));
        let demo = || Program::new("chroot").arg(&root).args(["/tproxy", "demo"]).run();
        let _ = demo().exits(3).says("no mount point, as in a chroot").says("mount --rbind DIR DIR");
        must("mount", &["--rbind", &path, &path]);
        let _ = demo().exits(0);
    });
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    Lab::enter(|lab| {
        let head = ["sh", "-c", "\"$@\" | head -n 1", "sh"];
        let run = Demo::by(Who::Root).through(&head).run(lab).expect("root may").exits(0);
        assert_eq!((run.stdout.lines().count(), run.stderr.as_str()), (1, ""), "{run}");
    });
}

/// Starts a program to which the kernel gives no IPv6 sockets, as one without IPv6 does: a filter of system calls
/// lets `socket(AF_INET6, ...)` fail with EAFNOSUPPORT.
const NO_IPV6: &str = "
import ctypes, os, platform, struct, sys
socket = {'x86_64': 41, 'aarch64': 198}[platform.machine()]
load, equal, end = 0x20, 0x15, 0x06
steps = [(load, 0, 0, 0), (equal, 0, 3, socket), (load, 0, 0, 16), (equal, 0, 1, 10),
         (end, 0, 0, 0x00050000 | 97), (end, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *step) for step in steps))
libc = ctypes.CDLL(None, use_errno=True)
program = struct.pack('HxxxxxxP', len(steps), ctypes.addressof(code))
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.create_string_buffer(program)):
    sys.exit(os.strerror(ctypes.get_errno()))
os.execvp(sys.argv[1], sys.argv[1:])
";

#[test]
fn without_ipv6_it_is_shown_with_ipv4_and_says_so() {
    Lab::enter(|lab| {
        if find("python3").is_none() {
            return skip("no python3, which takes IPv6 away from a process");
        }
        let run =
            Demo::by(Who::Root).through(&["python3", "-c", NO_IPV6]).run(lab).expect("root may").exits(0);
        let run = run.prints("This machine has no IPv6").prints("--ip-family-mode ipv4");
        let run = run.prints("The firewall is as it was before, counters").prints("0 of ");
        assert!(!run.stdout.contains("and IPv6"), "{run}");
        assert_eq!(run.stderr, "", "{run}");
        assert!(run.stdout.lines().all(|line| line.chars().count() <= 80), "{run}");
    });
}

#[test]
fn what_it_does_not_know_is_refused() {
    Lab::enter(|lab| {
        let run = lab.program().args(["demo", "-o", "json"]).run().exits(2);
        let _ = run.says("unexpected argument '-o'");
    });
}

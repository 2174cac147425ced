//! A user namespace in which the sidecar's user is nobody: no packet can ever be of that user.

use crate::support::command::Program;
use crate::support::lab::skip;
use crate::support::{Lab, Run};

#[test]
fn users_whom_there_cannot_be_stop_a_run_before_a_backend_is_chosen() {
    Lab::enter(|lab| {
        let inside = ["--user", "--map-root-user", "--net", "--mount", "--"];
        let probe = Program::new("unshare").args(inside).arg("true").run();
        if probe.code != Some(0) {
            return skip(&format!("no user namespace: {probe}"));
        }
        // Only root is there, in a network of its own.
        let alone = |args: &[&str], backend: &str| -> Run {
            let words = format!(
                "ip link set lo up; \"$0\" \"$@\" --backend {backend} --ip-family-mode ipv4; code=$?; \
                 iptables-nft-save | grep -c KUMA_MESH; nft list tables | grep -c kuma_mesh; exit $code"
            );
            let shell = Program::new("unshare").args(inside).args(["sh", "-c", &words]);
            shell.arg(lab.program_path()).args(args).run()
        };
        for backend in ["auto", "iptables", "nftables"] {
            for user in ["5678", "65534"] {
                let run = alone(&["install", "--kuma-dp-user", user], backend).exits(3);
                assert_eq!(run.stdout, "0\n0\n", "{run}");
                let run = run.says(&format!("error: the sidecar's UID {user} is not mapped"));
                assert_eq!(run.stderr.matches("hint: ").count(), 1, "{run}");
                assert!(!run.stderr.contains("using "), "{run}");
            }
            let uids = ["install", "--kuma-dp-user", "0", "--exclude-outbound-ports-for-uids"];
            let run = alone(&[&uids[..], &["tcp:80:0-5"]].concat(), backend).exits(3);
            assert_eq!(run.stdout, "0\n0\n", "{run}");
            let _ =
                run.says("error: the UID 1, whose ports are to be left alone ('tcp:80:0-5'), is not mapped");
            alone(&[&uids[..], &["tcp:80:0"]].concat(), backend).succeeds();
        }
    });
}

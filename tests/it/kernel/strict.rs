//! `--strict` with nothing to redirect DNS to, and a sidecar that runs as root.

use crate::support::lab::each_backend;
use crate::support::snapshot::Snapshot;

each_backend! {
    fn nothing_to_redirect_dns_to_is_an_error(lab, backend) {
        let before = Snapshot::take();
        // Nothing, nothing that can be redirected, and nothing of the families that are.
        for (servers, more) in [
            ("", &[][..]),
            ("options edns0\n", &[]),
            ("nameserver fe80::1%eth0\n", &[]),
            ("nameserver fd00:96::10\n", &["--ip-family-mode", "ipv4"]),
        ] {
            lab.resolv_conf(servers);
            for dry in [&["--redirect-dns", "--strict"][..], &["--redirect-dns", "--strict", "--dry-run"], &["--redirect-dns", "--strict", "--dry-run=diff"]] {
                let run = lab.install(backend, &[dry, more].concat()).exits(3);
                let run = run.says("DNS questions cannot be redirected: /etc/resolv.conf names no DNS server");
                assert_eq!(run.stderr.matches("hint: ").count(), 1, "{run}");
                Snapshot::take().assert_unchanged_since(&before);
            }
        }
        lab.resolv_conf("");
        let _ = lab.install(backend, &["--redirect-dns"]).succeeds().says("questions are not redirected");
        lab.uninstall(backend, &[]).succeeds();
        lab.install(backend, &["--redirect-all-dns-traffic", "--strict"]).succeeds();
        lab.uninstall(backend, &[]).succeeds();
        lab.install(backend, &["--strict"]).succeeds();
        lab.uninstall(backend, &[]).succeeds();
        // One family has some.
        lab.resolv_conf("nameserver 10.96.0.10\n");
        lab.install(backend, &["--redirect-dns", "--strict"]).succeeds();
    }

    fn what_a_sidecar_of_roots_means_is_said(lab, backend) {
        let words = "warning: the sidecar's user is root (UID 0): everything that root sends bypasses the sidecar";
        for user in ["root", "0"] {
            let flags = ["--kuma-dp-user", user];
            let run = lab.install(backend, &flags).succeeds().says(words);
            assert_eq!(run.stderr.matches("is root (UID 0)").count(), 1, "{run}");
            let _ = lab.install(backend, &[&flags[..], &["--dry-run"]].concat()).succeeds().says(words);
        }
        let run = lab.install(backend, &[]).succeeds();
        assert!(!run.stderr.contains("is root"), "{run}");
    }
}

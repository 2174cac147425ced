//! What an installation says of ports where nobody listens yet.

use serde_json::Value;

use crate::support::lab::each_backend;
use crate::support::listener::Listener;
use crate::support::mesh::listening_sidecar;
use crate::support::{Family, SIDECAR, as_user};

const DEAD: &str = "Until the sidecar listens, what is redirected fails: ";

each_backend! {
    fn dead_directions_are_named_until_the_sidecar_listens(lab, backend) {
        let run = lab.install(backend, &["--redirect-dns"]).succeeds();
        let all = "outgoing TCP (port 15001), incoming TCP (port 15006) and DNS questions (port 15053)";
        let _ = run.prints("You can now run kuma-dp with the transparent-proxy feature enabled").prints(&format!("{DEAD}{all}"));
        let run = lab.install(backend, &["--redirect-dns"]).succeeds().prints("nothing was written");
        let _ = run.prints(&format!("{DEAD}{all}"));
        let run = lab.install(backend, &["--redirect-inbound=false"]).succeeds();
        let run = run.prints(&format!("{DEAD}outgoing TCP (port 15001)"));
        assert!(!run.stdout.contains("15006") && !run.stdout.contains("15053"), "{run}");

        let half = as_user(SIDECAR, || {
            [15001, 15006].map(|port| Listener::tcp("sidecar", Family::V4.any(), port))
        });
        let run = lab.install(backend, &[]).succeeds();
        let _ = run.prints(&format!("{DEAD}outgoing TCP over IPv6 (port 15001) and incoming TCP over IPv6 (port 15006)"));
        let run = lab.install(backend, &["-o", "json"]).succeeds();
        let told: Value = serde_json::from_str(&run.stdout).expect("JSON");
        let wanted = serde_json::json!([
            { "name": "outbound", "port": 15001, "family": "ipv6", "elsewhere": null },
            { "name": "inbound", "port": 15006, "family": "ipv6", "elsewhere": null },
        ]);
        assert_eq!(told["unheard"], wanted);
        drop(half);

        let _sidecar = listening_sidecar();
        let run = lab.install(backend, &["--redirect-dns"]).succeeds();
        assert!(!run.stdout.contains(DEAD), "{run}");
    }
}

//! The sidecar's ports are in use.

use super::verify;
use crate::support::firewall::{self, Family};
use crate::support::lab::each_iptables_variant;
use crate::support::listener::Listener;
use crate::support::mesh::Mesh;
use crate::support::{APP, as_user};

each_iptables_variant! {
    fn a_running_sidecar_is_left_alone(lab, variant) {
        lab.install(variant, &["--redirect-dns", "--exclude-outbound-ports", "9000"]).succeeds();
        let _four = Mesh::new(lab, Family::V4);
        let _six = Mesh::new(lab, Family::V6);
        let said = verify(lab, &[]);
        said.all_pass();
        assert_eq!(said.method(), "counters");
    }

    fn and_does_not_hide_what_is_wrong(lab, variant) {
        lab.install(variant, &["--redirect-dns"]).succeeds();
        let _four = Mesh::new(lab, Family::V4);
        let _six = Mesh::new(lab, Family::V6);
        firewall::restore(variant, Family::V4, "*nat\n-F KUMA_MESH_INBOUND\nCOMMIT\n");
        firewall::restore(variant, Family::V6, "*raw\n-F\nCOMMIT\n");
        let said = verify(lab, &[]);
        said.fails(&["ipv4 inbound", "ipv6 dns-sidecar"]);
    }

    fn somebody_else_has_a_port(lab, variant) {
        lab.install(variant, &[]).succeeds();
        let _other = as_user(APP, || {
            [Listener::tcp("other", Family::V4.any(), 15001), Listener::tcp("other", Family::V6.any(), 15001)]
        });
        let said = verify(lab, &[]);
        said.fails(&["ipv4 inbound", "ipv4 outbound", "ipv4 self", "ipv6 inbound", "ipv6 outbound", "ipv6 self"]);
        said.because("happened", &format!("is redirected to port 15001, which UID {APP} has"));
        said.because("next", "ss -lnptu 'sport = :15001'");
    }
}

//! A save program prints less than there is and ends with 0, as one does that cannot write or gets no answer.

use super::{FIRST, install_second, their_rules};
use crate::support::lab::each_iptables_variant;
use crate::support::snapshot::Snapshot;
use crate::support::wrappers::{Fault, Wrappers};

each_iptables_variant! {
    fn what_a_save_program_does_not_print_is_not_gone(lab, variant) {
        their_rules(variant);
        lab.install(variant, &FIRST).succeeds();
        let before = Snapshot::take();
        for body in ["exit 0", "\"$real\" \"$@\" | grep -v transparent; exit 0", "\"$real\" \"$@\" | grep -v COMMIT; exit 0"] {
            for tool in ["iptables-save", "ip6tables-save"] {
                let fault = Fault::Instead(body.to_owned());
                let tools = Wrappers::new(variant).every(tool, &fault);
                install_second(lab, &tools, &[]).exits(1).says("did not print all rules");
                Snapshot::take().assert_put_back_since(&before);
                let uninstall = lab.program().args(["uninstall", "--sleep-between-retries", "1ms"]);
                let _ = uninstall.args(tools.flags()).run().exits(1).says("did not print all rules");
                Snapshot::take().assert_put_back_since(&before);
            }
        }
        lab.uninstall(variant, &[]).succeeds();
    }
}

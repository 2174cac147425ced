//! A save program prints less than there is and ends with 0, as one does that cannot write or gets no answer. A restore
//! program does not find a rule by the words that the save program prints.

use super::{FIRST, install_second, their_rules};
use crate::support::Variant;
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
    /// The nft variant's leave a match out of each rule where they cannot load its library.
    fn a_rule_without_a_match_is_another_rule(lab, variant) {
        their_rules(variant);
        lab.install(variant, &FIRST).succeeds();
        let before = Snapshot::take();
        let library = "/usr/lib/xtables/libxt_udp.so";
        let body = format!(
            "echo '{library}: {library}: failed to map segment from shared object' >&2; \
             \"$real\" \"$@\" | sed 's/ -m udp --[sd]port [0-9]*//'; exit 0"
        );
        for tool in ["iptables-save", "ip6tables-save"] {
            let tools = Wrappers::new(variant).every(tool, &Fault::Instead(body.clone()));
            install_second(lab, &tools, &[]).exits(1).says("did not print all of each rule").says("libxt_udp.so");
            Snapshot::take().assert_put_back_since(&before);
        }
        // It passes.
        let tools = Wrappers::new(variant).at(&("iptables-save".to_owned(), 1), &Fault::Instead(body));
        install_second(lab, &tools, &[]).succeeds();
        lab.uninstall(variant, &[]).succeeds();
    }

    /// They do the same without a word where they may not ask the kernel whether it knows that match. The legacy ones
    /// know without asking.
    fn nor_is_it_the_same_where_nothing_is_said(lab, variant) {
        their_rules(variant);
        lab.install(variant, &FIRST).succeeds();
        let before = Snapshot::take();
        let lossy = "\"$real\" \"$@\" | sed '0,/transparent/s/ -m udp --[sd]port [0-9]*//'; exit 0";
        for tool in ["iptables-save", "ip6tables-save"] {
            let tools = Wrappers::new(variant).every(tool, &Fault::Instead(lossy.to_owned()));
            if variant == Variant::Nft {
                install_second(lab, &tools, &[]).exits(1).says("left matches out of rules");
                Snapshot::take().assert_put_back_since(&before);
            }
        }
        let odd = "\"$real\" \"$@\" | sed 's/ --uid-owner [0-9]*/ --sid-owner 0/'; exit 0";
        let tools = Wrappers::new(variant).every("iptables-save", &Fault::Instead(odd.to_owned()));
        install_second(lab, &tools, &[]).exits(1).says("misread owner matches of IPv4 rules");
        Snapshot::take().assert_put_back_since(&before);
        let tools = Wrappers::new(variant).at(&("iptables-save".to_owned(), 1), &Fault::Instead(lossy.to_owned()));
        if variant == Variant::Nft {
            install_second(lab, &tools, &[]).succeeds();
        }
        lab.uninstall(variant, &[]).succeeds();
    }

    /// A part that is missing in one rule is not made up for by what other rules have more than the kernel counts.
    fn nor_is_any_part_of_any_rule(lab, variant) {
        if variant == Variant::Legacy {
            return;
        }
        their_rules(variant);
        let flags = [&FIRST[..], &["--exclude-outbound-ports-for-uids", "tcp:80,90:33", "--drop-invalid-packets"]].concat();
        lab.install(variant, &flags).succeeds();
        let before = Snapshot::take();
        for part in [
            "s/ -m udp --dport 53//",
            "s/ -m multiport --dports [0-9,]*//",
            "s/ -m conntrack --ctstate [A-Z]*//",
            "s/ -m tcp --dport 7001//",
            "s/ -j [A-Z_]*$//",
            "s/ -j REDIRECT --to-ports [0-9]*//",
        ] {
            let body = format!("\"$real\" \"$@\" | sed '/transparent/{part}'; exit 0");
            let tools = Wrappers::new(variant).every("iptables-save", &Fault::Instead(body.clone()));
            install_second(lab, &tools, &[]).exits(1).says("left matches out of rules");
            Snapshot::take().assert_put_back_since(&before);
            let tools = Wrappers::new(variant).at(&("iptables-save".to_owned(), 1), &Fault::Instead(body));
            install_second(lab, &tools, &[]).succeeds();
            lab.install(variant, &flags).succeeds();
        }
        lab.uninstall(variant, &[]).succeeds();
    }

    /// One that could not ask the kernel wrote it in an older revision of the match.
    fn a_rule_that_is_not_found_by_its_words_goes_by_its_number(lab, variant) {
        their_rules(variant);
        let before = Snapshot::take();
        let body = "input=$(cat); words=$(printf '%s\n' \"$input\" | grep -n -m 1 -e '^-D [A-Z]* .*-m ') && { \
            echo \"iptables-restore: line ${words%%:*} failed: Bad rule (does a matching rule exist in that chain?).\" >&2; \
            exit 2; }; printf '%s\n' \"$input\" | \"$real\" \"$@\"";
        let tools = || {
            let fault = Fault::Instead(body.to_owned());
            Wrappers::new(variant).every("iptables-restore", &fault).every("ip6tables-restore", &fault)
        };
        lab.install(variant, &FIRST).succeeds();
        install_second(lab, &tools(), &[]).succeeds();
        let uninstall = lab.program().args(["uninstall", "--sleep-between-retries", "1ms"]);
        uninstall.args(tools().flags()).run().succeeds();
        Snapshot::take().assert_unchanged_since(&before);
    }

    /// As one of the nft variant does that gets no answer to what it asks of a chain.
    fn a_rule_that_comes_to_another_place_is_put_right(lab, variant) {
        if variant == Variant::Legacy {
            // Its tables are replaced as a whole.
            return;
        }
        their_rules(variant);
        lab.install(variant, &FIRST).succeeds();
        let body = "if mkdir /run/lab/strayed; then sed 's/^-I OUTPUT 2 /-A OUTPUT /' | \"$real\" \"$@\"; \
            else exec \"$real\" \"$@\"; fi 2>/dev/null";
        for tool in ["iptables-restore", "ip6tables-restore"] {
            let tools = Wrappers::new(variant).every(tool, &Fault::Instead(body.to_owned()));
            install_second(lab, &tools, &[]).succeeds();
            std::fs::remove_dir("/run/lab/strayed").expect("it was in the way");
            install_second(lab, &Wrappers::new(variant), &[]).succeeds().prints("nothing was written");
            lab.install(variant, &FIRST).succeeds();
        }
    }

    /// It is told, however often it happens, and what was there comes back when it ends.
    fn a_rule_that_comes_to_another_place_each_time_is_no_success(lab, variant) {
        if variant == Variant::Legacy {
            return;
        }
        their_rules(variant);
        lab.install(variant, &FIRST).succeeds();
        let before = Snapshot::take();
        for tool in ["iptables-restore", "ip6tables-restore"] {
            // As often as it is tried; the way back finds it in order again.
            let body = "n=$(cat /run/lab/strayed 2>/dev/null || echo 0); input=$(cat); case $input in *'-I OUTPUT 2 '*) \
                n=$((n+1)); echo $n >/run/lab/strayed; \
                [ $n -gt 3 ] || input=$(printf '%s\n' \"$input\" | sed 's/^-I OUTPUT 2 /-A OUTPUT /');; esac; \
                printf '%s\n' \"$input\" | \"$real\" \"$@\"";
            let tools = Wrappers::new(variant).every(tool, &Fault::Instead(body.to_owned()));
            let run = install_second(lab, &tools, &["--max-retries", "0"]).exits(1);
            let _ = run.says("put rules to other places").says("as it was before");
            std::fs::remove_file("/run/lab/strayed").expect("removed");
            Snapshot::take().assert_put_back_since(&before);
        }
        lab.uninstall(variant, &[]).succeeds();
    }
}

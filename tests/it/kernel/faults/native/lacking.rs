//! A kernel that lacks something. What it lacks is asked of this kernel by a name or number that it does not know,
//! which is all that the lack of a module is to those who ask; so these are its own refusals, in its own words.

use super::{FIRST, NATIVE, install_saying, saying, swap};
use crate::support::backend::own_table;
use crate::support::generation::nft_generation;
use crate::support::mesh::listening_sidecar;
use crate::support::snapshot::Snapshot;
use crate::support::{Family, Lab, Variant};

const FLAGS: [&str; 3] = ["--redirect-dns", "--drop-invalid-packets", "--iptables-logs"];

/// A kernel without an expression or a kind of chain: an attribute with its name, which is `kind`.
fn lacks(kind: u16, name: &str) -> impl Fn(&mut [u8]) + Sync {
    let attribute = |name: &str| {
        let length = u16::try_from(4 + name.len() + 1).expect("a short name");
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), name.as_bytes(), &[0]].concat()
    };
    let (old, new) = (attribute(name), attribute(&"?".repeat(name.len())));
    move |bytes| {
        swap(bytes, &old, &new);
    }
}

fn lacks_expression(name: &str) -> impl Fn(&mut [u8]) + Sync {
    lacks(1, name)
}

/// A kernel in which the expression `ct` is without a key.
fn lacks_key_of_ct(key: u8) -> impl Fn(&mut [u8]) + Sync {
    // NFTA_EXPR_NAME "ct", padded; in NFTA_EXPR_DATA comes first either NFTA_CT_KEY or what it goes to.
    let attribute = |key: u8| [8, 0, 2, 0, 0, 0, 0, key];
    move |bytes| {
        let ct = [7, 0, 1, 0, b'c', b't', 0, 0];
        let places: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(&ct)).collect();
        for at in places {
            let end = bytes.len().min(at + ct.len() + 4 + 16);
            swap(&mut bytes[at..end], &attribute(key), &attribute(200));
        }
    }
}

/// What can be left out is: with a warning, or with `--strict` not at all.
#[track_caller]
fn is_left_out(lab: &Lab, kernel: &(impl Fn(&mut [u8]) + Sync), words: &str, part: &str, module: &str) {
    is_left_out_of(&FLAGS, lab, kernel, words, part, module);
}

#[track_caller]
fn is_left_out_of(
    flags: &[&str],
    lab: &Lab,
    kernel: &(impl Fn(&mut [u8]) + Sync),
    words: &str,
    part: &str,
    module: &str,
) {
    super::super::their_rules(Variant::Nft);
    let before = Snapshot::take();
    let generation = nft_generation();
    let run = install_saying(lab, &[flags, &["--strict"]].concat(), kernel);
    let run = run.exits(3).says("error: ").says(&format!("the kernel refused \"{words}")).says(module);
    assert_eq!(run.stderr.matches("hint: ").count(), 1, "{run}");
    let run = run.says("without --strict, that part is left out").says("the chain ");
    assert!(run.stderr.contains("No such file") || run.stderr.contains("not supported"), "{run}");
    assert_eq!(nft_generation(), generation, "{run}");
    Snapshot::take().assert_unchanged_since(&before);

    let run = install_saying(lab, flags, kernel).succeeds();
    let run = run.says(&format!("warning: the kernel refused \"{words}")).says(module).says(part);
    assert_eq!(run.stderr.matches("hint: ").count(), 1, "{run}");
    assert_eq!(nft_generation(), generation + 1, "a trial is no change: {run}");
    let table = own_table().expect("a table");
    assert!(!table.contains(words) && table.contains("redirect to :15053"), "{table}");
    // It is on record, and so not missing.
    let _sidecar = listening_sidecar();
    let status = lab.program().arg("status").run().exits(0).prints("installed, as wanted");
    let _ = status.prints("left out at installation, because it was refused");
    // Again is the same, and it goes as it does elsewhere.
    install_saying(lab, flags, kernel).succeeds().says("warning: ");
    assert_eq!(own_table().expect("a table"), table);
    lab.uninstall(NATIVE, &[]).succeeds();
    Snapshot::take().assert_unchanged_since(&before);
}

#[test]
fn zones_can_be_left_out() {
    Lab::enter(|lab| is_left_out(lab, &lacks_key_of_ct(17), "ct zone set", "conntrack zones", "nft_ct"));
}

#[test]
fn the_invalid_drop_can_be_left_out() {
    // The rules about zones ask for the state too.
    let flags = [&FLAGS[..], &["--skip-dns-conntrack-zone-split"]].concat();
    Lab::enter(move |lab| is_left_out_of(&flags, lab, &lacks_key_of_ct(0), "ct state", "INVALID", "nft_ct"));
}

#[test]
fn without_the_state_zones_are_left_out_with_the_invalid_drop() {
    Lab::enter(|lab| {
        let run = install_saying(lab, &FLAGS, lacks_key_of_ct(0)).succeeds();
        let run = run.says("conntrack zones").says("INVALID");
        assert_eq!(run.stderr.matches("warning: the kernel refused").count(), 2, "{run}");
        let table = own_table().expect("a table");
        assert!(table.contains("redirect to :15053"), "{table}");
        assert!(!["ct zone", "ct state"].iter().any(|part| table.contains(part)), "{table}");
    });
}

#[test]
fn logging_can_be_left_out() {
    Lab::enter(|lab| is_left_out(lab, &lacks_expression("log"), "log ", "LOG", "nft_log"));
}

/// Without the whole expression, both that need it go.
#[test]
fn several_parts_can_be_left_out() {
    Lab::enter(|lab| {
        let run = install_saying(lab, &FLAGS, |bytes| {
            lacks_expression("ct")(bytes);
            lacks_expression("log")(bytes);
        });
        let run = run.succeeds().says("conntrack zones").says("INVALID").says("LOG");
        assert_eq!(run.stderr.matches("warning: the kernel refused").count(), 3, "{run}");
        let table = own_table().expect("a table");
        assert!(table.contains("redirect to :15053"), "{table}");
        assert!(!["ct zone", "ct state", "log "].iter().any(|part| table.contains(part)), "{table}");
    });
}

#[test]
fn what_is_needed_is_named_with_its_rule_and_what_to_load() {
    Lab::enter(|lab| {
        for start in super::super::Start::BOTH {
            lab.uninstall(NATIVE, &[]).succeeds();
            if start == super::super::Start::Installed {
                lab.install(NATIVE, &FIRST).succeeds();
            }
            let before = Snapshot::take();
            let generation = nft_generation();
            for (name, words, module) in [
                ("redir", "\"redirect to :15", "nft_redir"),
                ("counter", "\"counter\" in the rule", "nft_counter"),
                ("meta", "\"meta ", "Linux 5.2"),
                ("lookup", "\"ip saddr @resolvers_ipv4\" in the rule", "Linux 5.2"),
            ] {
                for strict in [&[][..], &["--strict"]] {
                    let flags = [&FLAGS[..], &["--exclude-outbound-ports=1,3"], strict].concat();
                    let run = install_saying(lab, &flags, lacks_expression(name)).exits(3);
                    let run =
                        run.says("error: ").says(&format!("the kernel refused {words}")).says("the chain ");
                    let run = run.says("No such file or directory").says(module);
                    assert_eq!(run.stderr.matches("hint: ").count(), 1, "{run}");
                    assert!(!run.stderr.contains("--strict"), "that would not help: {run}");
                    assert_eq!(nft_generation(), generation, "{run}");
                }
            }
            let run = install_saying(lab, &FLAGS, lacks(7, "nat")).exits(3);
            let run = run.says("the kernel refused the chain ").says("No such file or directory");
            let _ = run.says("hint: ").says("nft_chain_nat");
            assert_eq!(nft_generation(), generation);
            Snapshot::take().assert_unchanged_since(&before);
        }
    });
}

/// A kernel without `nf_tables`, for which no part of netfilter has that number.
fn no_nf_tables(bytes: &mut [u8]) {
    const NOBODY: u8 = 13;
    let mut at = 0;
    while let Some(length) = bytes.get(at..at + 4) {
        let length = u32::from_ne_bytes(length.try_into().expect("four bytes")) as usize;
        let kind = u16::from_ne_bytes([bytes[at + 4], bytes[at + 5]]);
        if kind >> 8 == 10 {
            bytes[at + 4..at + 6].copy_from_slice(&(u16::from(NOBODY) << 8 | kind & 0xff).to_ne_bytes());
        } else if kind < 0x12 {
            bytes[at + 19] = NOBODY;
        }
        at += length.next_multiple_of(4);
    }
}

#[test]
fn a_kernel_without_nf_tables_is_told_from_others() {
    Lab::enter(|lab| {
        let before = Snapshot::take();
        let run = install_saying(lab, &FLAGS, no_nf_tables).exits(3);
        let run = run.says("this kernel has no nf_tables").says("hint: install with --backend iptables");
        assert_eq!(run.stderr.matches("hint: ").count(), 1, "{run}");
        saying(&lab.uninstalling(NATIVE, &[]), no_nf_tables).succeeds().prints("nothing was installed");
        Snapshot::take().assert_unchanged_since(&before);
        for family in Family::BOTH {
            assert!(!NATIVE.has_ours(family));
        }
    });
}

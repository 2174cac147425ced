//! Files of a trial that somebody removes: that confirms nothing, and nothing is lost by it.

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};

use super::trial::{
    FIRST, LONG, RUN, end_ago, file, log, notes, on_trial, wait_for_the_end, wait_for_the_installation,
    waiter,
};
use crate::support::command::pid;
use crate::support::lab::{each_backend, each_iptables_variant};
use crate::support::snapshot::Snapshot;
use crate::support::wrappers::is_running;
use crate::support::{Backend, Family};

fn empty() {
    fs::remove_dir_all(RUN).expect("files of a trial");
}

fn wait_until(what: impl Fn() -> bool) {
    while !what() {
        std::thread::yield_now();
    }
}

fn wait_for_the_process(waiter: u32) {
    wait_until(|| !is_running(waiter));
}

/// The file that says that an installation waits is the last one that is put back.
fn wait_for_the_files() {
    wait_until(|| file("pending").is_some());
    assert!(file("log").is_some() && file("json").is_some());
}

each_backend! {
    fn an_emptied_directory_is_no_confirmation(lab, backend) {
        for first in [false, true] {
            if first {
                lab.install(backend, FIRST).succeeds();
            }
            let before = Snapshot::take().without_counters();
            on_trial(lab, backend, LONG).run().succeeds();
            for _ in 0..2 {
                empty();
                wait_for_the_files();
                assert!(notes(lab).contains("comes undone at"), "{}", notes(lab));
                lab.install(backend, &[]).exits(4).says("waits to be confirmed");
            }
            end_ago(0, true);
            wait_for_the_end();
            assert!(log().contains("removed without a confirmation"), "{}", log());
            fs::remove_file(file("log").expect("a log")).expect("removed");
            let _ = fs::remove_dir(RUN);
            Snapshot::take().without_counters().assert_unchanged_since(&before);
        }
    }

    fn one_file_alone_is_none_either(lab, backend) {
        let before = Snapshot::take().without_counters();
        on_trial(lab, backend, LONG).run().succeeds();
        for kind in ["pending", "log", "json"] {
            fs::remove_file(file(kind).expect("of the trial")).expect("removed");
            // A record that is missing tells nothing of a trial, so nothing is put back for that alone.
            wait_until(|| kind == "json" || file(kind).is_some());
        }
        end_ago(0, true);
        wait_for_the_end();
        empty();
        Snapshot::take().without_counters().assert_unchanged_since(&before);
    }

    fn while_it_is_installed_they_are_put_back_too(lab, backend) {
        let before = Snapshot::take().without_counters();
        let staying = on_trial(lab, backend, &[LONG, &["--foreground"]].concat()).start();
        wait_until(|| file("pending").is_some());
        // Whoever else has it removes nothing.
        let _ = fs::remove_dir_all(RUN);
        let run = staying;
        wait_until(|| file("pending").is_some() || !is_running(run.pid));
        if file("pending").is_some() {
            end_ago(0, true);
        }
        let _ = run.finish().exits(1);
        Snapshot::take().without_counters().assert_foreign_unchanged_since(&before);
        assert!(!backend.has_ours(Family::V4));
    }

    fn it_can_be_confirmed_all_the_same(lab, backend) {
        for removed in [RUN.to_owned(), String::new()] {
            on_trial(lab, backend, LONG).run().succeeds();
            let (waiter, there) = (waiter(lab), Snapshot::take().without_counters());
            if removed.is_empty() {
                fs::remove_file(file("log").expect("a log")).expect("removed");
            } else {
                empty();
                wait_for_the_files();
            }
            lab.program().arg("confirm").run().succeeds().prints("the installation stays");
            wait_for_the_process(waiter);
            Snapshot::take().without_counters().assert_unchanged_since(&there);
            assert!(file("json").is_some() && file("pending").is_none() && file("log").is_none());
            lab.uninstall(backend, &[]).succeeds();
        }
    }

    fn it_goes_back_without_any_place_for_files(lab, backend) {
        let before = Snapshot::take();
        on_trial(lab, backend, LONG).run().succeeds();
        let waiter = waiter(lab);
        kill(pid(waiter), Signal::SIGSTOP).expect("it waits");
        empty();
        fs::write(RUN, "").expect("no directory");
        kill(pid(waiter), Signal::SIGTERM).expect("it is stopped");
        kill(pid(waiter), Signal::SIGCONT).expect("it is stopped");
        wait_for_the_process(waiter);
        fs::remove_file(RUN).expect("the file");
        Snapshot::take().assert_unchanged_since(&before);
    }

    /// Nobody could tell it, and there is nothing to go back from.
    fn what_was_uninstalled_meanwhile_stays_away(lab, backend) {
        let before = Snapshot::take();
        on_trial(lab, backend, LONG).run().succeeds();
        let waiter = waiter(lab);
        kill(pid(waiter), Signal::SIGSTOP).expect("it waits");
        empty();
        lab.uninstall(backend, &[]).succeeds();
        kill(pid(waiter), Signal::SIGCONT).expect("it is stopped");
        wait_for_the_process(waiter);
        let _ = fs::remove_dir(RUN);
        Snapshot::take().assert_unchanged_since(&before);
    }

    fn another_installation_meanwhile_is_not_taken_back(lab, backend) {
        for more in [&[][..], LONG] {
            on_trial(lab, backend, LONG).run().succeeds();
            let waiter = waiter(lab);
            kill(pid(waiter), Signal::SIGSTOP).expect("it waits");
            empty();
            lab.install(backend, &[FIRST, more].concat()).succeeds();
            let there = Snapshot::take().without_counters();
            kill(pid(waiter), Signal::SIGCONT).expect("it is stopped");
            wait_for_the_process(waiter);
            Snapshot::take().without_counters().assert_unchanged_since(&there);
            lab.uninstall(backend, &[]).succeeds();
            wait_until(|| !Path::new(RUN).exists());
        }
    }
}

each_iptables_variant! {
    /// Nothing in the kernel tells whose they are.
    fn rules_without_comments_go_back_without_their_record(lab, variant) {
        let backend = Backend::from(variant);
        let before = Snapshot::take().without_counters();
        let run = on_trial(lab, backend, &[LONG, &["--disable-comments", "--foreground"]].concat()).start();
        wait_for_the_installation();
        empty();
        wait_for_the_files();
        fs::remove_file(file("json").expect("a record")).expect("removed");
        end_ago(0, true);
        run.finish().exits(1).says("what was there before is back");
        Snapshot::take().without_counters().assert_foreign_unchanged_since(&before);
        assert!(!backend.has_ours(Family::V4) && !backend.has_ours(Family::V6));
    }
}

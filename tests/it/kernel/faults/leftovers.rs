//! Files that a run was killed in the middle of, and directories that have their names.

use std::fs;
use std::path::{Path, PathBuf};

use tproxy::sys::netns;

use super::FIRST;
use crate::kernel::trial::LONG;
use crate::support::lab::each_backend;
use crate::support::snapshot::Snapshot;

const RUN: &str = "/run/tproxy";

/// What files are first written as.
fn unfinished() -> [PathBuf; 2] {
    let id = netns::current_id().expect("a name");
    ["new", "pending.new"].map(|kind| Path::new(RUN).join(format!("{id}.{kind}")))
}

each_backend! {
    fn half_a_file_goes_with_the_next_run(lab, backend) {
        lab.install(backend, &FIRST).succeeds();
        let leave = || unfinished().each_ref().map(|path| fs::write(path, "half").expect("written"));
        let gone = || unfinished().iter().all(|path| !path.exists());
        leave();
        lab.install(backend, &FIRST).succeeds().prints("nothing was written");
        assert!(gone());
        leave();
        lab.install(backend, &["--redirect-dns"]).succeeds();
        assert!(gone());
        leave();
        lab.uninstall(backend, &[]).succeeds();
        assert!(!Path::new(RUN).exists());
    }

    fn a_directory_in_the_way_is_named_before_anything_changes(lab, backend) {
        lab.install(backend, &FIRST).succeeds();
        let before = Snapshot::take();
        for path in unfinished() {
            fs::create_dir(&path).expect("made");
            fs::write(path.join("theirs"), "").expect("written");
            for more in [&[], LONG] {
                let flags = [&["--redirect-all-dns-traffic"], more].concat();
                let run = lab.install(backend, &flags).exits(1);
                let _ = run.says(&format!("{} is in the way", path.display())).says("Directory not empty");
                Snapshot::take().assert_unchanged_since(&before);
            }
            fs::remove_file(path.join("theirs")).expect("removed");
            lab.install(backend, &FIRST).succeeds().prints("nothing was written");
            assert!(!path.exists(), "an empty one is removed");
        }
        let [new, _] = unfinished();
        fs::create_dir_all(new.join("theirs")).expect("made");
        lab.uninstall(backend, &[]).succeeds().says(&format!("{} cannot be removed", new.display()));
        assert!(new.join("theirs").exists() && !backend.has_ours(crate::support::Family::V4));
    }
}

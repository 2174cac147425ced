//! A value that nobody can have meant is refused before anything is touched, by root on a machine where everything
//! could be changed.

use std::fs;

use crate::cli::bad::{BAD, Place};
use crate::support::generation::nft_generation;
use crate::support::lab::each_backend;
use crate::support::snapshot::Snapshot;

each_backend! {
    fn changes_nothing(lab, backend) {
        lab.install(backend, &["--redirect-dns"]).succeeds();
        let (before, generation) = (Snapshot::take(), nft_generation());
        let file = lab.dir().join("bad.yaml");
        let mut refused = 0;
        for bad in BAD.iter().copied().flatten() {
            let mut program = lab.program();
            for arg in bad.args() {
                program = if arg == "bad.yaml" { program.arg(&file) } else { program.arg(arg) };
            }
            program = match bad.place {
                Place::Flags(_) => program,
                Place::File(text) => {
                    fs::write(&file, text).expect("a file in the private /run");
                    program
                }
                Place::Variable(name, value) => program.env(name, value),
            };
            program.run().exits(2);
            refused += 1;
        }
        assert!(refused >= 60, "{refused}");
        Snapshot::take().assert_unchanged_since(&before);
        assert_eq!(nft_generation(), generation);
    }
}

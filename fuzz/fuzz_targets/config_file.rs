//! Any text as a configuration file: refused with problems, or a configuration that, shown, loads as itself.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tproxy::config::{File, Layers, resolve, show};

fn layers(text: &str) -> Layers {
    Layers {
        files: vec![File { name: "fuzz".into(), text: text.into(), recorded: false }],
        ..Layers::default()
    }
}

fuzz_target!(|text: &str| {
    match resolve(&layers(text)) {
        Err(problems) => assert!(!problems.0.is_empty(), "refused without a reason"),
        Ok(resolved) => {
            let shown = show::yaml(&resolved.config, Some(&resolved.sources));
            match resolve(&layers(&shown)) {
                Ok(again) => assert_eq!(again.config, resolved.config, "{shown}"),
                Err(problems) => panic!("{problems}\n{shown}"),
            }
        }
    }
});

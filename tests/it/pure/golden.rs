//! `tests/golden/*.txt`: a configuration file, a line of dashes, and the dry run it gives on a host that never
//! changes; beside it in `nftables/` the table that the native backend makes of it. `UPDATE_GOLDEN=1 cargo test golden` writes them anew; read the difference before committing it.

use std::fs;
use std::path::Path;

use tproxy::backend::iptables::render::dry_run;
use tproxy::backend::iptables::syntax::Style;
use tproxy::backend::nftables::{lower, text};
use tproxy::config::{File, Layers, resolve};
use tproxy::host::{HostFacts, Ipv6Support, Resolver};
use tproxy::plan::build;

pub const LINE: &str = "----------------------------------------\n";

pub fn facts(config: &str) -> HostFacts {
    let resolver = |addr: &str| Resolver { addr: addr.parse().expect("an address"), zone: None };
    HostFacts {
        sidecar_uid: 5678,
        loopback: "lo".into(),
        ipv6: Ipv6Support::Available,
        resolvers: vec![resolver("10.96.0.10"), resolver("127.0.0.53"), resolver("fd00::53")],
        docker_dns: config.contains("# host: Docker's DNS"),
        translated: tproxy::host::Translated::default(),
    }
}

#[test]
fn golden() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases = 0;
    let mut wrong = Vec::new();
    for entry in fs::read_dir(&directory).expect("tests/golden") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        cases += 1;
        let text = fs::read_to_string(&path).expect("a readable golden");
        let (yaml, expected) = text.split_once(LINE).unwrap_or((&text, ""));
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let config = config(&name, yaml);
        let plan = build(&config, &facts(yaml));
        let style = if config.verbose { Style::Long } else { Style::Short };
        let rules = dry_run(&plan, style, |_| !config.comments.disabled);
        wrong.extend(compare(&path, expected, &rules, &format!("{yaml}{LINE}{rules}")));
        let path = directory.join("nftables").join(&name).with_extension("nft");
        let expected = fs::read_to_string(&path).unwrap_or_default();
        let table = text::create(&lower::table(&plan, !config.comments.disabled));
        wrong.extend(compare(&path, &expected, &table, &table));
    }
    assert!(cases >= 12, "only {cases} goldens");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Says how they differ, or writes the golden anew.
fn compare(path: &Path, expected: &str, actual: &str, whole: &str) -> Option<String> {
    if actual == expected {
        return None;
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().expect("a directory")).expect("a writable directory");
        fs::write(path, whole).expect("a writable golden");
        return None;
    }
    Some(format!("{}:\n--- expected\n{expected}--- actual\n{actual}", path.display()))
}

pub fn config(name: &str, yaml: &str) -> tproxy::config::Config {
    let file = File { name: name.to_owned(), text: yaml.to_owned(), recorded: false };
    let layers = Layers { files: vec![file], ..Layers::default() };
    resolve(&layers).unwrap_or_else(|problems| panic!("{name}: {problems}")).config
}

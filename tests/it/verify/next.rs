//! The command to run next can be pasted, and helps.

use std::net::Ipv4Addr;

use super::bad_input::flush;
use super::{Said, verify};
use crate::support::command::Program;
use crate::support::lab::each_backend;
use crate::support::{Backend, Lab, command};

/// A configuration that no flags can say, with more addresses than anybody wants to read.
fn long(lab: &Lab) -> String {
    let addresses: Vec<String> = (1..=40).map(|n| Ipv4Addr::new(10, 9, n, 7).to_string()).collect();
    let text = format!(
        "kumaDPUser: kuma-dp\nredirect: {{outbound: {{includePorts: [80], excludePortsForIPs: [{}]}}}}\n",
        addresses.join(", ")
    );
    let file = lab.dir().join("a long one.yaml");
    std::fs::write(&file, text).expect("a file in the private /run");
    file.to_string_lossy().into_owned()
}

/// What is said to be run next, after the rule that redirects is gone.
#[track_caller]
fn next(lab: &Lab, backend: Backend, flags: &[&str]) -> String {
    flush(backend, "KUMA_MESH_OUTBOUND_REDIRECT", "outbound_redirect");
    let said: Said = verify(lab, flags);
    let failed = said.with_status("fail");
    assert!(failed.contains(&"ipv4 outbound".to_owned()), "{:#}", said.json);
    let next = said.all("ipv4", "outbound")[0]["next"].as_str().expect("a command").to_owned();
    said.run.says(&format!("hint: {next}"));
    next
}

/// Gives it to a shell.
#[track_caller]
fn paste(lab: &Lab, command: &str) {
    assert!(command.contains("tproxy install"), "{command}");
    let program = format!("'{}'", lab.program_path().display());
    let line = command.replacen("tproxy", &program, 1);
    Program::new("sh").args(["-c", line.as_str()]).run().succeeds();
}

each_backend! {
    fn the_record_is_named_where_flags_would_be_many(lab, backend) {
        let file = long(lab);
        lab.install(backend, &["--config", &file]).succeeds();
        std::fs::remove_file(&file).expect("it was there");
        let next = next(lab, backend, &[]);
        assert!(next.starts_with("tproxy install --config /run/tproxy/") && next.len() < 100, "{next}");
        paste(lab, &next);
        assert_eq!(verify(lab, &[]).run.code, Some(0));
    }

    fn the_file_is_named_that_was_given(lab, backend) {
        let file = long(lab);
        lab.install(backend, &["--config", &file]).succeeds();
        let next = next(lab, backend, &["--config", &file, "--redirect-outbound-port", "15001"]);
        assert_eq!(next, format!("tproxy install --config '{file}' --redirect-outbound-port 15001"));
        paste(lab, &next);
        assert_eq!(verify(lab, &["--config", &file]).run.code, Some(0));
    }

    /// No file says what was read off the rules.
    fn variables_say_what_flags_cannot(lab, backend) {
        let file = long(lab);
        lab.install(backend, &["--config", &file]).succeeds();
        command::must("rm", &["-r", "/run/tproxy"]);
        let next = next(lab, backend, &[]);
        assert!(next.starts_with("KUMA_TRANSPARENT_PROXY_REDIRECT_OUTBOUND_INCLUDE_PORTS=80 tproxy "), "{next}");
        assert!(next.contains(" --exclude-outbound-ips 10.9.1.7"), "{next}");
        paste(lab, &next);
        assert_eq!(verify(lab, &[]).run.code, Some(0));
    }
}

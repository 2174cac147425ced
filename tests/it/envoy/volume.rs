//! Much at once: bytes, and connections.

use std::env;
use std::io::BufWriter;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use super::CURL;
use super::conversation::{Conversation, all_talk};
use super::evidence::{Way, assert_all_went};
use super::server::{Server, head, write_bytes};
use super::sidecar::Sidecar;
use crate::support::command::Program;
use crate::support::lab::each_stack;
use crate::support::mesh::APP_PORT;
use crate::support::{APP, as_user};

/// How much a transfer is, in MiB; 1024 unless this variable of the environment says otherwise.
const SIZE: &str = "TPROXY_TEST_TRANSFER_MIB";

/// Open at the same time.
const CONNECTIONS: usize = 2_000;

fn size() -> u64 {
    let mib = env::var(SIZE).map_or(1024, |mib| mib.parse().unwrap_or_else(|_| panic!("{SIZE} is {mib}")));
    mib * 1024 * 1024
}

/// What `cksum` says about so many bytes before they travel: their checksum and their number.
fn sent(bytes: u64) -> String {
    let mut child = Command::new("cksum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("coreutils are everywhere");
    let mut pipe = BufWriter::new(child.stdin.take().expect("a pipe"));
    write_bytes(&mut pipe, bytes).expect("cksum reads all");
    drop(pipe);
    let output = child.wait_with_output().expect("cksum ends");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A client that says the same about what arrives.
fn receive(from: SocketAddr, bytes: u64) -> Program {
    let url = format!("http://{from}/bytes/{bytes}");
    Program::new("bash").args(["-c", "set -o pipefail; curl \"$@\" | cksum", "receive"]).args(CURL).arg(url)
}

each_stack! {
    fn a_gibibyte_each_way(lab, backend, family) {
        let Some(sidecar) = Sidecar::start(lab, family.resolver()) else { return };
        lab.install(backend, &[]).succeeds();
        let _world = lab.peer().run(move || Server::start("world", family.any(), 80));
        let _app = as_user(APP, move || Server::start("app", family.any(), APP_PORT));
        let outside = SocketAddr::new(family.outside(), 80);
        let host = SocketAddr::new(family.host(), APP_PORT);
        let bytes = size();

        let wanted = sent(bytes);
        assert!(wanted.trim_end().ends_with(&format!(" {bytes}")), "{wanted}");
        assert_eq!(receive(outside, bytes).user(APP).run().succeeds().stdout, wanted);
        let arrived = lab.peer().run(move || receive(host, bytes).run().succeeds().stdout);
        assert_eq!(arrived, wanted);

        sidecar.at_rest().assert_only(&[(Way::Out, family, 1), (Way::In, family, 1)]);
        let log = sidecar.stop();
        assert_eq!(log.len(), 2, "{log:?}");
        log[0].assert_went(Way::Out.name(family), outside);
        log[1].assert_went(Way::In.name(family), host);
        for entry in log {
            assert_eq!(entry.sent, bytes + head(bytes).len() as u64);
        }
    }

    fn two_thousand_connections_each_way(lab, backend, family) {
        let Some(sidecar) = Sidecar::start(lab, family.resolver()) else { return };
        lab.install(backend, &[]).succeeds();
        let _world = lab.peer().run(move || Server::start("world", family.any(), 80));
        let _app = as_user(APP, move || Server::start("app", family.any(), APP_PORT));
        let outside = SocketAddr::new(family.outside(), 80);
        let host = SocketAddr::new(family.host(), APP_PORT);
        let all = CONNECTIONS as u64;

        let mut out = as_user(APP, move || Conversation::open_many(outside, CONNECTIONS)).expect("open");
        all_talk(&mut out).expect("each hears its own words");
        let stats = sidecar.stats();
        stats.assert_only(&[(Way::Out, family, all)]);
        assert_eq!((stats.open(Way::Out, family), stats.open(Way::In, family)), (all, 0));
        drop(out);

        let mut into = lab.peer().run(move || Conversation::open_many(host, CONNECTIONS)).expect("open");
        all_talk(&mut into).expect("each hears its own words");
        let stats = sidecar.wait_until("the first are gone", |stats| stats.open(Way::Out, family) == 0);
        stats.assert_only(&[(Way::Out, family, all), (Way::In, family, all)]);
        assert_eq!(stats.open(Way::In, family), all);
        drop(into);

        let log = sidecar.stop();
        assert_eq!(log.len(), 2 * CONNECTIONS);
        assert_all_went(&log, Way::Out.name(family), outside, CONNECTIONS);
        assert_all_went(&log, Way::In.name(family), host, CONNECTIONS);
    }
}

//! Programs that run as the sidecar's user and are not the sidecar: the rules leave alone what they send.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};

use crate::support::lab::each_backend;
use crate::support::{Lab, SIDECAR, as_user};

/// A process that has sockets of the sidecar's user, and its end.
struct Program(Child);

impl Program {
    fn listening(ports: [u16; 2]) -> Self {
        let socket = |port: u16| -> OwnedFd {
            as_user(SIDECAR, move || TcpListener::bind(("127.0.0.1", port)).expect("a free port")).into()
        };
        let [first, second] = ports.map(socket);
        let mut sleep = Command::new("sleep");
        Self(sleep.arg("infinity").stdin(first).stdout(second).spawn().expect("a process"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn said(lab: &Lab) -> String {
    let run = lab.program().arg("status").run();
    run.stdout.split_whitespace().collect::<Vec<_>>().join(" ")
}

each_backend! {
    fn are_named_with_a_port(lab, backend) {
        lab.install(backend, &["--ip-family-mode", "ipv4"]).succeeds();
        let names = |text: &str, program: &Program, port: u16| {
            let who = format!("process {} (sleep infinity) runs as the sidecar's user (UID {SIDECAR})", program.0.id());
            text.contains(&format!("{who} and listens on TCP port {port}: nothing that it sends is redirected"))
        };
        let other = Program::listening([8081, 8082]);
        let text = said(lab);
        assert!(names(&text, &other, 8081) || names(&text, &other, 8082), "before the sidecar: {text}");
        let sidecar = Program::listening([15001, 15006]);
        let text = said(lab);
        assert!(names(&text, &other, 8081) || names(&text, &other, 8082), "beside the sidecar: {text}");
        assert!(!text.contains(&format!("process {} ", sidecar.0.id())), "{text}");
        drop(other);
        // What the sidecar itself has beside its ports belongs to it.
        drop(sidecar);
        let _sidecar = Program::listening([15001, 9901]);
        let text = said(lab);
        assert!(!text.contains("runs as the sidecar's user"), "{text}");
    }
}

//! The ports of an SSH server, whatever they are.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use crate::support::command::find;
use crate::support::lab::{each_stack, skip};
use crate::support::mesh::{APP_PORT, Mesh};
use crate::support::{APP, Lab};

const PORT: u16 = 2222;

/// A server of a name on [`PORT`], for each family; `None` where there is nothing to make one of.
struct Sshd(Child);

impl Sshd {
    fn start(lab: &Lab, name: &str) -> Option<Self> {
        let python = find("python3")?;
        let sshd = lab.dir().join(name);
        if !sshd.exists() {
            std::os::unix::fs::symlink(python, &sshd).expect("a name");
        }
        let program = format!(
            "import socket\ns=socket.create_server(('::',{PORT}),family=socket.AF_INET6,dualstack_ipv6=True)\n\
             print('up',flush=True)\nwhile 1:\n c,a=s.accept(); c.sendall(b'sshd|x|'+('[%s]:%d'%a[:2]).encode()+b'\\n'); c.close()"
        );
        let mut child =
            Command::new(sshd).args(["-c", &program]).stdout(Stdio::piped()).spawn().expect("a server");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a word");
        assert_eq!(line, "up\n");
        Some(Self(child))
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Programs that call themselves as SSH's server does: a worker of another user with a socket that root made, on port 8000,
/// and a root without any right, on port 9000. `None` where there is nothing to make them of.
fn impostors() -> Option<[Child; 2]> {
    let (python, setpriv) = (find("python3")?, find("setpriv")?);
    let program = |port: u16, then: &str| {
        format!(
            "import socket,os,sys,ctypes\ns=socket.create_server(('::',{port}),family=socket.AF_INET6,dualstack_ipv6=True)\n\
             {then}ctypes.CDLL(None).prctl(15,b'sshd',0,0,0)\nprint('up',flush=True)\nsys.stdin.read()"
        )
    };
    let start = |command: &mut Command| {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped.spawn().expect("a program");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a word");
        assert_eq!(line, "up\n");
        child
    };
    let worker = program(8000, &format!("os.setgid({APP})\nos.setuid({APP})\n"));
    let worker = start(Command::new(&python).args(["-c", &worker]));
    let none = ["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"];
    let rightless = start(Command::new(setpriv).args(none).arg(python).args(["-c", &program(9000, "")]));
    Some([worker, rightless])
}

each_stack! {
    /// They take no port out of the mesh.
    fn a_name_alone_is_no_server(lab, backend, family) {
        let Some(mut impostors) = impostors() else { return skip("there is no python3, or no setpriv") };
        let run = lab.install(backend, &["--keep-ssh"]).succeeds().says("the usual port 22 is left alone");
        assert!(!run.stderr.contains("8000") && !run.stderr.contains("9000"), "{run}");
        let mesh = Mesh::new(lab, family);
        assert_eq!([8000, 9000].map(|port| mesh.visit(lab, port)), ["inbound", "inbound"]);
        for impostor in &mut impostors {
            impostor.kill().and_then(|()| impostor.wait()).expect("an end");
        }
    }
    fn its_ports_are_named_and_can_be_kept(lab, backend, family) {
        let Some(sshd) = Sshd::start(lab, "sshd") else { return skip("there is no python3") };
        let run = lab.install(backend, &["--exclude-inbound-ports", "80"]).succeeds().says("(port 2222)");
        let _ = run.says("--exclude-inbound-ports 80,2222 or --keep-ssh").says("--confirm 60s");
        let run = lab.install(backend, &["--keep-ssh"]).succeeds();
        let run = run.says("note: left alone for SSH: TCP port 2222\n");
        assert!(!run.stderr.contains("(port 2222)"), "{run}");
        {
            let mesh = Mesh::new(lab, family);
            assert_eq!(mesh.visit(lab, PORT), "sshd");
            assert_eq!(mesh.visit(lab, APP_PORT), "inbound");
        }
        lab.install(backend, &["--keep-ssh"]).succeeds().prints("nothing was written");
        // What it was is compared with, also when the server is gone.
        drop(sshd);
        for flags in [&["status"][..], &["status", "--kuma-dp-user", "kuma-dp", "--keep-ssh"]] {
            let run = lab.program().args(flags).run();
            assert!(!run.stdout.contains("missing") && !run.stdout.contains("extra"), "{run}");
        }
        lab.install(backend, &["--keep-ssh"]).succeeds().says("the usual port 22 is left alone");
    }
    /// Whatever name the server has whom systemd starts for whoever comes, systemd has the port.
    fn the_port_of_a_socket_unit_is_its(lab, backend, family) {
        let unit = std::path::Path::new("/run/systemd/generator/ssh.socket.d");
        std::fs::create_dir_all(unit).expect("a directory in the private /run");
        let Some(_systemd) = Sshd::start(lab, "systemd") else { return skip("there is no python3") };
        let run = lab.install(backend, &["--keep-ssh"]).succeeds();
        assert!(!run.stderr.contains("(port 2222)"), "nobody says that it is SSH's: {run}");
        assert_eq!(Mesh::new(lab, family).visit(lab, PORT), "inbound");
        let lines = format!("[Socket]\nListenStream=\nListenStream=0.0.0.0:{PORT}\nListenStream=[::]:{PORT}\n");
        std::fs::write(unit.join("addresses.conf"), lines).expect("a file in the private /run");
        lab.install(backend, &[]).succeeds().says("(port 2222)");
        let run = lab.install(backend, &["--keep-ssh"]).succeeds();
        assert!(!run.stderr.contains("(port 2222)") && run.stdout.contains("completed successfully"), "{run}");
        assert_eq!(Mesh::new(lab, family).visit(lab, PORT), "sshd");
    }
}

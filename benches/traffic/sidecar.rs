//! Who is in between: the sidecar of `tproxy demo`, or Envoy with the configuration of the tests.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tproxy::sidecar::forward::Forwarder;
use tproxy::sidecar::{Channel, Port, Sidecar};

use crate::support::clock::must;
use crate::support::lab::{Lab, SIDECAR};

const CONFIG: &str = include_str!("../../tests/envoy/envoy.yaml");

/// Where it says how it is.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);

/// Longer than Envoy takes to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts the demo's one in this network namespace.
pub fn demo() -> io::Result<Sidecar> {
    let port = Port::tcp(Channel::Outbound, SIDECAR, (Ipv4Addr::UNSPECIFIED, 15001).into(), None)?;
    let forwarder = Forwarder { uid: SIDECAR, seen: |_| (), names: |_: &str| Vec::new() };
    Sidecar::start(vec![port], Arc::new(forwarder))
}

/// A running Envoy.
pub struct Envoy(Child);

impl Envoy {
    /// Where `tests/envoy/install` puts it.
    pub fn program() -> PathBuf {
        // This program is in `target/release/deps`.
        let target = std::env::current_exe().unwrap_or_default();
        target.ancestors().nth(3).unwrap_or(Path::new("target")).join("envoy/envoy")
    }

    /// Starts it in this network namespace and waits until it is ready.
    pub fn start(lab: &Lab) -> Result<Self, String> {
        let built = Self::program().canonicalize().map_err(|e| format!("Envoy: {e}"))?;
        // The sidecar's user may be kept out of the directory that it is in.
        let program = lab.file("envoy");
        if !program.exists() {
            lab.keep("envoy", "")?;
            must("mount", ["--bind".as_ref(), built.as_os_str(), program.as_os_str()])?;
        }
        let text = CONFIG.replace("@LOG@", "/dev/null").replace("@RESOLVER@", "192.0.2.2");
        let user = SIDECAR.to_string();
        let child = Command::new("setpriv")
            .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
            // Also when the benchmark is killed.
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args(["--disable-hot-restart", "--concurrency", "2", "--log-level", "error", "--config-path"])
            .arg(lab.keep("envoy.yaml", &text)?)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("setpriv: {error}"))?;
        let mut envoy = Self(child);
        envoy.wait_until_ready().map_err(|error| format!("Envoy: {error}"))?;
        Ok(envoy)
    }

    fn wait_until_ready(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !ready().unwrap_or(false) {
            if let Some(status) = self.0.try_wait()? {
                return Err(io::Error::other(status.to_string()));
            }
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

fn ready() -> io::Result<bool> {
    let mut admin = TcpStream::connect(ADMIN)?;
    admin.write_all(b"GET /ready HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    admin.read_to_string(&mut answer)?;
    Ok(answer.contains("LIVE"))
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // Nothing is left to do if it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

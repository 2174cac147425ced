//! `tproxy demo`: what an installation does, shown on two hosts that exist for a moment inside this process.
//!
//! Everything that is said was seen: both ends of each connection tell who they are, the sidecar notes what came to
//! it, and the firewall is compared as a whole.

mod addresses;
mod firewall;
mod load;
mod play;
mod question;
mod stage;
mod talk;
pub(crate) mod wanted;

use std::time::Instant;

use crate::exit::{Exit, Failure};
use crate::host;
use crate::present::demo::{self as show, Style};
use crate::stdout::print;
use crate::sys::private::{NoMachine, leave_host};
use crate::sys::signal;
use play::Play;
use stage::USERS;

/// Shows it all. Must be called while this process has a single thread; when it returns, this process is no longer
/// in the namespaces that it came from, and should end.
///
/// # Errors
/// This machine lets nobody make such hosts ([`Exit::Host`]), or something did not go as it should.
pub fn run(style: Style) -> Result<(), Failure> {
    let signals = |error| Failure::new(Exit::Failed, format!("signals cannot be held: {error}"));
    signal::install().map_err(signals)?;
    let shown = show_all(style);
    match signal::interrupted() {
        Some(number) => Err(Failure::new(
            Exit::Failed,
            format!("stopped by {}; the two hosts and all that was on them are gone", signal::name(number)),
        )),
        None => shown,
    }
}

fn show_all(style: Style) -> Result<(), Failure> {
    let begun = Instant::now();
    let was_root = host::is_root();
    leave_host(&USERS).map_err(|error| no_machine(&error, was_root))?;
    let play = Play::prepare(style)?;
    for act in [Play::before, Play::install, Play::upgrade, Play::uninstall] {
        go_on()?;
        act(&play)?;
    }
    print(&show::end(style, begun.elapsed()))
}

fn no_machine(error: &NoMachine, was_root: bool) -> Failure {
    if error.is_in_chroot() {
        return Failure::new(Exit::Host, format!("no hosts can be made here: {error}")).hint(
            "run it outside of the chroot, or mount that directory onto itself before changing root to it ('mount \
             --rbind DIR DIR')",
        );
    }
    if was_root {
        return Failure::new(Exit::Host, format!("root may not make hosts of its own here: {error}")).hint(
            "a container needs the capability CAP_SYS_ADMIN for that; run it outside of the container",
        );
    }
    let program = std::env::current_exe().map_or("tproxy".to_owned(), |path| path.display().to_string());
    Failure::new(Exit::Host, format!("only root may make hosts of its own here: {error}"))
        .hint(format!("run 'sudo {program} demo', which leaves this machine alone in the same way"))
}

/// Asked to stop, the next step is not begun.
fn go_on() -> Result<(), Failure> {
    match signal::interrupted() {
        Some(_) => Err(Failure::new(Exit::Failed, "stopped")),
        None => Ok(()),
    }
}

/// Something went otherwise than it should, and has been shown.
fn call_off(why: &str) -> Failure {
    Failure::new(Exit::Failed, format!("{why}; nothing on this machine was changed"))
}

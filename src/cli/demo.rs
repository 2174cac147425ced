//! `tproxy demo`.

use std::io::{self, IsTerminal as _};

use clap::Command;

use crate::demo;
use crate::exit::Failure;
use crate::present::demo::Style;

/// Its part of the command line.
pub fn command() -> Command {
    Command::new("demo")
        .about("Show on two hosts of its own what an installation does")
        .long_about(
            "Show what an installation does, on two hosts with a cable between them that exist only inside this \
             process: who talks to whom before, after an installation and after its end, and what becomes of \
             connections that begin while it is upgraded. It needs no root where the kernel lets ordinary users make \
             namespaces; with sudo it does the same. Nothing on this machine is changed, and nothing is left, also \
             when it is stopped half-way.",
        )
}

/// Runs it.
pub fn run() -> Result<(), Failure> {
    // What an installation notes is about a host that the reader does not know.
    super::log::without_notes(|| demo::run(style()))
}

fn style() -> Style {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let colour = io::stdout().is_terminal()
        && set("NO_COLOR").is_none()
        && set("TERM").is_none_or(|term| term != "dumb");
    // The first of these that is set counts (locale(7)).
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
    let locale = locale.to_lowercase();
    Style { colour, unicode: locale.contains("utf-8") || locale.contains("utf8") }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use crate::cli::flags;
    use crate::demo::wanted::{RESOLV_CONF, Wanted};
    use crate::plan::Family;
    use crate::present::demo::Cast;

    #[test]
    fn what_is_shown_is_what_is_installed() {
        let guest = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let (both, one) = (Family::BOTH.to_vec(), vec![Family::V4]);
        for (guest, ssh_excluded, families) in [
            (None, false, both.clone()),
            (None, true, one.clone()),
            (Some(guest.clone()), true, both),
            (Some(guest), false, one),
        ] {
            let cast = Cast { app: 1000, sidecar: 5678, near: vec![], far: vec![], guest, families };
            let Wanted { config, flags } = Wanted::new(&cast, ssh_excluded).unwrap();
            let words =
                ["tproxy", "install"].into_iter().chain(flags.iter().flat_map(|flag| flag.split(' ')));
            let matches = crate::cli::command().try_get_matches_from(words).unwrap();
            let (_, matches) = matches.subcommand().unwrap();
            let mut typed = flags::resolve(matches, false).unwrap().resolved.config;
            // No flag says these.
            typed.cni_mode = true;
            typed.redirect.dns.resolv_config_path = RESOLV_CONF.into();
            assert_eq!(typed, config, "{flags:?}");
        }
    }
}

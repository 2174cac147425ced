//! What an uninstall leaves: what it knows of and may not remove, and what it could not look at.

use std::path::Path;

use crate::backend::iptables::situation::Place;
use crate::exit::Failure;
use crate::status::model::Finding;
use crate::text::escape;

use super::found::Found;

/// An address that no record claims. It may be kumactl's, which adds it and never removes it.
pub fn address(interface: &str) -> Finding {
    Finding::new(
        format!("the address ::6 stays on {interface}, because no record says that an installation added it"),
        format!("'ip -6 addr del ::6/128 dev {interface}' removes it"),
    )
}

/// A record that could not be used. It is the only place that names rules without comments.
pub fn record(found: &Found, path: &Path) -> Option<Finding> {
    matches!(found, Found::Unusable(_)).then(|| {
        Finding::new(
            format!(
                "the record {} could not be used, so rules that only it names, those without comments, may stay",
                path.display()
            ),
            "'iptables-save' and 'ip6tables-save' list the rules that are left",
        )
    })
}

/// A record of an installation that is gone, and that could not be removed.
pub fn stale(path: &Path) -> Finding {
    let path = path.display();
    Finding::new(
        format!(
            "the record {path} could not be removed, so the next run takes it for that of an installation"
        ),
        format!("'rm {path}' removes it"),
    )
}

/// firewalld's configuration, which was not read.
pub fn direct_xml(path: &Path, why: &str) -> Finding {
    Finding::new(
        format!(
            "{why}; if rules of an installation with --store-firewalld are in it, firewalld's next reload brings them \
             back"
        ),
        format!("make {} readable, and run the command again", path.display()),
    )
}

/// Tables that may have rules of ours, and that a program could not read.
pub fn unread(failure: &Failure) -> Finding {
    Finding::new(format!("{failure}; rules of an installation may be there"), again(failure.hint.as_deref()))
}

/// Tables that may have rules of ours, and that no program here reads.
pub fn out_of_reach((variant, family): Place) -> Finding {
    Finding::new(
        format!(
            "there are {family} tables of the {variant} variant, and no program to read them; rules of an installation \
             may be there"
        ),
        format!("install the {variant} variant of iptables, and run the command again"),
    )
}

fn again(hint: Option<&str>) -> String {
    hint.map_or_else(|| "run the command again when they can be read".to_owned(), escape)
}

//! Which directions are dead until the sidecar listens.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::receipt::lines;
use crate::plan::Family;
use crate::status::model::{Listening, Who};

/// For people; nothing where the sidecar listens everywhere, or where the kernel does not tell.
pub fn sentence(unheard: &[Listening]) -> Option<String> {
    let mut named: Vec<(&str, u16)> = Vec::new();
    for listening in unheard {
        if !named.contains(&(listening.name, listening.port)) {
            named.push((listening.name, listening.port));
        }
    }
    let parts: Vec<String> = named.iter().map(|port| part(unheard, *port)).collect();
    let (last, first) = parts.split_last()?;
    let listed = if first.is_empty() { last.clone() } else { format!("{} and {last}", first.join(", ")) };
    Some(lines(&format!("Until the sidecar listens, what is redirected fails: {listed}")))
}

fn part(unheard: &[Listening], (name, port): (&str, u16)) -> String {
    let here: Vec<&Listening> = unheard.iter().filter(|of| (of.name, of.port) == (name, port)).collect();
    let what = match name {
        "outbound" => "outgoing TCP",
        "inbound" => "incoming TCP",
        _ => "DNS questions",
    };
    let only = match here.as_slice() {
        [one] => format!(" over {}", one.family),
        _ => String::new(),
    };
    let addresses: BTreeSet<String> = here.iter().filter_map(|of| elsewhere(&of.who)).collect();
    let listed = addresses.into_iter().collect::<Vec<_>>().join(" and ");
    let alone = if listed.is_empty() {
        listed
    } else {
        format!(", listened on at {listed} alone, where it does not come")
    };
    format!("{what}{only} (port {port}{alone})")
}

fn elsewhere(who: &Who) -> Option<String> {
    match who {
        Who::Elsewhere(address) => Some(address.to_string()),
        _ => None,
    }
}

/// For programs.
pub fn list(unheard: &[Listening]) -> Value {
    let one = |Listening { name, port, family, who }: &Listening| {
        let family: &Family = family;
        json!({
            "name": name,
            "port": port,
            "family": family.to_string().to_lowercase(),
            "elsewhere": elsewhere(who),
        })
    };
    unheard.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(name: &'static str, port: u16, family: Family, who: Who) -> Listening {
        Listening { name, port, family, who }
    }

    #[test]
    fn dead_directions_are_named_with_what_is_peculiar_to_them() {
        let nobody = |name, port| Family::BOTH.map(|family| at(name, port, family, Who::Nobody)).to_vec();
        let all = [nobody("outbound", 15001), nobody("inbound", 15006), nobody("dns", 15053)].concat();
        // Wherever lines end.
        let sentence =
            |of: &[Listening]| sentence(of).map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
        let said = "Until the sidecar listens, what is redirected fails: outgoing TCP (port 15001), incoming TCP (port \
                    15006) and DNS questions (port 15053)";
        assert_eq!(sentence(&all).as_deref(), Some(said));
        let one = [at("inbound", 15006, Family::V6, Who::Nobody)];
        assert!(sentence(&one).unwrap().ends_with("fails: incoming TCP over IPv6 (port 15006)"));
        let one = [at("inbound", 15006, Family::V4, Who::Elsewhere("127.0.0.1".parse().unwrap()))];
        let said =
            "incoming TCP over IPv4 (port 15006, listened on at 127.0.0.1 alone, where it does not come)";
        assert!(sentence(&one).unwrap().ends_with(said));
        assert_eq!(sentence(&[]), None);
        assert_eq!(list(&one)[0]["elsewhere"], "127.0.0.1");
    }
}

//! The DNS servers that a table is about. Pure.

use std::net::IpAddr;

use crate::plan::Family;

use super::super::model::{ChainKind, End, HookPoint, Rule, Statement, Table, Test};
use super::is_at;
use super::values::{addresses, is_list};

/// The DNS servers questions to which are redirected, where they are redirected server by server. IPv4 comes first.
///
/// Only the rules about zones tell something of their order: a server on a loopback address has a rule of its own
/// there, behind that of all servers, and only the host's own address makes a difference by its place among them.
pub fn resolvers(table: &Table) -> Vec<IpAddr> {
    let mut servers: Vec<IpAddr> = Vec::new();
    let lists = || table.sets.keys().filter(|name| is_list(name, "resolvers"));
    if lists().next().is_none() {
        return servers;
    }
    for family in Family::BOTH {
        let mut found: Vec<IpAddr> = Vec::new();
        let mut add = |addr: IpAddr| {
            if family.holds(addr.into()) && !found.contains(&addr) {
                found.push(addr);
            }
        };
        // Those of a later list come behind the server for which that list was begun.
        let mut later: Vec<IpAddr> = Vec::new();
        let zones = table.chains.iter().filter(|chain| is_at(chain, ChainKind::Filter, HookPoint::Output));
        let mut first = true;
        for rule in zones.flat_map(|chain| &chain.rules).filter(|rule| about_zones(rule, family)) {
            for statement in &rule.statements {
                match statement {
                    Statement::Address(End::Destination, Test::In(set)) => {
                        let of_set = addresses(table, set).into_iter().filter(|addr| !addr.is_loopback());
                        if first {
                            of_set.for_each(&mut add);
                        } else {
                            later.extend(of_set);
                        }
                        first = false;
                    }
                    Statement::Address(End::Source, Test::Is(net)) => {
                        add(net.addr());
                        later.drain(..).for_each(&mut add);
                    }
                    _ => {}
                }
            }
        }
        later.into_iter().for_each(&mut add);
        // What no rule about zones tells, such as where there are none.
        lists().flat_map(|name| addresses(table, name)).for_each(&mut add);
        servers.extend(found);
    }
    servers
}

/// Whether it puts questions of one family, or answers of a server on this host, into a zone.
fn about_zones(rule: &Rule, family: Family) -> bool {
    matches!(rule.statements.last(), Some(Statement::CtZone(_)))
        && rule.statements.contains(&Statement::Family(family))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::super::set::Key;
    use super::super::values::tests::with_set;
    use super::*;

    #[test]
    fn neighbours_in_one_element_are_several_servers_and_a_whole_network_is_not() {
        let first = u128::from(Ipv4Addr::new(10, 0, 0, 2).to_bits());
        let servers = |last| resolvers(&with_set("resolvers_ipv4", Key::Ipv4, first, last)).len();
        assert_eq!([servers(first), servers(first + 1), servers(u32::MAX.into())], [1, 2, 256]);
    }
}

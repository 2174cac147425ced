use std::time::Duration;

use proptest::prelude::*;

use super::Condition::{Destination, Family, OwnAddress, Port, Protocol, Something, User};
use super::*;
use crate::sys::netns::testing::apart;
use crate::sys::run::{Command, run};

const TABLES: &str = "table inet t {
    chain c {
        tcp dport 1-9 redirect to :80
    }
    chain out {
        type nat hook output priority -101
        ip daddr 10.0.0.0/8 tcp dport 80 counter dnat ip to 10.1.1.1
        ip6 daddr fd00::1 drop
        fib daddr type local jump c
        meta skuid 5678 udp dport 53 redirect to :5353
        tcp dport { 1, 2 } accept
        tcp dport vmap { 3 : jump c }
    }
    chain filter {
        type filter hook output priority 0
    }
    chain early {
        type filter hook output priority -300
        tcp dport 7 notrack
    }
    chain unused {
        tcp dport 8 redirect to :9
    }
}
table ip nat {
    chain OUTPUT {
        type nat hook output priority -100
        tcp dport 1 redirect to :2
    }
}
";

#[test]
fn chains_and_rules_are_read() {
    let inside = apart(|| {
        assert_eq!(read(|_| true).unwrap(), Ruleset::default());
        let nft = Command::new("nft", ["-f", "-"], Duration::from_secs(20));
        let output = run(&Command { stdin: TABLES.into(), ..nft }).unwrap();
        assert!(output.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let iptables = "*nat\n:C - [0:0]\n-A PREROUTING -m addrtype --dst-type LOCAL -j C\n\
                        -A C ! -d 10.0.0.0/8 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.1.1.1\nCOMMIT\n\
                        *raw\n-A OUTPUT -p udp -m udp --dport 53 -m owner --uid-owner 7 -j CT --notrack\nCOMMIT\n";
        let restore = Command::new("iptables-nft-restore", ["--noflush"], Duration::from_secs(20));
        let output = run(&Command { stdin: iptables.into(), ..restore }).unwrap();
        assert!(output.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (
            read(|chain| chain.table == "t" || chain.name == "OUTPUT" && chain.table == "nat").unwrap(),
            read(is_compat).unwrap(),
        )
    });
    let Some((ruleset, compat)) = inside else { return };
    let chains: Vec<_> = ruleset.hooked.iter().map(|c| (c.family, c.table.as_str(), c.priority)).collect();
    assert_eq!(chains, [(1, "t", -101), (1, "t", -300), (2, "nat", -100)]);
    assert_eq!((ruleset.hooked[0].kind, ruleset.hooked[1].kind), (ChainType::Nat, ChainType::Untracked));
    assert_eq!((ruleset.hooked[0].hook, ruleset.hooked[0].name.as_str()), (3, "out"));
    let of = |ruleset: &Ruleset, chain: &str| -> Vec<(Vec<Condition>, Action, Option<u64>)> {
        let rules = ruleset.rules.iter().filter(|rule| rule.chain == chain);
        rules.map(|r| (r.conditions.clone(), r.action.clone(), r.packets)).collect()
    };
    let ten = Destination([10, 0, 0, 0].into(), 8);
    let six = Destination("fd00::1".parse().unwrap(), 128);
    assert_eq!(
        of(&ruleset, "out"),
        [
            (vec![Family(2), ten, Protocol(6), Port(80)], Action::Redirect, Some(0)),
            (vec![Family(10), six], Action::Drop, None),
            (vec![OwnAddress], Action::Jump("c".into()), None),
            (vec![User(5678), Protocol(17), Port(53)], Action::Redirect, None),
            (vec![Protocol(6), Something], Action::Other, None),
            (vec![Protocol(6)], Action::Map, None),
        ]
    );
    assert_eq!(of(&ruleset, "c"), [(vec![Protocol(6), Something, Something], Action::Redirect, None)]);
    assert_eq!(of(&ruleset, "early"), [(vec![Protocol(6), Port(7)], Action::Untrack, None)]);
    assert_eq!(of(&ruleset, "unused"), [], "nothing leads there");
    assert_eq!(of(&compat, "PREROUTING"), [(vec![OwnAddress], Action::Jump("C".into()), Some(0))]);
    assert_eq!(of(&compat, "C"), [(vec![Protocol(6), Something, Port(80)], Action::Redirect, Some(0))]);
    let dns = (vec![Protocol(17), Port(53), User(7)], Action::Untrack, Some(0));
    assert!(of(&compat, "OUTPUT").contains(&dns), "{compat:?}");
}

proptest! {
    #[test]
    fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for kind in [NEWCHAIN, NEWRULE] {
            let message = Message { kind, payload: &bytes, ..Message::default() };
            hooked_chain(&message);
            rule(&message);
        }
        for name in ["addrtype", "owner", "tcp", "udp", "x"] {
            matched(name, &bytes);
        }
    }
}

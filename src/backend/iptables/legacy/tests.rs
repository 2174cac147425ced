use proptest::prelude::*;

use super::super::owned::Ownership;
use super::super::save::SavedTable;
use super::*;

/// A nat table as a kernel handed it out, and where its hooks begin.
struct Captured {
    family: Family,
    hooks: [Option<u32>; 5],
    bytes: &'static [u8],
}

/// Docker's rules.
const DOCKER: Captured = Captured {
    family: Family::V4,
    hooks: [Some(0), Some(344), None, Some(496), Some(840)],
    bytes: include_bytes!("../../../../tests/golden/legacy/docker.v4.bin"),
};

/// The same of IPv6.
const DOCKER6: Captured = Captured {
    family: Family::V6,
    hooks: [Some(0), Some(456), None, Some(664), Some(1120)],
    bytes: include_bytes!("../../../../tests/golden/legacy/docker.v6.bin"),
};

/// Docker's, and those of kumactl.
const KUMACTL: Captured = Captured {
    family: Family::V4,
    hooks: [Some(0), Some(784), None, Some(936), Some(3312)],
    bytes: include_bytes!("../../../../tests/golden/legacy/kumactl.v4.bin"),
};

impl Captured {
    fn with(&self, bytes: Vec<u8>) -> Option<LegacyTable> {
        LegacyTable::decode(self.family, "nat", &self.hooks, bytes)
    }

    /// Numbers are those of a machine that has the low byte first.
    fn table(&self) -> Option<LegacyTable> {
        cfg!(target_endian = "little").then(|| self.with(self.bytes.to_vec()).expect("it is one"))
    }
}

fn text(table: &SavedTable) -> Vec<String> {
    let rule = |chain: &str, rule: &super::super::save::SavedRule| {
        format!("[{}] -A {chain} {}", rule.packets.unwrap_or_default(), rule.args)
    };
    table
        .chains
        .iter()
        .flat_map(|chain| {
            let builtin = if chain.builtin { "*" } else { "" };
            let head = format!(":{}{builtin}", chain.name);
            std::iter::once(head).chain(chain.rules.iter().map(|of| rule(&chain.name, of)))
        })
        .collect()
}

#[test]
fn rules_of_others_read_as_they_were_written() {
    for (captured, outside, to, masqueraded) in [
        (DOCKER, "! -d 127.0.0.0/8", "172.17.0.2:80", "[5] -A POSTROUTING -s 127.0.0.0/8 ! -o docker0"),
        (
            DOCKER6,
            "! -d fd00:d0c::/64",
            "[fd00:d0c::2]:80",
            "[5] -A POSTROUTING -s fd00:d0c::/64 ! -o docker0",
        ),
    ] {
        let Some(table) = captured.table() else { return };
        assert_eq!(
            text(&table.saved(true)),
            [
                ":PREROUTING*",
                "[31] -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
                ":INPUT*",
                ":OUTPUT*",
                &format!("[7] -A OUTPUT {outside} -m addrtype --dst-type LOCAL -j DOCKER"),
                ":POSTROUTING*",
                &format!("{masqueraded} -j MASQUERADE"),
                ":DOCKER",
                "[2] -A DOCKER -i docker0 -j RETURN",
                &format!(
                    "[9] -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8000 -m comment --comment \"a word of theirs\" -j DNAT \
                     --to-destination {to}"
                ),
            ],
            "{to}"
        );
        assert!(!table.is_ours());
        assert!(!table.translates_in("DOCKER_OUTPUT") && table.translates_in("DOCKER"));
    }
}

#[test]
fn rules_of_kumactl_are_ours() {
    let Some(table) = KUMACTL.table() else { return };
    assert!(table.is_ours());
    let saved = Saved { tables: vec![table.saved(true)] };
    let own = Ownership::of(&saved, &[]);
    assert_eq!((own.chains.len(), own.shared.len()), (4, 5));
    assert!(own.jumps.is_empty() && own.intruders.is_empty());
    // Without the chains their comments tell, and without those the chains.
    let hidden = |what: &[u8]| {
        let mut bytes = KUMACTL.bytes.to_vec();
        let places: Vec<usize> =
            (0..bytes.len() - what.len()).filter(|at| bytes[*at..].starts_with(what)).collect();
        assert!(!places.is_empty());
        for at in places {
            bytes[at] = b'X';
        }
        KUMACTL.with(bytes).expect("a table")
    };
    assert!(hidden(b"KUMA_MESH").is_ours());
    assert!(hidden(b"kuma/mesh").is_ours());
    let mut none = hidden(b"KUMA_MESH").saved(true);
    none.chains.iter_mut().flat_map(|chain| &mut chain.rules).for_each(|rule| rule.args.clear());
    assert!(Ownership::of(&Saved { tables: vec![none] }, &[]).is_empty());
}

#[test]
fn half_a_table_is_none() {
    for captured in [DOCKER, DOCKER6, KUMACTL] {
        for size in 0..captured.bytes.len() {
            if let Some(table) = captured.with(captured.bytes[..size].to_vec()) {
                // Cut between two entries it may look like a shorter one.
                let _ = (table.is_ours(), table.saved(true));
            }
        }
        let wrong = LegacyTable::decode(captured.family, "nat", &[None; 5], captured.bytes.to_vec());
        assert_eq!(wrong, None, "rules that are in no chain");
        let mut longer = captured.bytes.to_vec();
        longer.push(0);
        assert_eq!(captured.with(longer), None);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read(
        bytes in proptest::collection::vec(any::<u8>(), 0..700),
        hooks in proptest::array::uniform5(proptest::option::of(0_u32..700)),
        six: bool,
    ) {
        let family = if six { Family::V6 } else { Family::V4 };
        if let Some(table) = LegacyTable::decode(family, "nat", &hooks, bytes) {
            let _ = (table.is_ours(), table.saved(true));
        }
    }

    #[test]
    fn damaged_tables_are_read(
        which in 0..3_usize,
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..40),
        hooks in proptest::array::uniform5(proptest::option::of(0_u32..4000)),
        moved: bool,
    ) {
        let captured = [DOCKER, DOCKER6, KUMACTL].into_iter().nth(which).expect("one of three");
        let mut bytes = captured.bytes.to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let hooks = if moved { hooks } else { captured.hooks };
        if let Some(table) = LegacyTable::decode(captured.family, "nat", &hooks, bytes) {
            let _ = (table.is_ours(), table.saved(true));
        }
    }
}

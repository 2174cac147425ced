//! What rules ask of the socket that sends: its user, its groups and its control group.
//!
//! Layouts are those of the kernel's `include/uapi/linux/netfilter/xt_{owner,cgroup}.h`.

use super::model::{Field, Span, Test};
use super::xt::within;

/// `XT_OWNER_*`
const USER: u8 = 1;
const GROUP: u8 = 2;
const SOCKET: u8 = 4;
const ALL_GROUPS: u8 = 8;

/// The match `owner`: first and last user, first and last group, what of it counts, and what of that is inverted.
pub fn owner(info: &[u8]) -> Option<Vec<Test>> {
    let (counts, inverted) = (*info.get(16)?, *info.get(17)?);
    // That supplementary groups count too is left to what is known of a packet's group.
    if counts & !(USER | GROUP | SOCKET | ALL_GROUPS) != 0 {
        return None;
    }
    let mut tests = Vec::new();
    if counts & SOCKET != 0 {
        tests.push(has_socket(inverted & SOCKET != 0));
    }
    for (field, at, flag) in [(Field::User, 0, USER), (Field::Group, 8, GROUP)] {
        if counts & flag != 0 {
            let span = number(info, at)?.into()..=number(info, at + 4)?.into();
            tests.push(within(field, vec![span], inverted & flag != 0));
        }
    }
    Some(tests)
}

/// Whether a socket of this host sends it.
pub fn has_socket(negated: bool) -> Test {
    // Where there is none, no test of its user holds.
    let user = within(Field::User, vec![0..=u32::MAX.into()], false);
    if negated { Test::Opaque { specific: true } } else { user }
}

/// The match `cgroup`: a number of `net_cls`, or a path.
pub fn cgroup(revision: u32, info: &[u8]) -> Option<Vec<Test>> {
    let (id, inverted) = match revision {
        0 => (number(info, 0)?.into(), number(info, 4)? != 0),
        1 | 2 => {
            let [has_path, has_number, not_path, not_number] = *info.first_chunk()?;
            let text = info.get(4..)?.split(|byte| *byte == 0).next()?;
            match (has_path != 0, has_number != 0) {
                (true, false) => (of_path(text), not_path != 0),
                // Behind a path of that room in the first revision, in its place in the second.
                (false, true) if revision == 1 => (number(info, 4 + 4096)?.into(), not_number != 0),
                (false, true) => (number(info, 4)?.into(), not_number != 0),
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(vec![within(Field::Cgroup, vec![Span::new(id, id)], inverted)])
}

/// A number that stands for a path, and for no other one that anybody has.
pub fn of_path(path: &[u8]) -> u128 {
    // FNV-1a of 128 bits.
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    path.iter().fold(OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(numbers: [u32; 4], counts: u8, inverted: u8) -> Vec<u8> {
        let numbers: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
        [&numbers[..], &[counts, inverted, 0, 0]].concat()
    }

    #[test]
    fn users_groups_and_sockets_are_read() {
        let user = within(Field::User, vec![7..=9], false);
        let group = within(Field::Group, vec![11..=11], true);
        assert_eq!(owner(&info([7, 9, 11, 11], USER | GROUP, GROUP)), Some(vec![user, group.clone()]));
        assert_eq!(owner(&info([7, 9, 11, 11], GROUP | ALL_GROUPS, GROUP)), Some(vec![group]));
        assert_eq!(owner(&info([0; 4], SOCKET, 0)), Some(vec![has_socket(false)]));
        assert_eq!(owner(&info([0; 4], 16, 0)), None);
        assert_eq!(owner(&[0; 17]), None);
    }

    #[test]
    fn control_groups_are_read_in_each_revision() {
        let test = |id: u128, negated| Some(vec![within(Field::Cgroup, vec![id..=id], negated)]);
        assert_eq!(cgroup(0, &[5u32.to_ne_bytes(), 1u32.to_ne_bytes()].concat()), test(5, true));
        for (revision, room) in [(1, 4096), (2, 512)] {
            let mut path = vec![1, 0, 1, 0];
            path.extend(b"user.slice/a");
            path.resize(4 + room, 0);
            path.extend([0; 12]);
            assert_eq!(cgroup(revision, &path), test(of_path(b"user.slice/a"), true), "{revision}");
            let mut class = vec![0, 1, 0, 0];
            class.resize(4 + room, 0);
            class.extend([0; 12]);
            let at = if revision == 1 { 4 + room } else { 4 };
            class[at..at + 4].copy_from_slice(&9u32.to_ne_bytes());
            assert_eq!(cgroup(revision, &class), test(9, false), "{revision}");
            assert_eq!(cgroup(revision, &path[..3]), None);
        }
        assert_ne!(of_path(b"a"), of_path(b"b"));
    }
}

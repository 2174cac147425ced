//! What matches of iptables ask for. Any bytes are read.
//!
//! Layouts are those of the kernel's `include/uapi/linux/netfilter/xt_{addrtype,owner,tcpudp}.h`.

use super::Condition;

/// What a match of iptables asks for; nothing where it lets everything pass.
pub(super) fn matched(name: &str, info: &[u8]) -> Option<Condition> {
    /// `XT_ADDRTYPE_LOCAL`
    const LOCAL: u16 = 1 << 2;
    /// `XT_ADDRTYPE_INVERT_DEST` and `XT_TCP_INV_DSTPT`, which is UDP's too.
    const INVERTED: u32 = 2;
    /// `XT_OWNER_UID`
    const USER: u8 = 1;
    Some(match name {
        // Masks of source and destination, then flags.
        "addrtype" if native16(info, 2) == Some(LOCAL) && native32(info, 4)? & INVERTED == 0 => {
            Condition::OwnAddress
        }
        // First and last user, first and last group, what of it counts, what of that is inverted.
        "owner" if info.get(16..18) == Some(&[USER, 0]) && info.get(..4) == info.get(4..8) => {
            Condition::User(native32(info, 0)?)
        }
        // First and last source port, first and last destination port; further conditions, and what is inverted.
        "tcp" | "udp" => {
            let (first, last) = (native16(info, 4)?, native16(info, 6)?);
            let rest = if name == "tcp" { info.get(8..12) } else { info.get(8..9) };
            let plain = rest.is_some_and(|rest| rest.iter().all(|byte| *byte == 0));
            let any_source = (native16(info, 0)?, native16(info, 2)?) == (0, u16::MAX);
            match (first, last) {
                (0, u16::MAX) if plain && any_source => return None,
                (first, last) if first == last && plain && any_source => Condition::Port(first),
                _ => Condition::Something,
            }
        }
        _ => Condition::Something,
    })
}

pub(super) fn native16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn native32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

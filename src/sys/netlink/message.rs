//! Netlink messages as bytes: requests built, answers taken apart. Pure, and answers may be any bytes at all.
//!
//! Layouts are those of the kernel's `include/uapi/linux/{netlink,rtnetlink,if_addr}.h` and
//! `linux/netfilter/` (nfnetlink and nf-tables). Numbers are in the machine's byte order.

use std::net::Ipv6Addr;

pub(super) use crate::attribute::attributes;
use crate::plan::Family;

/// `struct nlmsghdr`
pub(super) const HEADER: usize = 16;

pub(super) const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

pub(super) const NLM_F_REQUEST: u16 = 0x1;
pub(super) const NLM_F_ACK: u16 = 0x4;
/// In an answer: the list changed while it was made.
const NLM_F_DUMP_INTR: u16 = 0x10;
pub(super) const NLM_F_DUMP: u16 = 0x300;
pub(super) const NLM_F_EXCL: u16 = 0x200;
pub(super) const NLM_F_CREATE: u16 = 0x400;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWTABLE: u16 = NFNL_SUBSYS_NFTABLES << 8;
const NFT_MSG_GETTABLE: u16 = NFT_MSG_NEWTABLE | 1;
const NFTA_TABLE_NAME: u16 = 1;
const NFT_MSG_NEWCHAIN: u16 = NFT_MSG_NEWTABLE | 3;
const NFT_MSG_GETCHAIN: u16 = NFT_MSG_NEWTABLE | 4;
const NFT_MSG_GETRULE: u16 = NFT_MSG_NEWTABLE | 7;
const NFT_MSG_NEWRULE: u16 = NFT_MSG_NEWTABLE | 6;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
/// `struct nfgenmsg`: family, version, two bytes of resource ID.
const NFGENMSG: usize = 4;

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 0x02;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `struct inet_diag_req_v2`: family, protocol, two bytes, wanted states, then the sockets wanted (zeros: any).
const INET_DIAG_REQUEST: usize = 56;
const IPPROTO_TCP: u8 = 6;
const TCP_LISTEN: u8 = 10;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Both, to netfilter.
pub(super) const NFPROTO_INET: u8 = 1;

/// The one request that goes over a socket; there is never a second one, so the number can be fixed.
const SEQUENCE: u32 = 1;

/// A request, ready to be sent.
pub(super) struct Request(Vec<u8>);

impl Request {
    pub(super) fn new(kind: u16, flags: u16, header: &[u8], attributes: &[(u16, &[u8])]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend(SEQUENCE.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(header);
        bytes.extend(nest(attributes));
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    #[allow(clippy::unused_self, reason = "the caller need not know that there is only one number")]
    pub(super) fn sequence(&self) -> u32 {
        SEQUENCE
    }
}

/// Attributes one after the other, as a request has them and as one attribute holds others.
pub(super) fn nest(attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, value) in attributes {
        bytes.extend(u16::try_from(4 + value.len()).unwrap_or(u16::MAX).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(*value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// The kernel's number of a family.
pub(super) fn number(family: Family) -> u8 {
    match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    }
}

/// Asks for all `nf_tables` tables of a family.
pub(super) fn list_tables(family: u8) -> Request {
    Request::new(NFT_MSG_GETTABLE, NLM_F_DUMP, &[family, 0, 0, 0], &[])
}

/// Asks for all rules of all `nf_tables` tables of a family.
pub(super) fn list_rules(family: Family) -> Request {
    Request::new(NFT_MSG_GETRULE, NLM_F_DUMP, &[number(family), 0, 0, 0], &[])
}

/// Asks for the rules of one `nf_tables` table; an old kernel may tell those of all tables all the same.
pub(super) fn list_rules_of(family: Family, table: &str) -> Request {
    let name = [table.as_bytes(), &[0]].concat();
    let header = [number(family), 0, 0, 0];
    Request::new(NFT_MSG_GETRULE, NLM_F_DUMP, &header, &[(NFTA_RULE_TABLE, &name)])
}

/// Asks for all chains of all `nf_tables` tables of a family.
pub(super) fn list_chains(family: Family) -> Request {
    Request::new(NFT_MSG_GETCHAIN, NLM_F_DUMP, &[number(family), 0, 0, 0], &[])
}

/// Asks for the listening TCP sockets of a family, and for no others: the kernel then looks at its short table of
/// listeners alone.
pub(super) fn list_listeners(family: Family) -> Request {
    let mut header = vec![0; INET_DIAG_REQUEST];
    header[..2].copy_from_slice(&[number(family), IPPROTO_TCP]);
    header[4..8].copy_from_slice(&(1u32 << TCP_LISTEN).to_ne_bytes());
    Request::new(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &header, &[])
}

/// Asks for a new address, to be used without asking the neighbours.
pub(super) fn add_address(index: u32, addr: Ipv6Addr, prefix: u8) -> Request {
    address(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, IFA_F_NODAD, index, addr, prefix)
}

/// Asks for an address to go away.
pub(super) fn remove_address(index: u32, addr: Ipv6Addr, prefix: u8) -> Request {
    address(RTM_DELADDR, NLM_F_ACK, 0, index, addr, prefix)
}

fn address(kind: u16, flags: u16, addr_flags: u8, index: u32, addr: Ipv6Addr, prefix: u8) -> Request {
    // The kernel works out the scope of an IPv6 address by itself.
    let mut header = vec![AF_INET6, prefix, addr_flags, 0];
    header.extend(index.to_ne_bytes());
    let octets = addr.octets();
    Request::new(kind, flags, &header, &[(IFA_LOCAL, &octets), (IFA_ADDRESS, &octets)])
}

/// One message of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    /// The request's number.
    pub(super) sequence: u32,
    pub(super) payload: &'a [u8],
}

impl Message<'_> {
    /// Whether the list that it belongs to changed while it was made.
    pub(super) fn interrupted(&self) -> bool {
        self.flags & NLM_F_DUMP_INTR != 0
    }

    /// Whether the answer ends here, and with which errno.
    pub(super) fn end(&self) -> Option<Result<(), i32>> {
        let code = match self.kind {
            NLMSG_ERROR => i32_at(self.payload, 0).unwrap_or(-libc::EBADMSG),
            NLMSG_DONE => i32_at(self.payload, 0).unwrap_or(0),
            _ => return None,
        };
        Some(if code < 0 { Err(code.saturating_neg()) } else { Ok(()) })
    }
}

/// The messages in an answer; ends where no further one can be made out.
pub(super) fn parse(answer: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = answer;
    std::iter::from_fn(move || {
        let length = usize::try_from(i32_at(rest, 0)?).ok()?;
        let payload = rest.get(HEADER..length)?;
        let message = Message {
            kind: u16_at(rest, 4)?,
            flags: u16_at(rest, 6)?,
            sequence: i32_at(rest, 8)?.cast_unsigned(),
            payload,
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The name of the table of that family that a message tells of.
pub(super) fn table_name(message: &Message<'_>, family: u8) -> Option<String> {
    if message.kind != NFT_MSG_NEWTABLE || *message.payload.first()? != family {
        return None;
    }
    text(message, NFTA_TABLE_NAME)
}

/// The names of table and chain that a message tells of, if they are of that family.
pub(super) fn chain_name(message: &Message<'_>, family: Family) -> Option<(String, String)> {
    if message.kind != NFT_MSG_NEWCHAIN || *message.payload.first()? != number(family) {
        return None;
    }
    Some((text(message, NFTA_CHAIN_TABLE)?, text(message, NFTA_CHAIN_NAME)?))
}

/// Whether a message tells of a rule of that table.
pub(super) fn is_rule_of(message: &Message<'_>, family: Family, table: &str) -> bool {
    message.kind == NFT_MSG_NEWRULE
        && message.payload.first() == Some(&number(family))
        && text(message, NFTA_RULE_TABLE).is_some_and(|name| name == table)
}

/// The chain of a rule.
pub(super) fn chain_of_rule(message: &Message<'_>) -> Option<String> {
    text(message, NFTA_RULE_CHAIN)
}

/// The attribute of that kind behind the `struct nfgenmsg` of a message, as text.
fn text(message: &Message<'_>, kind: u16) -> Option<String> {
    let (_, text) = attributes(message.payload.get(NFGENMSG..)?).find(|(of, _)| *of == kind)?;
    let text = text.split(|byte| *byte == 0).next().filter(|text| !text.is_empty())?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// The port of the listening socket that a message tells of (`struct inet_diag_msg`: family, state, two bytes, then
/// the port in network byte order).
pub(super) fn listening_port(message: &Message<'_>) -> Option<u16> {
    match message.payload {
        [_, TCP_LISTEN, _, _, high, low, ..] if message.kind == SOCK_DIAG_BY_FAMILY => {
            Some(u16::from_be_bytes([*high, *low]))
        }
        _ => None,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(HEADER + payload.len()).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(SEQUENCE.to_ne_bytes());
        bytes.extend(77u32.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let request = Request::new(0, 0, &[], &[(kind, value)]);
        request.bytes()[HEADER..].to_vec()
    }

    /// A table as the kernel tells of it: flags, name, use count, handle.
    fn table(family: u8, name: &str) -> Vec<u8> {
        let mut payload = vec![family, 0, 0, 0];
        payload.extend(attribute(2, &[0; 4]));
        payload.extend(attribute(NFTA_TABLE_NAME, format!("{name}\0").as_bytes()));
        payload.extend(attribute(3, &[0, 0, 0, 9]));
        answer(NFT_MSG_NEWTABLE, 2, &payload)
    }

    fn names(bytes: &[u8], family: Family) -> Vec<String> {
        parse(bytes).filter_map(|message| table_name(&message, number(family))).collect()
    }

    #[test]
    fn tables_of_one_family_are_named() {
        let bytes = [table(2, "nat"), table(10, "nat6"), table(2, "a b"), table(1, "inet")].concat();
        assert_eq!(names(&bytes, Family::V4), ["nat", "a b"]);
        assert_eq!(names(&bytes, Family::V6), ["nat6"]);
    }

    #[test]
    fn what_is_no_table_is_passed_over() {
        let short = answer(NFT_MSG_NEWTABLE, 0, &[2]);
        let nameless = answer(NFT_MSG_NEWTABLE, 0, &[2, 0, 0, 0]);
        let other = answer(NFT_MSG_GETTABLE, 0, &table(2, "x")[HEADER..]);
        let empty = table(2, "");
        assert_eq!(names(&[short, nameless, other, empty, table(2, "raw")].concat(), Family::V4), ["raw"]);
    }

    #[test]
    fn a_message_that_is_cut_off_ends_it() {
        let bytes = [table(2, "nat"), table(2, "raw")].concat();
        for cut in table(2, "nat").len()..bytes.len() {
            assert_eq!(names(&bytes[..cut], Family::V4), ["nat"]);
        }
        let mut endless = table(2, "nat");
        endless[..4].copy_from_slice(&0u32.to_ne_bytes());
        assert_eq!(parse(&endless).count(), 0);
    }

    #[test]
    fn ends_and_errors() {
        let end = |kind, payload: &[u8]| parse(&answer(kind, 0, payload)).next().unwrap().end();
        assert_eq!(end(NLMSG_DONE, &[]), Some(Ok(())));
        assert_eq!(end(NLMSG_DONE, &0i32.to_ne_bytes()), Some(Ok(())));
        assert_eq!(end(NLMSG_ERROR, &0i32.to_ne_bytes()), Some(Ok(())));
        assert_eq!(end(NLMSG_ERROR, &(-1i32).to_ne_bytes()), Some(Err(libc::EPERM)));
        assert_eq!(end(NLMSG_ERROR, &i32::MIN.to_ne_bytes()), Some(Err(i32::MAX)));
        assert_eq!(end(NLMSG_ERROR, &[]), Some(Err(libc::EBADMSG)));
        assert_eq!(end(NFT_MSG_NEWTABLE, &[0; 8]), None);
        assert!(parse(&answer(NLMSG_DONE, NLM_F_DUMP_INTR, &[])).next().unwrap().interrupted());
    }

    #[test]
    fn requests_have_the_kernels_layout() {
        let request = add_address(5, "::6".parse().unwrap(), 128);
        let bytes = request.bytes();
        assert_eq!(bytes.len(), 16 + 8 + 2 * (4 + 16));
        assert_eq!(bytes[..4], 64u32.to_ne_bytes());
        assert_eq!(bytes[4..8], [20u16.to_ne_bytes(), 0x605u16.to_ne_bytes()].concat()[..]);
        assert_eq!(bytes[16..20], [10, 128, 2, 0]);
        assert_eq!(bytes[20..24], 5u32.to_ne_bytes());
        let values = attributes(&bytes[24..]).collect::<Vec<_>>();
        let six = "::6".parse::<Ipv6Addr>().unwrap().octets();
        assert_eq!(values, [(IFA_LOCAL, &six[..]), (IFA_ADDRESS, &six[..])]);
        let request = list_tables(AF_INET6);
        assert_eq!(request.bytes().len(), 20);
        assert_eq!(request.bytes()[4..8], [0xa01u16.to_ne_bytes(), 0x301u16.to_ne_bytes()].concat()[..]);
        assert_eq!(request.bytes()[16..], [10, 0, 0, 0]);
    }

    #[test]
    fn listening_sockets_have_ports() {
        let port = |kind, payload: &[u8]| listening_port(&parse(&answer(kind, 2, payload)).next().unwrap());
        assert_eq!(port(SOCK_DIAG_BY_FAMILY, &[2, TCP_LISTEN, 0, 0, 0x1f, 0x90, 0, 0]), Some(8080));
        assert_eq!(port(SOCK_DIAG_BY_FAMILY, &[2, 1, 0, 0, 0x1f, 0x90, 0, 0]), None);
        assert_eq!(port(SOCK_DIAG_BY_FAMILY, &[2, TCP_LISTEN, 0, 0]), None);
        assert_eq!(port(NFT_MSG_NEWTABLE, &[2, TCP_LISTEN, 0, 0, 0x1f, 0x90, 0, 0]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..200), length in 0u8..200) {
            for length in [None, Some(length)] {
                let mut bytes = bytes.clone();
                if let (Some(length), Some(first)) = (length, bytes.first_chunk_mut::<6>()) {
                    *first = [length, 0, 0, 0, 0, 10];
                }
                for message in parse(&bytes) {
                    message.end();
                    table_name(&message, AF_INET);
                    listening_port(&message);
                    attributes(message.payload).count();
                }
            }
        }
    }
}

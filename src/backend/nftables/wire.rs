//! The numbers by which the kernel calls things of `nf_tables`, and its messages. Pure.
//!
//! Numbers are those of the kernel's `include/uapi/linux/netfilter/{nf_tables,nf_conntrack_common,nf_nat}.h`; those
//! of what only `nft` reads, types and user data, are libnftnl's and nft's.

/// One thing said to, or by, `nf_tables`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// `NFT_MSG_*`.
    pub kind: u16,
    /// `NLM_F_*`, of those that say what to do ([`CREATE`], [`APPEND`]).
    pub flags: u16,
    /// The family of its table; [`INET`].
    pub family: u8,
    /// Its attributes.
    pub body: Vec<u8>,
}

/// `NFPROTO_INET`: IPv4 and IPv6.
pub const INET: u8 = 1;
/// `NFPROTO_IPV4`
pub const IPV4: u8 = 2;
/// `NFPROTO_IPV6`
pub const IPV6: u8 = 10;

/// `NLM_F_CREATE`: make it if it is not there.
pub const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`: after the others.
pub const APPEND: u16 = 0x800;

pub(super) mod message {
    //! `enum nf_tables_msg_types`
    pub const NEW_TABLE: u16 = 0;
    pub const GET_TABLE: u16 = 1;
    pub const DELETE_TABLE: u16 = 2;
    pub const NEW_CHAIN: u16 = 3;
    pub const GET_CHAIN: u16 = 4;
    pub const NEW_RULE: u16 = 6;
    pub const GET_RULE: u16 = 7;
    pub const NEW_SET: u16 = 9;
    pub const GET_SET: u16 = 10;
    pub const NEW_ELEMENTS: u16 = 12;
    pub const GET_ELEMENTS: u16 = 13;
    pub const DELETE_ELEMENTS: u16 = 14;
    pub const NEW_OBJECT: u16 = 18;
    pub const GET_OBJECT: u16 = 19;
    pub const NEW_FLOWTABLE: u16 = 22;
    pub const GET_FLOWTABLE: u16 = 23;
}

pub(super) mod table {
    //! `enum nft_table_attributes`
    pub const NAME: u16 = 1;
    pub const FLAGS: u16 = 2;
    pub const HANDLE: u16 = 4;
    pub const USERDATA: u16 = 6;
    /// The port of the process's socket.
    pub const OWNER: u16 = 7;
    /// In the user data (`NFTNL_UDATA_TABLE_COMMENT`).
    pub const COMMENT: u8 = 0;
    /// `NFT_TABLE_F_DORMANT`: its rules do nothing.
    pub const DORMANT: u32 = 1;
}

pub(super) mod chain {
    //! `enum nft_chain_attributes`, `enum nft_hook_attributes`
    pub const TABLE: u16 = 1;
    pub const HANDLE: u16 = 2;
    pub const NAME: u16 = 3;
    pub const HOOK: u16 = 4;
    pub const POLICY: u16 = 5;
    pub const TYPE: u16 = 7;
    pub const FLAGS: u16 = 10;
    /// `NFT_CHAIN_BINDING`: it is part of a rule.
    pub const BINDING: u32 = 4;
    pub const HOOK_NUMBER: u16 = 1;
    pub const HOOK_PRIORITY: u16 = 2;
    pub const PREROUTING: u32 = 0;
    pub const OUTPUT: u32 = 3;
}

pub(super) mod rule {
    //! `enum nft_rule_attributes`, `enum nft_list_attributes`, `enum nft_expr_attributes`
    pub const TABLE: u16 = 1;
    pub const CHAIN: u16 = 2;
    pub const HANDLE: u16 = 3;
    pub const EXPRESSIONS: u16 = 4;
    pub const USERDATA: u16 = 7;
    pub const ELEMENT: u16 = 1;
    pub const NAME: u16 = 1;
    pub const DATA: u16 = 2;
    /// In the user data; not the kernel's business.
    pub const COMMENT: u8 = 0;
}

pub(super) mod set {
    //! `enum nft_set_attributes`
    pub const TABLE: u16 = 1;
    pub const NAME: u16 = 2;
    pub const FLAGS: u16 = 3;
    pub const KEY_TYPE: u16 = 4;
    pub const KEY_LENGTH: u16 = 5;
    pub const ID: u16 = 10;
    pub const USERDATA: u16 = 13;
    pub const HANDLE: u16 = 16;
    /// `NFT_SET_ANONYMOUS`: it is part of a rule.
    pub const ANONYMOUS: u32 = 1;
    /// `NFT_SET_INTERVAL`
    pub const INTERVAL: u32 = 4;
    /// In the user data: how `nft` shows numbers, and that it merges intervals.
    pub const KEY_BYTE_ORDER: u8 = 0;
    pub const AUTO_MERGE: u8 = 2;
    pub const HOST_ORDER: u32 = 1;
    pub const NETWORK_ORDER: u32 = 2;
}

pub(super) mod element {
    //! `enum nft_set_elem_list_attributes`, `enum nft_set_elem_attributes`
    pub const TABLE: u16 = 1;
    pub const SET: u16 = 2;
    pub const LIST: u16 = 3;
    /// `NFTA_LIST_ELEM`; nft numbers them instead, which nobody reads.
    pub const LIST_ELEMENT: u16 = 1;
    pub const KEY: u16 = 1;
    pub const FLAGS: u16 = 3;
    pub const USERDATA: u16 = 6;
    /// What elements of others' sets have beside a key: data, timeout, expiration, an expression, an object, a last
    /// key, expressions.
    pub const MORE: [u16; 7] = [2, 4, 5, 7, 9, 10, 11];
    /// `NFT_SET_ELEM_INTERVAL_END`: the first value that is not in the interval any more.
    pub const INTERVAL_END: u32 = 1;
    /// In the user data: a comment, and flags of `nft`, of which one says that no end follows.
    pub const COMMENT: u8 = 0;
    pub const ELEMENT_FLAGS: u8 = 1;
    pub const OPEN: u32 = 1;
}

pub(super) mod object {
    //! `enum nft_object_attributes`, of which those of a flowtable have the same numbers but for the handle
    pub const TABLE: u16 = 1;
    pub const NAME: u16 = 2;
    pub const TYPE: u16 = 3;
    pub const HANDLE: u16 = 6;
    /// Of a flowtable.
    pub const FLOWTABLE_HANDLE: u16 = 5;
}

pub(super) mod data {
    //! `enum nft_data_attributes`, `enum nft_verdict_attributes`, `enum nft_registers`, `enum nft_verdicts`
    pub const VALUE: u16 = 1;
    pub const VERDICT: u16 = 2;
    pub const CODE: u16 = 1;
    pub const CHAIN: u16 = 2;
    pub const VERDICT_REGISTER: u32 = 0;
    pub const REGISTER: u32 = 1;
    pub const DROP: i32 = 0;
    pub const ACCEPT: i32 = 1;
    pub const JUMP: i32 = -3;
    pub const RETURN: i32 = -5;
}

pub(super) mod meta {
    //! `enum nft_meta_attributes`, `enum nft_meta_keys`
    pub const DESTINATION: u16 = 1;
    pub const KEY: u16 = 2;
    pub const INPUT_NAME: u32 = 6;
    pub const OUTPUT_NAME: u32 = 7;
    pub const SOCKET_USER: u32 = 10;
    pub const FAMILY: u32 = 15;
    pub const PROTOCOL: u32 = 16;
}

pub(super) mod fib {
    //! `enum nft_fib_attributes`, `enum nft_fib_result`, `enum nft_fib_flags`
    pub const DESTINATION: u16 = 1;
    pub const RESULT: u16 = 2;
    pub const FLAGS: u16 = 3;
    pub const ADDRESS_TYPE: u32 = 3;
    pub const DESTINATION_ADDRESS: u32 = 1 << 1;
    /// `RTN_LOCAL` of `include/uapi/linux/rtnetlink.h`
    pub const LOCAL: u32 = 2;
}

pub(super) mod compare {
    //! `enum nft_cmp_attributes`, `enum nft_cmp_ops`
    pub const SOURCE: u16 = 1;
    pub const OPERATION: u16 = 2;
    pub const DATA: u16 = 3;
    pub const EQUAL: u32 = 0;
    pub const UNEQUAL: u32 = 1;
    pub const AT_MOST: u32 = 3;
    pub const AT_LEAST: u32 = 5;
}

pub(super) mod range {
    //! `enum nft_range_attributes`, `enum nft_range_ops`
    pub const SOURCE: u16 = 1;
    pub const OPERATION: u16 = 2;
    pub const FROM: u16 = 3;
    pub const TO: u16 = 4;
    pub const WITHIN: u32 = 0;
    pub const OUTSIDE: u32 = 1;
}

pub(super) mod bitwise {
    //! `enum nft_bitwise_attributes`, `enum nft_bitwise_ops`
    pub const SOURCE: u16 = 1;
    pub const DESTINATION: u16 = 2;
    pub const LENGTH: u16 = 3;
    pub const MASK: u16 = 4;
    pub const XOR: u16 = 5;
    pub const OPERATION: u16 = 6;
    /// Mask, then exclusive or.
    pub const MASK_XOR: u32 = 0;
}

pub(super) mod payload {
    //! `enum nft_payload_attributes`, `enum nft_payload_bases`; offsets are those of the headers
    pub const DESTINATION: u16 = 1;
    pub const BASE: u16 = 2;
    pub const OFFSET: u16 = 3;
    pub const LENGTH: u16 = 4;
    pub const NETWORK: u32 = 1;
    pub const TRANSPORT: u32 = 2;
}

pub(super) mod byteorder {
    //! `enum nft_byteorder_attributes`, `enum nft_byteorder_ops`
    pub const SOURCE: u16 = 1;
    pub const DESTINATION: u16 = 2;
    pub const OPERATION: u16 = 3;
    pub const LENGTH: u16 = 4;
    pub const SIZE: u16 = 5;
    pub const TO_NETWORK: u32 = 1;
}

pub(super) mod lookup {
    //! `enum nft_lookup_attributes`
    pub const SET: u16 = 1;
    pub const SOURCE: u16 = 2;
    /// Present: it is a map.
    pub const DESTINATION: u16 = 3;
    pub const FLAGS: u16 = 5;
    /// `NFT_LOOKUP_F_INV`
    pub const INVERTED: u32 = 1;
}

pub(super) mod immediate {
    //! `enum nft_immediate_attributes`
    pub const DESTINATION: u16 = 1;
    pub const DATA: u16 = 2;
}

pub(super) mod ct {
    //! `enum nft_ct_attributes`, `enum nft_ct_keys`
    pub const DESTINATION: u16 = 1;
    pub const KEY: u16 = 2;
    pub const DIRECTION: u16 = 3;
    pub const SOURCE: u16 = 4;
    pub const STATE: u32 = 0;
    pub const ZONE: u32 = 17;
    /// `NF_CT_STATE_INVALID_BIT`
    pub const INVALID: u32 = 1;
    /// `NF_CT_STATE_UNTRACKED_BIT`
    pub const UNTRACKED: u32 = 1 << 6;
}

pub(super) mod log {
    //! `enum nft_log_attributes`
    /// Present: it goes to a program.
    pub const GROUP: u16 = 1;
    pub const PREFIX: u16 = 2;
    pub const LEVEL: u16 = 5;
    pub const FLAGS: u16 = 6;
    /// `LOGLEVEL_WARNING`, the kernel's choice where none is given.
    pub const WARNING: u32 = 4;
}

pub(super) mod counter {
    //! `enum nft_counter_attributes`
    pub const BYTES: u16 = 1;
    pub const PACKETS: u16 = 2;
}

pub(super) mod redir {
    //! `enum nft_redir_attributes`
    pub const PORT: u16 = 1;
    pub const PORT_MAX: u16 = 2;
    pub const FLAGS: u16 = 3;
    /// `NF_NAT_RANGE_PROTO_SPECIFIED`
    pub const PORT_GIVEN: u32 = 2;
}

/// The user data of a rule, a set or an element: kind, length and value of each, as libnftnl writes them.
pub(super) fn userdata(parts: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, value) in parts {
        let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
        bytes.extend([*kind, length]);
        bytes.extend(value.iter().take(length.into()));
    }
    bytes
}

/// The value of that kind in user data.
pub(super) fn find_userdata(bytes: &[u8], kind: u8) -> Option<&[u8]> {
    let mut rest = bytes;
    loop {
        let [of, length, behind @ ..] = rest else { return None };
        let (value, next) = behind.split_at_checked((*length).into())?;
        if *of == kind {
            return Some(value);
        }
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_is_read_as_it_is_written() {
        let bytes = userdata(&[(0, b"abc\0"), (7, &[]), (1, &[5; 300])]);
        assert_eq!(bytes[..6], [0, 4, b'a', b'b', b'c', 0]);
        assert_eq!(find_userdata(&bytes, 0), Some(&b"abc\0"[..]));
        assert_eq!(find_userdata(&bytes, 7), Some(&[][..]));
        assert_eq!(find_userdata(&bytes, 1), Some(&[5; 255][..]));
        assert_eq!(find_userdata(&bytes, 2), None);
        for cut in 0..bytes.len() {
            assert_eq!(find_userdata(&bytes[..cut], 2), None);
        }
    }
}

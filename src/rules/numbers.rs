//! Numbers of the kernel for what packets have in fields (`uapi/linux/netfilter/nf_conntrack_common.h`, `in.h`,
//! `rtnetlink.h`).

/// `NF_CT_STATE_BIT` of a new connection.
pub const NEW: u128 = 8;
/// `NF_CT_STATE_BIT` of an established connection.
pub const ESTABLISHED: u128 = 2;
/// `IPS_DST_NAT`
pub const TRANSLATED: u128 = 0x20;
/// `IPPROTO_TCP`
pub const TCP: u128 = 6;
/// `IPPROTO_UDP`
pub const UDP: u128 = 17;
/// `RTN_UNICAST`
pub const UNICAST: u128 = 1;
/// `RTN_LOCAL`
pub const LOCAL: u128 = 2;

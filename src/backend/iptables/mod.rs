//! iptables and ip6tables, as nft and as legacy variant.

pub mod decode;
pub mod render;
pub mod save;
pub mod syntax;

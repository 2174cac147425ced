//! iptables and ip6tables, as nft and as legacy variant.

pub mod commit;
pub mod decode;
pub mod infer;
pub mod landed;
pub mod legacy;
pub mod lines;
mod lock;
pub mod observe;
pub mod owned;
mod piecewise;
pub mod refusal;
pub mod render;
pub mod save;
mod shape;
pub mod situation;
pub mod syntax;
pub mod tools;
pub mod transition;
pub mod typed;
pub mod wanted;
mod whole;
pub mod written;

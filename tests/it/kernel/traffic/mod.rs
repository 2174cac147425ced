//! Where packets go once the rules are there: plain listeners on the sidecar's three ports say what they got.

mod dns;
mod docker;
mod exclusions;
mod forwarded;
mod links;
mod paths;
mod vnet;

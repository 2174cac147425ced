//! What the program does to a machine. Each test has one of its own, made of namespaces.

mod bad_input;
mod clock;
mod counts;
mod difference;
mod dns_sockets;
mod documented;
mod empty_root;
mod faults;
mod gap;
mod golden;
mod harness;
mod host_files;
mod lifecycle;
mod lost;
mod native;
mod open;
mod preservation;
mod proof;
mod questions;
mod saved;
mod ssh;
mod stopped;
mod strict;
mod traffic;
mod trial;
mod way_back;

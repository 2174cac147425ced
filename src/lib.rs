//! Prepares a Linux host so that a service-mesh sidecar transparently receives its traffic.
//!
//! ```text
//! argv + env + files ─cli/config─▶ Config ─host─▶ HostFacts ─plan (pure)─▶ Plan ─backend::render (pure)─▶ text
//!                                          Plan + backend::observe ─diff (pure)─▶ Changes ─present─▶ dry run, diff, JSON
//!                                                                                    └──apply──▶ Receipt ─▶ exit code
//! ```
//!
//! Nothing left of `apply` changes the machine. `config`, `plan`, `present` and every `render` and `parse` are
//! pure: they import neither process, file system nor `nix`, and a test checks it.

#[cfg(not(target_os = "linux"))]
compile_error!("tproxy sets up Linux netfilter and builds for Linux targets only");

pub mod apply;
pub mod attribute;
pub mod backend;
pub mod cli;
pub mod config;
pub mod demo;
pub mod exit;
pub mod host;
pub mod passing;
pub mod plan;
pub mod present;
pub mod rules;
pub mod saved;
pub mod sidecar;
pub mod status;
pub mod stdout;
pub mod sys;
pub mod text;
pub mod verify;

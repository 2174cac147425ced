//! What a kumactl left behind: the restore files that its versions fed to iptables, put together from the published
//! catalogue of their rules.

use std::fmt::Write as _;

use super::firewall::{self, Family, Variant};
use super::users::SIDECAR;

/// Versions between which the rules changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// No comments yet.
    V2_8,
    /// TCP to port 53 goes to the DNS port.
    V2_9,
    /// Nothing about TCP to port 53 in nat OUTPUT, exceptions for it on loopback.
    V2_13_0,
    /// TCP to port 53 leaves the mesh early, exceptions still there.
    V2_13_1,
    /// As today.
    V2_14,
}

impl Version {
    pub const COMMENTED: [Self; 4] = [Self::V2_9, Self::V2_13_0, Self::V2_13_1, Self::V2_14];
}

/// An installation with every DNS question captured.
#[derive(Debug, Clone, Copy)]
pub struct Kumactl {
    pub version: Version,
    pub dns: bool,
}

impl Kumactl {
    /// Puts its rules there as kumactl did.
    #[track_caller]
    pub fn install(self, variant: Variant) {
        for family in Family::BOTH {
            firewall::restore(variant, family, &self.restore_file(family));
        }
    }

    /// What kumactl fed to `iptables-restore --noflush`.
    pub fn restore_file(self, family: Family) -> String {
        let mut text = String::new();
        if self.dns {
            text.push_str("* raw\n");
            self.add(
                &mut text,
                "-A PREROUTING",
                "assign connection tracking zone 1 to all DNS responses",
                "-p udp --sport 53 -j CT --zone 1",
            );
            self.add(
                &mut text,
                "-A OUTPUT",
                &format!(
                    "assign connection tracking zone 1 to DNS traffic from the kuma-dp user (UID {SIDECAR})"
                ),
                &format!("-p udp --dport 53 -m owner --uid-owner {SIDECAR} -j CT --zone 1"),
            );
            self.add(
                &mut text,
                "-A OUTPUT",
                "assign connection tracking zone 2 to DNS responses from the kuma-dp DNS proxy",
                &format!("-p udp --sport 15053 -m owner --uid-owner {SIDECAR} -j CT --zone 2"),
            );
            self.add(
                &mut text,
                "-A OUTPUT",
                "assign connection tracking zone 2 to all DNS requests",
                "-p udp --dport 53 -j CT --zone 2",
            );
            text.push_str("COMMIT\n");
        }
        text.push_str("* nat\n");
        for chain in ["INBOUND", "OUTBOUND", "INBOUND_REDIRECT", "OUTBOUND_REDIRECT"] {
            let _ = writeln!(text, "-N KUMA_MESH_{chain}");
        }
        self.nat_hooks(&mut text);
        self.own_chains(&mut text, family);
        text.push_str("COMMIT\n");
        text
    }

    fn nat_hooks(self, text: &mut String) {
        self.add(
            text,
            "-A PREROUTING",
            "redirect inbound TCP traffic to our custom chain for processing",
            "-p tcp -j KUMA_MESH_INBOUND",
        );
        if self.dns {
            self.add(
                text,
                "-I OUTPUT 1",
                "return early for DNS traffic from kuma-dp",
                &format!("-p udp --dport 53 -m owner --uid-owner {SIDECAR} -j RETURN"),
            );
            if self.version >= Version::V2_13_1 {
                self.add(
                    text,
                    "-A OUTPUT",
                    &format!(
                        "allow applications to perform DNS queries over TCP to port 53 without mesh \
                        redirection (only traffic not owned by UID {SIDECAR} (kuma-dp user))"
                    ),
                    &format!("-p tcp --dport 53 -m owner ! --uid-owner {SIDECAR} -j RETURN"),
                );
            }
            self.add(
                text,
                "-I OUTPUT 2",
                "redirect all DNS requests to the kuma-dp DNS proxy (listening on port 15053)",
                "-p udp --dport 53 -j REDIRECT --to-ports 15053",
            );
        }
        self.add(
            text,
            "-A OUTPUT",
            "redirect outbound TCP traffic to our custom chain for processing",
            "-p tcp -j KUMA_MESH_OUTBOUND",
        );
    }

    fn own_chains(self, text: &mut String, family: Family) {
        let (bits, localhost, passthrough) = match family {
            Family::V4 => (32, family.localhost(), family.passthrough()),
            Family::V6 => (128, family.localhost(), family.passthrough()),
        };
        let (localhost, passthrough) = (format!("{localhost}/{bits}"), format!("{passthrough}/{bits}"));
        // Until 2.14 the two loopback rules left DNS over TCP out.
        let (except, but_dns) = if self.dns && self.version < Version::V2_14 {
            (" ! --dport 53", " (except to DNS port 53)")
        } else {
            ("", "")
        };
        self.add(
            text,
            "-A KUMA_MESH_INBOUND",
            "redirect all inbound traffic to the custom chain for processing",
            "-p tcp -j KUMA_MESH_INBOUND_REDIRECT",
        );
        let out = "-A KUMA_MESH_OUTBOUND";
        self.add(
            text,
            out,
            &format!(
                "prevent traffic loops by ensuring traffic from the sidecar proxy (using {passthrough}) to \
                loopback interface is not redirected again"
            ),
            &format!("-s {passthrough} -o lo -j RETURN"),
        );
        self.add(text, out,
            &format!("redirect outbound TCP traffic{but_dns} destined for loopback interface, but not targeting \
                address {localhost}, and owned by UID {SIDECAR} (kuma-dp user) to KUMA_MESH_INBOUND_REDIRECT chain \
                for proper handling"),
            &format!("-p tcp{except} -o lo ! -d {localhost} -m owner --uid-owner {SIDECAR} \
                -j KUMA_MESH_INBOUND_REDIRECT"));
        self.add(text, out,
            &format!("return outbound TCP traffic{but_dns} destined for loopback interface, owned by any UID other \
                than {SIDECAR} (kuma-dp user)"),
            &format!("-p tcp{except} -o lo -m owner ! --uid-owner {SIDECAR} -j RETURN"));
        self.add(
            text,
            out,
            &format!("return outbound traffic owned by UID {SIDECAR} (kuma-dp user)"),
            &format!("-m owner --uid-owner {SIDECAR} -j RETURN"),
        );
        if self.dns && self.version <= Version::V2_9 {
            self.add(
                text,
                out,
                "redirect all DNS requests sent via TCP to kuma-dp DNS proxy (listening on port 15053)",
                "-p tcp --dport 53 -j REDIRECT --to-ports 15053",
            );
        }
        self.add(
            text,
            out,
            &format!("return traffic destined for localhost ({localhost}) to avoid redirection"),
            &format!("-d {localhost} -j RETURN"),
        );
        self.add(
            text,
            out,
            "redirect all other outbound traffic to our custom chain for further processing",
            "-j KUMA_MESH_OUTBOUND_REDIRECT",
        );
        for (chain, port) in [("INBOUND", 15006), ("OUTBOUND", 15001)] {
            self.add(
                text,
                &format!("-A KUMA_MESH_{chain}_REDIRECT"),
                &format!("redirect TCP traffic to envoy (port {port})"),
                &format!("-p tcp -j REDIRECT --to-ports {port}"),
            );
        }
    }

    fn add(self, text: &mut String, place: &str, why: &str, rule: &str) {
        let comment = match self.version {
            Version::V2_8 => String::new(),
            _ => format!(" -m comment --comment \"{}/{why}\"", super::ruleset::TAG),
        };
        let _ = writeln!(text, "{place}{comment} {rule}");
    }
}

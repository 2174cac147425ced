//! What `tproxy status` found, as data. Pure.

use std::net::IpAddr;

use super::ahead::NOBODY_KNOWN;
use super::doors::words::Shut;
use super::meets::Met;
use crate::plan::{Family, is_link_local};
use crate::text::escape;

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// In one word.
    pub verdict: Verdict,
    /// What keeps the rules: `iptables` or `nftables`.
    pub backend: Option<&'static str>,
    /// In which variant of iptables they are.
    pub variant: Option<String>,
    /// Who put them there.
    pub installer: Option<Installer>,
    /// What they were compared with.
    pub compared: Compared,
    /// What is there of each family.
    pub families: Vec<FamilyReport>,
    /// How many rules our own table has; one that both families meet counts once.
    pub table_rules: Option<usize>,
    /// Another process owns our table, so no installation can change it.
    pub out_of_our_hands: bool,
    /// How often rules were hit, of all families together.
    pub hits: Hits,
    /// The sidecar's user.
    pub sidecar: Option<Sidecar>,
    /// The sidecar's ports.
    pub ports: Ports,
    /// Who listens on them.
    pub listeners: Vec<Listening>,
    /// The DNS servers, where questions to them are redirected one by one.
    pub resolvers: Option<Resolvers>,
    /// Where the rules are not what they should be.
    pub differences: Vec<Difference>,
    /// What takes traffic before our rules see it.
    pub ahead: Vec<Ahead>,
    /// What rules about users and addresses do to the sidecar, which they meet in place of others.
    pub meets: Vec<Met>,
    /// Redirected traffic that foreign rules drop as it comes in; in words, among the problems.
    pub shut: Vec<Shut>,
    /// How an installation stands that has to be confirmed.
    pub on_trial: Option<OnTrial>,
    /// What else is wrong; each makes the verdict [`Verdict::Differs`].
    pub problems: Vec<Finding>,
    /// What is worth knowing.
    pub notes: Vec<Finding>,
    /// Rules in files that others load; in words, they are among the notes.
    pub saved: Vec<Saved>,
}

/// An installation that has to be confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnTrial {
    /// `proving`, `waiting`, `going-back` or `abandoned`.
    pub state: &'static str,
    /// The end of its time, in seconds since 1970; none while it is proved.
    pub until: Option<u64>,
}

/// In one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All is as wanted.
    Installed,
    /// Something is there, and something is not as it should be.
    Differs,
    /// There is nothing of ours.
    NotInstalled,
}

/// Who installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installer {
    /// Who made them, where that is on record.
    pub program: Program,
    /// Its version, or what the rules tell of it.
    pub version: Option<String>,
    /// When, in seconds since 1970.
    pub since: Option<u64>,
}

/// What made an installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// There is a record.
    Tproxy,
    /// Rules through iptables without a record.
    Unrecorded,
    /// A table of our own without a record.
    UnrecordedTable,
}

/// What the rules were compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// The configuration of this command's flags, files and variables.
    Given,
    /// The one that the installation recorded.
    Recorded,
    /// One read off the rules themselves.
    Inferred,
    /// None: there is nothing to compare.
    Nothing,
}

/// One address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FamilyReport {
    /// Which.
    pub family: Family,
    /// How many rules are ours.
    pub rules: usize,
    /// How often they were hit, where families are counted apart.
    pub hits: Hits,
}

/// Packets that rules met: in nat tables, which redirect and exclude, the first of each connection. `None` where
/// nothing counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hits {
    /// To the outbound port.
    pub outbound: Option<u64>,
    /// To the inbound port.
    pub inbound: Option<u64>,
    /// To the DNS port.
    pub dns: Option<u64>,
    /// Left alone because the configuration excludes them.
    pub excluded: Option<u64>,
    /// Dropped as INVALID.
    pub invalid_dropped: Option<u64>,
}

impl Hits {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
        };
        Self {
            outbound: sum(self.outbound, other.outbound),
            inbound: sum(self.inbound, other.inbound),
            dns: sum(self.dns, other.dns),
            excluded: sum(self.excluded, other.excluded),
            invalid_dropped: sum(self.invalid_dropped, other.invalid_dropped),
        }
    }
}

/// The sidecar's user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sidecar {
    /// As the rules have it.
    pub uid: u32,
    /// Its name, where it has one.
    pub name: Option<String>,
}

/// The ports to which traffic is redirected; `None` where none is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ports {
    /// TCP out.
    pub outbound: Option<u16>,
    /// TCP in.
    pub inbound: Option<u16>,
    /// DNS over UDP.
    pub dns: Option<u16>,
}

/// Who listens on one of the ports, for one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// `outbound`, `inbound` or `dns`.
    pub name: &'static str,
    /// Which port.
    pub port: u16,
    /// Which family.
    pub family: Family,
    /// Who.
    pub who: Who,
}

/// Who listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// A process of the sidecar's user.
    Sidecar,
    /// Somebody else, at one address at least where the sidecar should.
    Other {
        /// Where; the unspecified address where all comes to that program.
        address: IpAddr,
        /// Whose process.
        uid: u32,
        /// Which, where it can be found out.
        process: Option<String>,
    },
    /// Somebody, but only at an address that redirected traffic does not go to.
    Elsewhere(IpAddr),
    /// Nobody.
    Nobody,
    /// The kernel does not tell.
    Unknown,
}

impl Who {
    /// Whether what is redirected may reach the sidecar, as far as the kernel tells who listens.
    pub const fn may_be_reached(&self) -> bool {
        matches!(self, Self::Sidecar | Self::Unknown)
    }
}

/// The DNS servers of resolv.conf, and those whose questions are redirected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolvers {
    /// Which file.
    pub file: String,
    /// Its servers, or why it cannot be read.
    pub current: Result<Vec<IpAddr>, String>,
    /// Those of the rules.
    pub captured: Vec<IpAddr>,
    /// In the file, but not in the rules.
    pub not_captured: Vec<IpAddr>,
    /// In the rules, but no longer in the file.
    pub gone: Vec<IpAddr>,
}

impl Resolvers {
    /// Compares; only servers of redirected families count.
    pub fn compare(
        file: String,
        current: Result<Vec<IpAddr>, String>,
        captured: Vec<IpAddr>,
        families: &[Family],
    ) -> Self {
        let concerns =
            |addr: &IpAddr| families.iter().any(|family| (*family == Family::V4) == addr.is_ipv4());
        let listed: &[IpAddr] = current.as_deref().unwrap_or_default();
        let missed = |addr: &IpAddr| concerns(addr) && !is_link_local(*addr) && !captured.contains(addr);
        let not_captured = listed.iter().copied().filter(missed).collect();
        let gone = captured.iter().filter(|addr| current.is_ok() && !listed.contains(addr)).copied();
        Self { gone: gone.collect(), not_captured, file, captured, current }
    }

    /// Whether questions to all of today's servers are redirected, and to no others.
    pub fn as_captured(&self) -> bool {
        self.current.is_ok() && self.not_captured.is_empty() && self.gone.is_empty()
    }
}

/// One place in which the rules are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// In what way.
    pub kind: DifferenceKind,
    /// In which variant of iptables.
    pub variant: Option<String>,
    /// Of which family; `None`: of both.
    pub family: Option<Family>,
    /// In which table.
    pub table: String,
    /// In which chain; empty where it is about a set or the whole table.
    pub chain: String,
    /// In which set.
    pub set: Option<String>,
    /// Which rule or element; empty for the chain or set itself.
    pub rule: String,
}

/// In what way something differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DifferenceKind {
    /// Wanted, and not there.
    Missing,
    /// Ours, there, and not wanted.
    Extra,
    /// There, but in another place than wanted.
    Reordered,
    /// Somebody else's, in a chain of ours.
    Foreign,
}

impl DifferenceKind {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Reordered => "reordered",
            Self::Foreign => "foreign",
        }
    }
}

/// Something that takes traffic before our rules see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ahead {
    /// Whose it most likely is.
    pub whose: String,
    /// Of which family.
    pub family: Family,
    /// `prerouting` or `output`.
    pub hook: &'static str,
    /// Table and chain, in the words of whoever keeps them.
    pub place: String,
    /// The rule, as far as it can be shown.
    pub rule: String,
    /// Which traffic of ours it takes: `outbound`, `inbound` or `dns`.
    pub traffic: &'static str,
    /// All of it, and not only a part.
    pub all: bool,
    /// Whether the kernel does not tell if it comes first.
    pub unsure: bool,
    /// How many packets it has met.
    pub packets: Option<u64>,
    /// How to come first.
    pub fix: String,
}

impl Ahead {
    /// Who takes what, for people.
    pub fn taking(&self) -> String {
        let Self { whose, family, traffic, all, unsure, .. } = self;
        let whose = if whose == NOBODY_KNOWN { "a foreign rule" } else { whose };
        let takes = if *unsure { "may take" } else { "takes" };
        let part = if *all { "all" } else { "some" };
        let traffic = match *traffic {
            "outbound" => "outgoing TCP",
            "inbound" => "incoming TCP",
            _ => "DNS questions",
        };
        format!("{} {takes} {part} {family} {traffic}", escape(whose))
    }

    /// The same with its rule, for where no title says what it is about.
    pub fn finding(&self) -> Finding {
        let (rule, place) = (escape(&self.rule), escape(&self.place));
        Finding::new(format!("{} before the redirection: '{rule}' in {place}", self.taking()), &self.fix)
    }
}

/// Something worth a sentence, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was found.
    pub what: String,
    /// The one next step.
    pub fix: Option<String>,
}

impl Finding {
    /// With a next step.
    pub fn new(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.into(), fix: Some(fix.into()) }
    }

    /// Without one.
    pub fn note(what: impl Into<String>) -> Self {
        Self { what: what.into(), fix: None }
    }
}

/// Rules of an installation in a file that others load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The path of the file.
    pub file: String,
    /// The first and the last line that is an installation's, counted from 1; or why the file was not read.
    pub lines: Result<(usize, usize), String>,
}

impl Saved {
    /// In words that are true wherever the file is loaded.
    pub fn finding(&self) -> Finding {
        match &self.lines {
            Ok((first, last)) => Finding::new(
                format!(
                    "rules of an installation are saved in {}, lines {first} to {last}; whatever loads that file, as at the \
                     start of a machine, brings them back",
                    self.file
                ),
                "save the rules again when no installation is left, or take out of them those that name KUMA_MESH or kuma/mesh, and no others",
            ),
            Err(why) => Finding::note(format!(
                "{} was not read ({why}); rules of an installation that are in it come back when it is loaded",
                self.file
            )),
        }
    }
}

impl Report {
    /// Of a host without anything of ours.
    pub fn nothing() -> Self {
        Self {
            verdict: Verdict::NotInstalled,
            backend: None,
            variant: None,
            installer: None,
            compared: Compared::Nothing,
            families: Vec::new(),
            table_rules: None,
            out_of_our_hands: false,
            hits: Hits::default(),
            sidecar: None,
            ports: Ports::default(),
            listeners: Vec::new(),
            resolvers: None,
            differences: Vec::new(),
            ahead: Vec::new(),
            meets: Vec::new(),
            shut: Vec::new(),
            on_trial: None,
            problems: Vec::new(),
            notes: Vec::new(),
            saved: Vec::new(),
        }
    }

    /// Decides the verdict of a host that has something of ours.
    pub fn judge(&mut self) {
        let reached = self.listeners.iter().all(|listening| listening.who.may_be_reached());
        let well = self.rules_are_as_wanted() && reached;
        self.verdict = if well { Verdict::Installed } else { Verdict::Differs };
    }

    /// Whether nothing is wrong but, perhaps, who listens.
    pub fn rules_are_as_wanted(&self) -> bool {
        self.differences.is_empty()
            && self.ahead.is_empty()
            && !self.meets.iter().any(|met| met.dead)
            && self.problems.is_empty()
            && self.resolvers.as_ref().is_none_or(Resolvers::as_captured)
    }
}

//! Which programs there are, and which variant of netfilter they speak to.
//!
//! Almost always the name or the link's target tells the variant (`iptables-restore` → `xtables-nft-multi`), which
//! costs no process; a program of another name is asked for its version.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::Executables;
use crate::exit::{Exit, Failure};
use crate::plan::Family;
use crate::sys::run::{self, Command};

/// Where in the kernel rules are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variant {
    /// In `nf_tables`, through its compatibility layer.
    Nft,
    /// In `x_tables`.
    Legacy,
}

impl Variant {
    /// Both; the one that is preferred where nothing else decides comes first.
    pub const BOTH: [Self; 2] = [Self::Nft, Self::Legacy];
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        })
    }
}

/// The two programs that are used for one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// Prints the rules.
    pub save: PathBuf,
    /// Commits changes.
    pub restore: PathBuf,
}

/// The programs of one variant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Toolset {
    /// For IPv4.
    pub v4: Option<Programs>,
    /// For IPv6.
    pub v6: Option<Programs>,
}

impl Toolset {
    /// For a family.
    pub fn programs(&self, family: Family) -> Option<&Programs> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }

    fn set(&mut self, family: Family, programs: Option<Programs>) {
        match family {
            Family::V4 => self.v4 = programs,
            Family::V6 => self.v6 = programs,
        }
    }
}

/// Every program found, by variant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tools {
    /// Of the nft variant.
    pub nft: Toolset,
    /// Of the legacy variant.
    pub legacy: Toolset,
    /// The variant of the programs that the configuration names; no other one is to be used then.
    pub named: Option<Variant>,
}

/// Places beside which nobody else's programs lie, in the order in which they are searched.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// How long a program may take to tell its version.
const VERSION_DEADLINE: Duration = Duration::from_secs(10);

impl Tools {
    /// Looks for programs; `path` is the caller's `PATH`, searched last.
    ///
    /// # Errors
    /// The configuration names a program that is not there, cannot be executed, or is not an iptables.
    pub fn find(named: &Executables, path: Option<&OsString>) -> Result<Self, Failure> {
        let mut directories: Vec<PathBuf> = DIRECTORIES.iter().map(PathBuf::from).collect();
        if let Some(path) = path {
            directories.extend(std::env::split_paths(path).filter(|directory| directory.is_absolute()));
        }
        let mut tools = Self::default();
        for variant in Variant::BOTH {
            for family in Family::BOTH {
                let programs = discover(variant, family, &directories);
                tools.of_mut(variant).set(family, programs);
            }
        }
        tools.take_named(named)?;
        Ok(tools)
    }

    /// Those of a variant.
    pub fn of(&self, variant: Variant) -> &Toolset {
        match variant {
            Variant::Nft => &self.nft,
            Variant::Legacy => &self.legacy,
        }
    }

    fn of_mut(&mut self, variant: Variant) -> &mut Toolset {
        match variant {
            Variant::Nft => &mut self.nft,
            Variant::Legacy => &mut self.legacy,
        }
    }

    /// Programs that the configuration names take the place of the found ones of their variant. Where they are
    /// named for IPv4 alone, IPv6 goes by the same variant.
    fn take_named(&mut self, named: &Executables) -> Result<(), Failure> {
        let families = [
            (Family::V4, [&named.iptables, &named.iptables_save, &named.iptables_restore]),
            (Family::V6, [&named.ip6tables, &named.ip6tables_save, &named.ip6tables_restore]),
        ];
        for (family, programs) in families {
            let [Some(main), Some(save), Some(restore)] = programs else { continue };
            for program in [restore, save, main] {
                check_usable(program)?;
                let variant = variant_by_name(program).map_or_else(|| ask_variant(program), Ok)?;
                match self.named.replace(variant) {
                    Some(other) if other != variant => return Err(mixed(program, variant, other)),
                    _ => {}
                }
            }
            let Some(variant) = self.named else { continue };
            let programs = Programs { save: save.clone(), restore: restore.clone() };
            self.of_mut(variant).set(family, Some(programs));
        }
        match self.named {
            Some(named) if self.of(named).v4.is_none() => Err(Failure::new(
                Exit::Host,
                format!(
                    "the programs named for IPv6 are of the {named} variant, and none of it are found for IPv4"
                ),
            )
            .hint("name programs of that variant for IPv4 too in --iptables-executables")),
            _ => Ok(()),
        }
    }
}

fn discover(variant: Variant, family: Family, directories: &[PathBuf]) -> Option<Programs> {
    let base = match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    };
    let program = |role: &str| {
        let own = format!("{base}-{variant}-{role}");
        find(&own, directories).or_else(|| {
            let common = find(&format!("{base}-{role}"), directories)?;
            let is = variant_by_name(&common).or_else(|| ask_variant(&common).ok())?;
            (is == variant).then_some(common)
        })
    };
    Some(Programs { restore: program("restore")?, save: program("save")? })
}

fn find(name: &str, directories: &[PathBuf]) -> Option<PathBuf> {
    directories.iter().map(|directory| directory.join(name)).find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn check_usable(program: &Path) -> Result<(), Failure> {
    let why = match program.metadata() {
        Err(error) => error.to_string(),
        Ok(meta) if !meta.is_file() => "it is not a file".to_owned(),
        Ok(_) if !is_executable(program) => "it is not executable".to_owned(),
        Ok(_) => return Ok(()),
    };
    Err(Failure::new(Exit::Host, format!("{} cannot be used: {why}", program.display()))
        .hint("correct --iptables-executables, or leave it out to use the host's own programs"))
}

/// With one program reading where another does not write, every run would find nothing there.
fn mixed(program: &Path, variant: Variant, other: Variant) -> Failure {
    Failure::new(
        Exit::Usage,
        format!(
            "{} is of the {variant} variant, but the programs named before it are of the {other} one",
            program.display()
        ),
    )
    .hint("name programs of one variant in --iptables-executables")
}

/// The variant, where a program's name or the file that it links to says it.
fn variant_by_name(program: &Path) -> Option<Variant> {
    let says = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        match (name.contains("nft"), name.contains("legacy")) {
            (true, false) => Some(Variant::Nft),
            (false, true) => Some(Variant::Legacy),
            _ => None,
        }
    };
    says(program).or_else(|| says(&program.canonicalize().ok()?))
}

/// Asks a program: `iptables v1.8.9 (nf_tables)`, `iptables v1.8.9 (legacy)`; before 1.8 there was only what is now
/// called legacy, and the oldest do not know `--version` everywhere.
fn ask_variant(program: &Path) -> Result<Variant, Failure> {
    let output = run::run(&Command::new(program, ["--version"], VERSION_DEADLINE))
        .map_err(|error| Failure::new(Exit::Host, error.to_string()))?;
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if text.contains("(nf_tables)") {
        Ok(Variant::Nft)
    } else if text.contains("tables") && (output.success() || text.contains("unrecognized option")) {
        Ok(Variant::Legacy)
    } else {
        Err(Failure::new(
            Exit::Host,
            format!(
                "{} cannot be used: asked for its version it ended with {} and said '{}'",
                program.display(),
                output.ending(),
                crate::sys::escape(text.trim())
            ),
        )
        .hint("name a program of an iptables package"))
    }
}

/// No usable iptables at all.
pub fn none_found() -> Failure {
    Failure::new(
        Exit::Host,
        "no iptables found: neither the nft nor the legacy variant has both iptables-save and iptables-restore",
    )
    .hint("install it: 'apt-get install iptables' (Debian, Ubuntu), 'dnf install iptables-nft' (RHEL, Fedora), 'apk add iptables' (Alpine)")
}

//! Which programs there are, and which variant of netfilter they speak to.
//!
//! Almost always the name or the link's target tells the variant (`iptables-restore` → `xtables-nft-multi`), which
//! costs no process; a program of another name is asked for its version. Who only reads asks less: what a program
//! prints tells whose rules it printed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::Executables;
use crate::exit::{Exit, Failure};
use crate::passing::Passing;
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
    /// Whether they are taken for this variant's only because the other one has programs of clear names. What they
    /// print has to say so.
    pub presumed: bool,
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
    /// How many programs were run to find out what they are.
    pub asked: usize,
}

/// Places beside which nobody else's programs lie, in the order in which they are searched.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// How long a program may take to tell its version.
const VERSION_DEADLINE: Duration = Duration::from_secs(10);

/// How often one is asked that crashes or lacks memory, and the pause before it is asked again.
const VERSION_TRIES: usize = 4;
const VERSION_PAUSE: Duration = Duration::from_millis(100);

impl Tools {
    /// Looks for programs; `path` is the caller's `PATH`, searched last.
    ///
    /// # Errors
    /// The configuration names a program that is not there, cannot be executed, or is not an iptables.
    pub fn find(named: &Executables, path: Option<&OsString>) -> Result<Self, Failure> {
        let directories = directories(path);
        let mut tools = Self::default();
        let mut asked = Asked::default();
        for variant in Variant::BOTH {
            for family in Family::BOTH {
                let programs = discover(variant, family, &directories, &mut asked);
                tools.of_mut(variant).set(family, programs);
            }
        }
        // A program that only crashed is none that is not there.
        if let Some(failure) = asked.trouble {
            return Err(failure);
        }
        tools
            .take_named(named, |program| variant_by_name(program).map_or_else(|| ask_variant(program), Ok))?;
        Ok(tools)
    }

    /// The same for who only reads, with fewer processes: programs are not asked for what they print anyway.
    /// `recorded` is the variant of the named ones, where an earlier run found it out.
    ///
    /// # Errors
    /// As those of [`Tools::find`].
    pub fn find_to_read(
        named: &Executables,
        path: Option<&OsString>,
        recorded: Option<Variant>,
    ) -> Result<Self, Failure> {
        let directories = directories(path);
        let mut tools = Self::default();
        let mut asked = Asked::default();
        for variant in Variant::BOTH {
            for family in Family::BOTH {
                let programs = discover_to_read(variant, family, &directories, &mut asked);
                tools.of_mut(variant).set(family, programs);
            }
        }
        // All named programs are of one variant, as every installation sees to.
        let mut one = recorded;
        let mut questions = asked.answers.len();
        tools.take_named(named, |program| {
            variant_by_name(program).or(one).map_or_else(
                || {
                    questions += 1;
                    ask_variant(program).inspect(|variant| one = Some(*variant))
                },
                Ok,
            )
        })?;
        tools.asked = questions;
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
    fn take_named(
        &mut self,
        named: &Executables,
        mut variant_of: impl FnMut(&Path) -> Result<Variant, Failure>,
    ) -> Result<(), Failure> {
        let families = [
            (Family::V4, [&named.iptables, &named.iptables_save, &named.iptables_restore]),
            (Family::V6, [&named.ip6tables, &named.ip6tables_save, &named.ip6tables_restore]),
        ];
        for (family, programs) in families {
            let [Some(main), Some(save), Some(restore)] = programs else { continue };
            for program in [restore, save, main] {
                check_usable(program)?;
                let variant = variant_of(program)?;
                match self.named.replace(variant) {
                    Some(other) if other != variant => return Err(mixed(program, variant, other)),
                    _ => {}
                }
            }
            let Some(variant) = self.named else { continue };
            let programs = Programs { save: save.clone(), restore: restore.clone(), presumed: false };
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

fn directories(path: Option<&OsString>) -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = DIRECTORIES.iter().map(PathBuf::from).collect();
    if let Some(path) = path {
        directories.extend(std::env::split_paths(path).filter(|directory| directory.is_absolute()));
    }
    directories
}

/// What programs answered, so that none is asked twice.
#[derive(Default)]
struct Asked {
    answers: BTreeMap<PathBuf, Option<Variant>>,
    /// Why one could not answer that may answer in a moment.
    trouble: Option<Failure>,
}

impl Asked {
    fn ask(&mut self, program: PathBuf) -> Option<Variant> {
        let Self { answers, trouble } = self;
        *answers.entry(program).or_insert_with_key(|program| match ask_variant(program) {
            Ok(variant) => Some(variant),
            Err(failure) => {
                *trouble = trouble.take().or(failure.passing.then_some(failure));
                None
            }
        })
    }
}

const fn base(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

fn discover(
    variant: Variant,
    family: Family,
    directories: &[PathBuf],
    asked: &mut Asked,
) -> Option<Programs> {
    let base = base(family);
    let mut program = |role: &str| {
        let own = format!("{base}-{variant}-{role}");
        find(&own, directories).or_else(|| {
            let common = find(&format!("{base}-{role}"), directories)?;
            let is = variant_by_name(&common).or_else(|| asked.ask(common.clone()))?;
            (is == variant).then_some(common)
        })
    };
    Some(Programs { restore: program("restore")?, save: program("save")?, presumed: false })
}

fn discover_to_read(
    variant: Variant,
    family: Family,
    directories: &[PathBuf],
    asked: &mut Asked,
) -> Option<Programs> {
    let base = base(family);
    let own = |variant: Variant, role: &str| find(&format!("{base}-{variant}-{role}"), directories);
    let common = |role: &str| find(&format!("{base}-{role}"), directories);
    let restore = own(variant, "restore").or_else(|| common("restore"))?;
    if let Some(save) = own(variant, "save") {
        return Some(Programs { save, restore, presumed: false });
    }
    let save = common("save")?;
    let mut others = Variant::BOTH.into_iter().filter(|other| *other != variant);
    let presumed = variant_by_name(&save).is_none() && others.any(|other| own(other, "save").is_some());
    // Programs of one package are links to one file.
    let mut is = || variant_by_name(&save).or_else(|| asked.ask(save.canonicalize().ok()?));
    (presumed || is() == Some(variant)).then_some(Programs { save, restore, presumed })
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
    let command = Command::new(program, ["--version"], VERSION_DEADLINE);
    let mut tries = 0;
    let output = loop {
        let output = run::run(&command);
        tries += 1;
        let passing = match &output {
            Ok(output) => output.is_passing(),
            Err(error) => error.is_passing(),
        };
        if !passing || tries == VERSION_TRIES {
            break output
                .map_err(|error| Failure::new(Exit::Host, error.to_string()).passing(error.is_passing()))?;
        }
        std::thread::sleep(VERSION_PAUSE);
    };
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
        .passing(output.is_passing())
        .hint("name a program of an iptables package"))
    }
}

/// No usable iptables at all.
pub fn none_found() -> Failure {
    Failure::new(
        Exit::Host,
        "no iptables found: neither the nft nor the legacy variant has both iptables-save and iptables-restore",
    )
    .hint("install with --backend nftables, which needs no program, or install iptables: 'apt-get install iptables' (Debian, Ubuntu), 'dnf install iptables-nft' (RHEL, Fedora), 'apk add iptables' (Alpine)")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A directory of programs that say they are legacy, and keep count of who asked; gone at the end.
    struct Programs(PathBuf);

    impl Programs {
        fn new(test: &str, names: &[&str]) -> Self {
            let dir = std::env::temp_dir().join(format!("tproxy-tools-{test}-{}", std::process::id()));
            fs::create_dir(&dir).unwrap();
            let script =
                format!("#!/bin/sh\necho x >>{}/asked\necho 'iptables v1.8.9 (legacy)'\n", dir.display());
            let one = dir.join("multi");
            fs::write(&one, script).unwrap();
            fs::set_permissions(&one, fs::Permissions::from_mode(0o755)).unwrap();
            for name in names {
                std::os::unix::fs::symlink("multi", dir.join(name)).unwrap();
            }
            Self(dir)
        }

        fn asked(&self) -> usize {
            fs::read_to_string(self.0.join("asked")).unwrap_or_default().lines().count()
        }
    }

    impl Drop for Programs {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const UNCLEAR: [&str; 4] = ["iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore"];

    fn found(programs: &Programs) -> Vec<(Variant, Family, bool)> {
        let mut asked = Asked::default();
        let all = Variant::BOTH.into_iter().flat_map(|variant| Family::BOTH.map(|family| (variant, family)));
        all.filter_map(|(variant, family)| {
            let found = discover_to_read(variant, family, std::slice::from_ref(&programs.0), &mut asked)?;
            Some((variant, family, found.presumed))
        })
        .collect()
    }

    #[test]
    fn programs_of_unclear_names_are_asked_once() {
        let programs = Programs::new("once", &UNCLEAR);
        assert_eq!(
            found(&programs),
            [(Variant::Legacy, Family::V4, false), (Variant::Legacy, Family::V6, false)]
        );
        assert_eq!(programs.asked(), 1);
    }

    #[test]
    fn beside_clear_names_they_need_not_be_asked() {
        let clear =
            ["iptables-nft-save", "iptables-nft-restore", "ip6tables-nft-save", "ip6tables-nft-restore"];
        let programs = Programs::new("clear", &[&UNCLEAR[..], &clear].concat());
        let legacy = Family::BOTH.map(|family| (Variant::Legacy, family, true));
        let nft = Family::BOTH.map(|family| (Variant::Nft, family, false));
        assert_eq!(found(&programs), [nft, legacy].concat());
        assert_eq!(programs.asked(), 0);
    }
}

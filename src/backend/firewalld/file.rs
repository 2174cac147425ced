//! direct.xml on disk: read, and replaced in one step.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::back::{self, Back};
use super::changes::{self, Changes};
use super::{Error, SKELETON, merge, remove};
use crate::exit::{Exit, Failure};
use crate::host::unread;
use crate::plan::Plan;
use crate::sys::files;

/// Where firewalld has it.
pub const DIRECT_XML: &str = "/etc/firewalld/direct.xml";

/// The longest that is read of it, in bytes: ten thousand rules are a tenth of it.
const LARGEST: u64 = 32 << 20;

/// As firewalld's own.
const MODE: u32 = 0o644;

/// What storing changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Whether the file was written; if not, our rules were in it already.
    pub changed: bool,
    /// Elements of others in our chains that are gone now, control characters escaped.
    pub replaced: Vec<String>,
    /// What firewalld cannot be told: one sentence each.
    pub notes: Vec<String>,
}

/// A direct.xml as it was at a point in time, or that there was none.
#[derive(Debug, Clone)]
pub struct Backup {
    path: PathBuf,
    before: Option<Text>,
}

impl Backup {
    /// Remembers it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn take(path: &Path) -> Result<Self, Failure> {
        Ok(Self { path: path.to_owned(), before: read(path)? })
    }

    /// Puts our part of it back, if that is another one now. What others changed meanwhile stays; whether they did.
    ///
    /// # Errors
    /// It cannot be written, or others made something of it that cannot be understood.
    pub fn put_back(&self) -> Result<bool, Failure> {
        let now = read(&self.path)?;
        let text = |text: &Option<Text>| text.as_ref().map(|text| text.text.clone());
        let way = back::way(text(&now).as_deref(), text(&self.before).as_deref());
        let (wanted, edited) = match way.map_err(|error| failure(&self.path, &error))? {
            Back::Nothing => return Ok(false),
            Back::Whole => (self.before.clone(), false),
            Back::Part(text) => {
                (Some(Text { text, single_bytes: now.is_some_and(|now| now.single_bytes) }), true)
            }
        };
        let done = match &wanted {
            Some(text) if edited && text.text == SKELETON && self.before.is_none() => {
                fs::remove_file(&self.path)
            }
            Some(text) => write(&self.path, text),
            None => fs::remove_file(&self.path),
        };
        done.map_err(|error| unwritable(&self.path, &error))?;
        Ok(edited)
    }
}

/// Whether the file can be read, or is not there.
///
/// # Errors
/// Why it cannot be read.
pub fn check_readable(path: &Path) -> Result<(), Failure> {
    read(path).map(drop)
}

/// Whether rules can be put into the file, as far as reading it tells.
///
/// # Errors
/// It cannot be read, or it is not one that firewalld could read.
pub fn check_storable(path: &Path) -> Result<(), Failure> {
    let existing = read(path)?;
    let text = existing.as_ref().map(|existing| existing.text.as_str());
    changes::between(text, text).map(drop).map_err(|error| failure(path, &error))
}

/// Puts the rules of a plan into the file. firewalld takes notice of it when it starts or reloads.
///
/// # Errors
/// firewalld is not there, the file cannot be read or written, or it is not one that firewalld could read.
pub fn store(path: &Path, plan: &Plan, comments: bool) -> Result<Stored, Failure> {
    let existing = read(path)?;
    let merged = merge(existing.as_ref().map(|existing| existing.text.as_str()), plan, comments)
        .map_err(|error| failure(path, &error))?;
    let single_bytes = existing.as_ref().is_some_and(|existing| existing.single_bytes);
    let text = Text { text: merged.text, single_bytes };
    let changed = existing.as_ref() != Some(&text);
    if changed {
        write(path, &text).map_err(|error| unwritable(path, &error))?;
    }
    Ok(Stored { changed, replaced: merged.replaced, notes: merged.notes })
}

/// Takes our rules out of the file, and removes the file if we made it and nobody else has used it. `None`: there
/// was nothing of ours.
///
/// # Errors
/// As for [`store`]; and without `force`, rules of others lead to our chains.
pub fn withdraw(path: &Path, force: bool) -> Result<bool, Failure> {
    let Some(before) = read(path)? else { return Ok(false) };
    let Some(text) = remove(&before.text, force).map_err(|error| failure(path, &error))? else {
        return Ok(false);
    };
    let text = Text { text, ..before };
    let done = if text.text == SKELETON { fs::remove_file(path) } else { write(path, &text) };
    done.map_err(|error| unwritable(path, &error))?;
    Ok(true)
}

/// What [`store`] would change.
///
/// # Errors
/// As for [`store`].
pub fn store_changes(path: &Path, plan: &Plan, comments: bool) -> Result<Changes, Failure> {
    let existing = read(path)?;
    let existing = existing.as_ref().map(|existing| existing.text.as_str());
    let merged = merge(existing, plan, comments).map_err(|error| failure(path, &error))?;
    changes::between(existing, Some(&merged.text)).map_err(|error| failure(path, &error))
}

/// What [`withdraw`] would change.
///
/// # Errors
/// As for [`withdraw`].
pub fn withdraw_changes(path: &Path, force: bool) -> Result<Changes, Failure> {
    let Some(before) = read(path)? else { return Ok(Changes::default()) };
    match remove(&before.text, force).map_err(|error| failure(path, &error))? {
        Some(text) => {
            changes::between(Some(&before.text), Some(&text)).map_err(|error| failure(path, &error))
        }
        None => Ok(Changes::default()),
    }
}

/// A file's content. One that is not UTF-8 is in one of the encodings that have ASCII within them; then each byte is
/// a character here, which is enough to find our elements and to give all others back.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Text {
    text: String,
    single_bytes: bool,
}

impl Text {
    fn decode(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self { text, single_bytes: false },
            Err(error) => {
                let text = error.as_bytes().iter().map(|byte| char::from(*byte)).collect();
                Self { text, single_bytes: true }
            }
        }
    }

    fn encode(&self) -> Cow<'_, [u8]> {
        if !self.single_bytes {
            return Cow::Borrowed(self.text.as_bytes());
        }
        let mut bytes = Vec::with_capacity(self.text.len());
        for c in self.text.chars() {
            match u8::try_from(c) {
                Ok(byte) => bytes.push(byte),
                // Not from the file but from the name of an interface, which has the bytes of UTF-8 everywhere.
                Err(_) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        Cow::Owned(bytes)
    }
}

fn read(path: &Path) -> Result<Option<Text>, Failure> {
    match files::read(path, LARGEST) {
        Ok(bytes) => Ok(Some(Text::decode(bytes))),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(unread(&path.display().to_string(), &error)),
    }
}

fn failure(path: &Path, error: &Error) -> Failure {
    match error {
        Error::Malformed { .. } => Failure::new(Exit::Failed, format!("{}: {error}", path.display()))
            .hint("`firewall-offline-cmd --check-config` tells what firewalld makes of the file"),
        Error::StillUsed(_) => Failure::new(Exit::Failed, format!("{}: {error}", path.display()))
            .hint("remove them, or pass --force to have them removed"),
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::new(Exit::Failed, format!("cannot write {}: {error}", path.display()));
    if error.kind() == io::ErrorKind::NotFound {
        return failure.hint("is firewalld installed? Without it, leave --store-firewalld out");
    }
    failure
}

/// Replaces the file by one that was completely written before: firewalld may read it at any time, and a machine
/// may stop at any time.
fn write(path: &Path, text: &Text) -> io::Result<()> {
    // A symbolic link stays one.
    let target = match fs::canonicalize(path) {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error),
    };
    let temporary = beside(&target);
    // Left by a run that was killed; our lock keeps another one from being at it now.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = fill(&temporary, &target, text).and_then(|()| fs::rename(&temporary, &target));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
        return written;
    }
    target.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

fn fill(temporary: &Path, target: &Path, text: &Text) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(&text.encode())?;
    match fs::metadata(target) {
        Ok(old) => {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
            file.set_permissions(Permissions::from_mode(old.mode() & 0o7777))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            file.set_permissions(Permissions::from_mode(MODE))?;
        }
        Err(error) => return Err(error),
    }
    file.sync_all()
}

/// A name in the same directory, which firewalld does not read.
fn beside(target: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".tproxy");
    target.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::Config;
    use crate::host::{HostFacts, Ipv6Support};

    /// A directory that goes away with the value.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("tproxy-firewalld-{name}-{}", std::process::id()));
            fs::create_dir(&dir).unwrap();
            Self(dir)
        }

        fn file(&self) -> PathBuf {
            self.0.join("direct.xml")
        }

        fn names(&self) -> Vec<String> {
            let names = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names = names.map(|name| name.into_string().unwrap()).collect::<Vec<_>>();
            names.sort_unstable();
            names
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn plan() -> Plan {
        let facts = HostFacts {
            sidecar_uid: 5678,
            loopback: "lo".into(),
            ipv6: Ipv6Support::Available,
            resolvers: vec![],
            docker_dns: false,
            translated: crate::host::Translated::default(),
        };
        crate::plan::build(&Config::default(), &facts)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_file_of_ours_comes_and_goes() {
        let dir = Dir::new("new");
        assert!(!withdraw(&dir.file(), false).unwrap());
        let stored = store(&dir.file(), &plan(), true).unwrap();
        assert!(stored.changed);
        assert_eq!(mode(&dir.file()), 0o644);
        let first = fs::metadata(dir.file()).unwrap();
        assert!(!store(&dir.file(), &plan(), true).unwrap().changed);
        assert_eq!(fs::metadata(dir.file()).unwrap().ino(), first.ino());
        let before = fs::read(dir.file()).unwrap();
        let backup = Backup::take(&dir.file()).unwrap();
        assert!(withdraw(&dir.file(), false).unwrap());
        assert_eq!(dir.names(), [""; 0]);
        assert!(!backup.put_back().unwrap());
        assert_eq!(fs::read(dir.file()).unwrap(), before);
        assert_eq!(mode(&dir.file()), 0o644);
    }

    #[test]
    fn a_file_of_somebody_else_keeps_its_mode_and_its_link() {
        let dir = Dir::new("mode");
        let real = dir.0.join("real.xml");
        fs::write(&real, "<direct>\n</direct>\n").unwrap();
        fs::set_permissions(&real, Permissions::from_mode(0o640)).unwrap();
        symlink("real.xml", dir.file()).unwrap();
        // Left by a run that was killed.
        fs::write(dir.0.join(".real.xml.tproxy"), "half").unwrap();
        assert!(store(&dir.file(), &plan(), true).unwrap().changed);
        assert!(fs::read_to_string(&real).unwrap().contains("KUMA_MESH_INBOUND"));
        assert!(withdraw(&dir.file(), false).unwrap());
        assert_eq!(fs::read_to_string(&real).unwrap(), "<direct>\n</direct>\n");
        assert_eq!(mode(&real), 0o640);
        assert_eq!(dir.names(), ["direct.xml", "real.xml"]);
        assert!(fs::symlink_metadata(dir.file()).unwrap().is_symlink());
    }

    #[test]
    fn a_file_that_cannot_be_understood_is_left_alone() {
        let dir = Dir::new("broken");
        fs::write(dir.file(), "<direct>\n<rule>\n").unwrap();
        let failure = store(&dir.file(), &plan(), true).unwrap_err();
        assert!(failure.message.starts_with(&format!("{}: line 3: ", dir.file().display())), "{failure}");
        assert!(!withdraw(&dir.file(), false).unwrap(), "it never heard of us");
        fs::write(dir.file(), "<direct>\n<!-- KUMA_MESH_INBOUND -->").unwrap();
        assert!(withdraw(&dir.file(), false).unwrap_err().message.contains("the file ends within"));
        assert_eq!(dir.names(), ["direct.xml"]);
    }

    #[test]
    fn other_encodings_survive() {
        let dir = Dir::new("encoding");
        let latin =
            b"<?xml version='1.0' encoding='ISO-8859-1'?>\n<!-- B\xfcro \xe4 \x80\xff -->\n<direct/>\n";
        fs::write(dir.file(), latin).unwrap();
        store(&dir.file(), &plan(), true).unwrap();
        let stored = fs::read(dir.file()).unwrap();
        assert!(stored.starts_with(&latin[..latin.len() - 3]));
        assert!(String::from_utf8_lossy(&stored).contains("KUMA_MESH_INBOUND"));
        assert!(!store(&dir.file(), &plan(), true).unwrap().changed);
        assert!(withdraw(&dir.file(), false).unwrap());
        let left = [&latin[..latin.len() - 3], b">\n</direct>\n"].concat();
        assert_eq!(fs::read(dir.file()).unwrap(), left);
    }

    #[test]
    fn without_firewalld_there_is_a_hint() {
        let dir = Dir::new("absent");
        let failure = store(&dir.0.join("firewalld/direct.xml"), &plan(), true).unwrap_err();
        assert!(failure.message.contains("No such file or directory"), "{failure}");
        assert!(failure.hint.unwrap().contains("--store-firewalld"));
    }

    #[test]
    fn rules_that_lead_to_us_need_force() {
        let dir = Dir::new("force");
        let jump = "<direct><rule ipv='ipv4' table='nat' chain='OUTPUT' priority='1'>-j KUMA_MESH_OUTBOUND</rule></direct>";
        fs::write(dir.file(), jump).unwrap();
        store(&dir.file(), &plan(), true).unwrap();
        let before = fs::read(dir.file()).unwrap();
        let failure = withdraw(&dir.file(), false).unwrap_err();
        assert!(
            failure.message.contains("-j KUMA_MESH_OUTBOUND") && failure.hint.unwrap().contains("--force")
        );
        assert_eq!(fs::read(dir.file()).unwrap(), before);
        assert!(withdraw(&dir.file(), true).unwrap());
        assert_eq!(fs::read_to_string(dir.file()).unwrap(), "<direct></direct>");
    }
}

//! Opens files and directories so that nobody else can lead a run astray or hold it up.
//!
//! What a run keeps for the next one is in a directory that root alone can write. It is opened once, and everything
//! in it is reached from there, never through a symbolic link. What somebody names is read if it is a regular file
//! that ends: a pipe or a device would keep a run waiting for ever.

use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

/// Who owns what no user of this user namespace owns; `/` in a container of an ordinary user.
const OVERFLOW: u32 = 65534;

/// The permissions to write for the group and for everybody.
const OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// How often a file is made again that somebody made or removed at the same time.
const TRIES: usize = 100;

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// It is something else.
    #[error("it is {0}, not a regular file")]
    NotAFile(&'static str),
    /// It has more bytes than this.
    #[error("it is larger than {} MiB", .0 >> 20)]
    TooLarge(u64),
    /// Somebody else may have written it.
    #[error("it belongs to UID {uid} (mode {mode:04o}), so another user may have written it")]
    Foreign {
        /// Who owns it.
        uid: u32,
        /// Its permissions.
        mode: u32,
    },
    /// The kernel's reason.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Unread {
    /// Whether there is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// Whether it is one that should not have been named.
    pub fn is_misnamed(&self) -> bool {
        matches!(self, Self::NotAFile(_) | Self::TooLarge(_))
    }
}

impl From<Errno> for Unread {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// Reads a regular file, wherever links lead to it, of so many bytes at most.
///
/// # Errors
/// See [`Unread`].
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Unread> {
    // Before it is opened too: to open some devices does something by itself.
    must_be_a_file(&fs::metadata(path)?)?;
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let metadata = file.metadata()?;
    must_be_a_file(&metadata)?;
    // One more than there is, so that the end is seen by the second read.
    let size = usize::try_from(metadata.len().min(limit)).unwrap_or_default();
    into(Vec::with_capacity(size + 1), file, limit)
}

/// Everything that a source has to give, if that is not more than so many bytes.
///
/// # Errors
/// See [`Unread`].
pub fn up_to(source: impl Read, limit: u64) -> Result<Vec<u8>, Unread> {
    into(Vec::new(), source, limit)
}

fn into(mut bytes: Vec<u8>, source: impl Read, limit: u64) -> Result<Vec<u8>, Unread> {
    source.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(Unread::TooLarge(limit)) } else { Ok(bytes) }
}

/// Whether what others are about to read is a regular file. It is not opened.
///
/// # Errors
/// It is none, or is not there.
pub fn is_regular(path: &Path) -> Result<(), Unread> {
    must_be_a_file(&fs::metadata(path)?)
}

fn must_be_a_file(file: &fs::Metadata) -> Result<(), Unread> {
    let kind = file.file_type();
    Err(Unread::NotAFile(match kind {
        _ if kind.is_file() => return Ok(()),
        _ if kind.is_dir() => "a directory",
        _ if kind.is_fifo() => "a FIFO",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    }))
}

/// Why a directory is not used.
#[derive(Debug, thiserror::Error)]
pub enum NoDir {
    /// Another user can write there.
    #[error("{0}")]
    Foreign(String),
    /// The kernel's reason.
    #[error("{}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A directory that nobody but this user can write, however its path changes meanwhile.
#[derive(Debug, Clone)]
pub struct Dir {
    fd: Arc<OwnedFd>,
    path: PathBuf,
}

impl Dir {
    /// Opens it.
    ///
    /// # Errors
    /// It is not there, or another user can write it or put another one in its place.
    pub fn open(path: &Path) -> Result<Self, NoDir> {
        let failed = |source| NoDir::Io { path: path.to_owned(), source };
        let real = place(path)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = match nix::fcntl::open(&real, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                let found = fs::symlink_metadata(&real).map_err(failed)?;
                let what = if found.is_symlink() { "a symbolic link" } else { "no directory" };
                let owner = found.uid();
                return Err(NoDir::Foreign(format!("{} is {what}, of UID {owner}", path.display())));
            }
            Err(errno) => return Err(failed(errno.into())),
        };
        let found = fstat(&fd).map_err(|errno| failed(errno.into()))?;
        let (uid, mode) = (found.st_uid, found.st_mode & 0o7777);
        if uid != geteuid().as_raw() || mode & OTHERS_WRITE != 0 {
            let how =
                if uid == geteuid().as_raw() { "can be written by others" } else { "is another user's" };
            return Err(NoDir::Foreign(format!("{} {how} (UID {uid}, mode {mode:04o})", path.display())));
        }
        Ok(Self { fd: Arc::new(fd), path: path.to_owned() })
    }

    /// Makes it, private, where it is not there, and opens it.
    ///
    /// # Errors
    /// As those of [`Dir::open`].
    pub fn make(path: &Path) -> Result<Self, NoDir> {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                Err(NoDir::Io { path: path.to_owned(), source })
            }
            made => {
                let opened = Self::open(path);
                if opened.is_err() && made.is_ok() {
                    let _ = fs::remove_dir(path);
                }
                opened
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it, whether it is there or not.
    pub fn entry(&self, name: impl Into<String>) -> Entry {
        Entry { dir: self.clone(), name: name.into() }
    }

    /// What is in it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut again = nix::dir::Dir::from_fd(openat(&self.fd, ".", flags, Mode::empty())?)?;
        let names = again.iter().filter_map(Result::ok).map(|entry| entry.file_name().to_owned());
        let names = names.filter_map(|name: std::ffi::CString| CStr::to_str(&name).ok().map(str::to_owned));
        Ok(names.filter(|name| name != "." && name != "..").collect())
    }

    /// Removes it, if nothing is in it.
    pub fn remove_if_empty(&self) {
        let _ = fs::remove_dir(&self.path);
    }
}

/// A file of a directory that is ours.
#[derive(Debug, Clone)]
pub struct Entry {
    dir: Dir,
    name: String,
}

impl Entry {
    /// Where it is, for people.
    pub fn path(&self) -> PathBuf {
        self.dir.path.join(&self.name)
    }

    /// Whether nothing has this name. Where that cannot be learned, something may.
    pub fn is_missing(&self) -> bool {
        matches!(self.stat(), Err(Errno::ENOENT))
    }

    /// Whether this open file has this name now.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is(&self, file: &File) -> io::Result<bool> {
        let ours = fstat(file)?;
        match self.stat() {
            Ok(there) => Ok((ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// What it holds, up to so many bytes. `None`: there is no such file.
    ///
    /// # Errors
    /// It is no regular file, somebody else may have written it, or it is too long.
    pub fn read(&self, limit: u64) -> Result<Option<Vec<u8>>, Unread> {
        match self.open(OFlag::O_RDONLY) {
            Ok(file) => up_to(file, limit).map(Some),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens it to look at it.
    ///
    /// # Errors
    /// It is not there, it is no regular file, or somebody else may have written it.
    pub fn file(&self) -> Result<File, Unread> {
        self.open(OFlag::O_RDONLY)
    }

    /// Gives it this content, whole or not at all, by way of a file of another name.
    ///
    /// # Errors
    /// The kernel's: no space, a read-only file system.
    pub fn replace(&self, by_way_of: &Self, content: &[u8]) -> io::Result<()> {
        // Left by a run that was killed, or by anybody who could write here once.
        by_way_of.remove()?;
        let made = by_way_of.create(OFlag::O_WRONLY)?;
        let put = || match renameat(&self.dir.fd, &*by_way_of.name, &self.dir.fd, &*self.name) {
            // No file takes the place of a directory.
            Err(Errno::EISDIR) => {
                self.remove()?;
                Ok(renameat(&self.dir.fd, &*by_way_of.name, &self.dir.fd, &*self.name)?)
            }
            put => Ok(put?),
        };
        let written = File::from(made).write_all(content).and_then(|()| put());
        if written.is_err() {
            let _ = by_way_of.remove();
        }
        written
    }

    /// Opens it to read and write, or to add to its end. It is made (mode 0600) where it is not there, and made anew
    /// where what has its name is no file of ours.
    ///
    /// # Errors
    /// The kernel's.
    pub fn keep(&self, append: bool) -> io::Result<File> {
        let how = if append { OFlag::O_WRONLY | OFlag::O_APPEND } else { OFlag::O_RDWR };
        for _ in 0..TRIES {
            match self.open(how) {
                Ok(file) => return Ok(file),
                Err(Unread::Io(error)) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Err(Unread::Io(_)) => {}
                Err(Unread::NotAFile(_) | Unread::Foreign { .. } | Unread::TooLarge(_)) => self.remove()?,
            }
            match self.create(how) {
                Err(Errno::EEXIST) => {}
                made => return Ok(File::from(made?)),
            }
        }
        Err(Errno::EEXIST.into())
    }

    /// Removes it, whatever it is, if it is there.
    ///
    /// # Errors
    /// The kernel's: it is a directory with something in it.
    pub fn remove(&self) -> io::Result<()> {
        self.take().map(drop)
    }

    /// The same; whether it was there.
    ///
    /// # Errors
    /// As those of [`Entry::remove`].
    pub fn take(&self) -> io::Result<bool> {
        let gone = match unlinkat(&self.dir.fd, &*self.name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR) => unlinkat(&self.dir.fd, &*self.name, UnlinkatFlags::RemoveDir),
            done => done,
        };
        match gone {
            Err(Errno::ENOENT) => Ok(false),
            done => Ok(done.map(|()| true)?),
        }
    }

    fn create(&self, how: OFlag) -> nix::Result<OwnedFd> {
        let flags = how | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&self.dir.fd, &*self.name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
    }

    fn open(&self, how: OFlag) -> Result<File, Unread> {
        // Before it is opened too: to open some devices does something by itself.
        must_be_ours(&self.stat()?)?;
        let flags = how | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let fd = openat(&self.dir.fd, &*self.name, flags, Mode::empty())?;
        must_be_ours(&fstat(fd.as_fd())?)?;
        Ok(fd.into())
    }

    fn stat(&self) -> nix::Result<FileStat> {
        fstatat(&self.dir.fd, &*self.name, AtFlags::AT_SYMLINK_NOFOLLOW)
    }
}

/// A regular file that this user alone can have written.
fn must_be_ours(file: &FileStat) -> Result<(), Unread> {
    let kind = SFlag::from_bits_truncate(file.st_mode & SFlag::S_IFMT.bits());
    let (uid, mode) = (file.st_uid, file.st_mode & 0o7777);
    if uid != geteuid().as_raw() || (kind != SFlag::S_IFLNK && mode & OTHERS_WRITE != 0) {
        return Err(Unread::Foreign { uid, mode });
    }
    Err(Unread::NotAFile(match kind {
        SFlag::S_IFREG => return Ok(()),
        SFlag::S_IFDIR => "a directory",
        SFlag::S_IFLNK => "a symbolic link",
        SFlag::S_IFIFO => "a FIFO",
        SFlag::S_IFSOCK => "a socket",
        _ => "a device",
    }))
}

/// Where a path leads but for its last name, in a directory in which no other user can put something else in the place of
/// what is there.
///
/// # Errors
/// Another user can, or there is no such directory.
pub fn place(path: &Path) -> Result<PathBuf, NoDir> {
    let failed = |source| NoDir::Io { path: path.to_owned(), source };
    let parent = path.parent().unwrap_or(Path::new("/"));
    // Of a symbolic link, the place to which it leads.
    let parent = fs::canonicalize(parent).map_err(failed)?;
    for above in parent.ancestors() {
        let found = fs::metadata(above).map_err(failed)?;
        let owners: &[u32] = if above == parent { &[] } else { &[OVERFLOW] };
        if let Some(how) = in_others_hands(found.uid(), found.mode(), owners) {
            let what = format!("{}, in which {} is, {how}", above.display(), path.display());
            return Err(NoDir::Foreign(what));
        }
    }
    Ok(parent.join(path.file_name().unwrap_or_default()))
}

/// How others can put another directory in the place of one that is in this one.
fn in_others_hands(uid: u32, mode: u32, owners: &[u32]) -> Option<String> {
    let mode = mode & 0o7777;
    let trusted = [0, geteuid().as_raw()].contains(&uid) || owners.contains(&uid);
    let how = if !trusted {
        "is another user's"
    } else if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
        "can be written by others"
    } else {
        return None;
    };
    Some(format!("{how} (UID {uid}, mode {mode:04o})"))
}

#[cfg(test)]
mod tests;

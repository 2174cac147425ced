use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::process::{Child, Command, Stdio};

use super::super::files;
use super::*;

const LONG: Duration = Duration::from_secs(60);

/// A directory that goes away with the value.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("tproxy-lock-{name}-{}", std::process::id()));
        files::Dir::make(&dir).unwrap();
        Self(dir)
    }

    fn entry(&self) -> Entry {
        files::Dir::open(&self.0).unwrap().entry("lock")
    }

    fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Another process that holds the lock until it is told to let go.
struct Other(Child);

impl Other {
    fn hold(path: &Path) -> Self {
        let script = "exec 9>\"$1\"; flock 9; echo locked; read line";
        let mut child = Command::new("/bin/sh")
            .args(["-c", script, "a\tname"])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "locked\n");
        Self(child)
    }

    fn release(&mut self) {
        self.0.stdin.take().unwrap().write_all(b"go\n").unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_file_is_made_private_and_removed_on_request() {
    let dir = Dir::new("private");
    let lock = FileLock::acquire(&dir.entry(), Duration::ZERO).unwrap();
    assert_eq!(dir.lock().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    drop(lock);
    assert!(dir.lock().exists());
    FileLock::acquire(&dir.entry(), Duration::ZERO).unwrap().remove().unwrap();
    assert!(!dir.lock().exists());
}

#[test]
fn a_busy_lock_names_its_holder() {
    let dir = Dir::new("busy");
    let mut other = Other::hold(&dir.lock());
    for wait in [Duration::ZERO, Duration::from_millis(30)] {
        let error = FileLock::acquire(&dir.entry(), wait).unwrap_err();
        let LockError::Busy { path, holder: Some(holder) } = &error else { panic!("{error:?}") };
        assert_eq!((path, holder.pid), (&dir.lock(), other.0.id()));
        assert!(holder.command.starts_with("/bin/sh -c exec 9>"), "{holder}");
        assert!(holder.command.contains("a\\tname"), "{holder}");
        assert!(error.to_string().ends_with(&format!("is locked by {holder}")), "{error}");
    }
    assert_eq!(holder(&dir.lock()).unwrap().pid, other.0.id());
    other.release();
    assert_eq!(holder(&dir.lock()), None);
    FileLock::acquire(&dir.entry(), Duration::ZERO).unwrap();
}

#[test]
fn a_lock_given_back_is_taken() {
    let dir = Dir::new("taken");
    let mut other = Other::hold(&dir.lock());
    let entry = dir.entry();
    let waiting = std::thread::spawn(move || FileLock::acquire(&entry, LONG).map(drop));
    other.release();
    waiting.join().unwrap().unwrap();
}

#[test]
fn who_gives_up_does_not_keep_the_lock() {
    let dir = Dir::new("given-up");
    let mut other = Other::hold(&dir.lock());
    FileLock::acquire(&dir.entry(), Duration::from_millis(10)).unwrap_err();
    other.release();
    FileLock::acquire(&dir.entry(), Duration::ZERO).unwrap();
}

#[test]
fn a_lock_on_a_removed_file_is_not_taken_for_one() {
    let dir = Dir::new("removed");
    let entry = dir.entry();
    let first = FileLock::acquire(&entry, Duration::ZERO).unwrap();
    let waiting = std::thread::spawn({
        let entry = entry.clone();
        move || FileLock::acquire(&entry, LONG)
    });
    // Whether it waits already or not: it must not end with a lock on the removed file.
    first.remove().unwrap();
    let second = waiting.join().unwrap().unwrap();
    assert!(entry.is(second.locked.0.as_ref().unwrap()).unwrap());
    assert!(matches!(FileLock::acquire(&entry, Duration::ZERO), Err(LockError::Busy { .. })));
}

#[test]
fn many_threads_make_and_remove_it_one_at_a_time() {
    let dir = Dir::new("many");
    let inside = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for i in 0..6 {
            let (entry, inside) = (dir.entry(), &inside);
            scope.spawn(move || {
                for _ in 0..50 {
                    let lock = FileLock::acquire(&entry, LONG).unwrap();
                    assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                    std::thread::yield_now();
                    inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    if i % 2 == 0 { lock.remove().unwrap() } else { drop(lock) }
                }
            });
        }
    });
}

#[test]
fn what_is_no_file_of_ours_makes_room_for_one() {
    let dir = Dir::new("link");
    std::os::unix::fs::symlink(dir.0.join("target"), dir.lock()).unwrap();
    FileLock::acquire(&dir.entry(), Duration::ZERO).unwrap();
    assert!(!dir.0.join("target").exists());
    assert!(dir.lock().symlink_metadata().unwrap().is_file());
}

#[test]
fn without_a_place_there_is_no_lock() {
    let dir = Dir::new("full");
    std::fs::create_dir_all(dir.lock().join("more")).unwrap();
    let error = FileLock::acquire(&dir.entry(), Duration::ZERO).unwrap_err();
    assert!(error.to_string().starts_with("cannot lock "), "{error}");
    let entry = dir.entry();
    std::fs::remove_dir_all(&dir.0).unwrap();
    let error = FileLock::acquire(&entry, Duration::ZERO).unwrap_err();
    assert!(
        matches!(&error, LockError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound),
        "{error:?}"
    );
}

#[test]
fn a_child_keeps_the_lock_of_a_process_that_is_gone() {
    let dir = Dir::new("children");
    let lock = FileLock::acquire(&dir.entry(), Duration::ZERO).unwrap();
    lock.share_with_children().unwrap();
    let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
    // As the end of this process would: the descriptor is closed, nothing is unlocked.
    lock.abandon();
    assert!(matches!(FileLock::acquire(&dir.entry(), Duration::ZERO), Err(LockError::Busy { .. })));
    drop(child.stdin.take());
    child.wait().unwrap();
    FileLock::acquire(&dir.entry(), Duration::ZERO).unwrap();
}

#[test]
fn unlocking_that_fails_is_no_panic() {
    // A descriptor that flock(2) refuses.
    let refused = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open("/dev/null").unwrap();
    assert_eq!(flock(&refused, libc::LOCK_UN), Err(Errno::EBADF));
    drop(Locked(Some(refused)));
}

#[test]
fn a_file_is_kept_for_as_long_as_anybody_has_it() {
    let dir = Dir::new("kept");
    let file = dir.entry().keep(false).unwrap();
    let look = || is_kept(&File::open(dir.lock()).unwrap()).unwrap();
    assert!(!look());
    assert!(keep(&file).unwrap());
    assert!(look());
    assert!(!keep(&dir.entry().keep(false).unwrap()).unwrap());
    let heir = file.try_clone().unwrap();
    drop(file);
    assert!(look());
    drop(heir);
    assert!(!look());
}

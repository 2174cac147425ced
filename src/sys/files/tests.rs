use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

use super::*;

/// A directory that goes away with the value, in one that only its owner can write.
struct Room(PathBuf);

impl Room {
    fn new(name: &str) -> Self {
        let room = std::env::temp_dir().join(format!("tproxy-files-{name}-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&room).unwrap();
        Self(room)
    }

    fn dir(&self) -> PathBuf {
        self.0.join("dir")
    }

    fn refused(&self) -> String {
        match Dir::make(&self.dir()) {
            Err(NoDir::Foreign(why)) => why,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn fifo(path: &Path) {
    nix::unistd::mkfifo(path, Mode::S_IRWXU).unwrap();
}

/// Gives a file, also a link, to another user, as only root can. Whether that was done.
fn give_away(path: &Path) -> bool {
    if !geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI must run these tests as root");
        eprintln!("skipped: only root can give files away");
        return false;
    }
    std::os::unix::fs::lchown(path, Some(5700), Some(5700)).unwrap();
    true
}

#[test]
fn only_regular_files_that_end_are_read() {
    let room = Room::new("read");
    let file = room.0.join("file");
    fs::write(&file, "text").unwrap();
    assert_eq!(read(&file, 4).unwrap(), b"text");
    assert!(matches!(read(&file, 3), Err(Unread::TooLarge(3))));
    symlink("file", room.0.join("link")).unwrap();
    assert_eq!(read(&room.0.join("link"), 4).unwrap(), b"text", "as /etc/resolv.conf often is");
    assert!(read(&room.0.join("missing"), 4).unwrap_err().is_missing());

    fifo(&room.0.join("fifo"));
    let socket = room.0.join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    symlink("/dev/zero", room.0.join("zeros")).unwrap();
    symlink("loop", room.0.join("loop")).unwrap();
    for (name, what) in
        [("fifo", "a FIFO"), ("socket", "a socket"), ("zeros", "a device"), ("", "a directory")]
    {
        let error = read(&room.0.join(name), 4).unwrap_err();
        assert_eq!(error.to_string(), format!("it is {what}, not a regular file"));
        assert!(error.is_misnamed());
    }
    assert!(!read(&room.0.join("loop"), 4).unwrap_err().is_misnamed());
}

#[test]
fn a_directory_is_made_private_and_used_again() {
    let room = Room::new("made");
    assert!(
        matches!(Dir::open(&room.dir()), Err(NoDir::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound)
    );
    let dir = Dir::make(&room.dir()).unwrap();
    assert_eq!(fs::metadata(room.dir()).unwrap().mode() & 0o7777, 0o700);
    dir.entry("a").replace(&dir.entry("a.new"), b"1").unwrap();
    assert_eq!(fs::metadata(room.dir().join("a")).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(Dir::make(&room.dir()).unwrap().entry("a").read(9).unwrap().unwrap(), b"1");
    assert_eq!(dir.names().unwrap(), ["a"]);
    // That others can look is no harm.
    mode(&room.dir(), 0o755);
    Dir::open(&room.dir()).unwrap();
}

#[test]
fn a_directory_that_others_can_write_is_none() {
    let room = Room::new("writable");
    Dir::make(&room.dir()).unwrap();
    for bits in [0o770, 0o707, 0o777, 0o1777] {
        mode(&room.dir(), bits);
        assert!(room.refused().ends_with(&format!("mode {bits:04o})")), "{}", room.refused());
    }
    mode(&room.dir(), 0o700);
    if give_away(&room.dir()) {
        assert!(room.refused().contains("is another user's (UID 5700"), "{}", room.refused());
    }
}

#[test]
fn nor_one_that_is_something_else() {
    let room = Room::new("else");
    let real = room.0.join("real");
    Dir::make(&real).unwrap();
    symlink("real", room.dir()).unwrap();
    assert!(room.refused().contains("is a symbolic link"), "{}", room.refused());
    fs::remove_file(room.dir()).unwrap();
    fs::write(room.dir(), "").unwrap();
    assert!(room.refused().contains("is no directory"), "{}", room.refused());
    fs::remove_file(room.dir()).unwrap();
    fifo(&room.dir());
    assert!(room.refused().contains("is no directory"), "{}", room.refused());
}

/// Whoever can write the directory above could put another one in its place, unless it is sticky.
#[test]
fn nor_one_that_others_can_exchange() {
    let room = Room::new("above");
    Dir::make(&room.dir()).unwrap();
    for bits in [0o777, 0o770, 0o707] {
        mode(&room.0, bits);
        assert!(room.refused().contains(", in which "), "{}", room.refused());
    }
    mode(&room.0, 0o1777);
    Dir::open(&room.dir()).unwrap();
    mode(&room.0, 0o700);
    // A link on the way is as good as where it leads.
    let link = std::env::temp_dir().join(format!("tproxy-files-way-{}", std::process::id()));
    symlink(&room.0, &link).unwrap();
    let by_link = Dir::open(&link.join("dir")).map(drop);
    mode(&room.0, 0o777);
    let refused = Dir::open(&link.join("dir")).map(drop);
    fs::remove_file(&link).unwrap();
    by_link.unwrap();
    refused.unwrap_err();
    mode(&room.0, 0o700);
    if give_away(&room.0) {
        assert!(room.refused().contains("is another user's"), "{}", room.refused());
        chown(&room.0, Some(0), None).unwrap();
    }
}

type Put<'a> = &'a dyn Fn(&Path);

/// Whatever somebody left in it when it could be written by others.
#[test]
fn only_files_of_ours_are_read_and_only_they_are_written() {
    let room = Room::new("leftovers");
    let dir = Dir::make(&room.dir()).unwrap();
    let victim = room.0.join("victim");
    fs::write(&victim, "precious").unwrap();
    let put: [(&str, Put); 4] = [
        ("a symbolic link", &|path| symlink(&victim, path).unwrap()),
        ("a FIFO", &fifo),
        ("a directory", &|path| fs::create_dir(path).unwrap()),
        ("a socket", &|path| drop(std::os::unix::net::UnixListener::bind(path).unwrap())),
    ];
    for (what, put) in put {
        for name in ["record", "new", "log"] {
            put(&room.dir().join(name));
        }
        let error = dir.entry("record").read(100).unwrap_err();
        assert_eq!(error.to_string(), format!("it is {what}, not a regular file"));
        dir.entry("record").replace(&dir.entry("new"), b"ours").unwrap();
        assert_eq!(dir.entry("record").read(100).unwrap().unwrap(), b"ours");
        dir.entry("log").keep(true).unwrap().write_all(b"a line").unwrap();
        dir.entry("log").keep(true).unwrap().write_all(b", another").unwrap();
        assert_eq!(dir.entry("log").read(100).unwrap().unwrap(), b"a line, another");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        for name in ["record", "log"] {
            dir.entry(name).remove().unwrap();
        }
        assert_eq!(dir.names().unwrap(), [""; 0]);
        dir.entry("record").remove().unwrap();
    }
}

#[test]
fn a_file_of_another_user_is_none_of_ours() {
    let room = Room::new("foreign");
    let dir = Dir::make(&room.dir()).unwrap();
    let record = room.dir().join("record");
    fs::write(&record, "theirs").unwrap();
    mode(&record, 0o622);
    assert!(matches!(dir.entry("record").read(100), Err(Unread::Foreign { mode: 0o622, .. })));
    mode(&record, 0o644);
    assert_eq!(dir.entry("record").read(100).unwrap().unwrap(), b"theirs");
    assert!(matches!(dir.entry("record").read(2), Err(Unread::TooLarge(2))));
    if give_away(&record) {
        let error = dir.entry("record").read(100).unwrap_err();
        assert!(error.to_string().starts_with("it belongs to UID 5700 (mode 0644)"), "{error}");
        dir.entry("record").keep(true).unwrap().write_all(b"ours").unwrap();
        assert_eq!(dir.entry("record").read(100).unwrap().unwrap(), b"ours");
    }
}

#[test]
fn it_stays_the_same_directory_wherever_its_path_leads() {
    let room = Room::new("moved");
    let dir = Dir::make(&room.dir()).unwrap();
    fs::rename(room.dir(), room.0.join("aside")).unwrap();
    fs::create_dir(room.dir()).unwrap();
    dir.entry("record").replace(&dir.entry("new"), b"ours").unwrap();
    assert!(room.0.join("aside/record").exists() && !room.dir().join("record").exists());
}

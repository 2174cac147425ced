//! The sidecar's user: by name, by UID, or the one that Kuma's packages and images make.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use crate::config::values::UserSpec;
use crate::exit::{Exit, Failure};
use crate::sys::files::{self, Unread};
use crate::sys::run::{Command, RunError, run};

use super::unread;

const PASSWD: &str = "/etc/passwd";

/// Names the user databases that `getent` asks.
const SERVICES: &str = "/etc/nsswitch.conf";

/// The longest that is read of it, in bytes.
const LARGEST: u64 = 64 << 20;

/// Where the services that `getent` asks (nscd, systemd-userdbd) have their sockets.
const RUN: &str = "/run";

/// How long the other user databases of the host may take.
const DIRECTORY_DEADLINE: Duration = Duration::from_secs(10);

/// The UID that Kuma's packages and images give to the sidecar's user.
const DEFAULT_UID: u32 = 5678;
const DEFAULT_NAME: &str = "kuma-dp";

/// The sidecar's user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// What the rules compare with.
    pub uid: u32,
    /// Its name, where it has one.
    pub name: Option<String>,
    /// What should be looked at: one sentence.
    pub note: Option<String>,
}

/// Finds the sidecar's user; without one asked for, UID 5678, then the name `kuma-dp`. With `cni_mode` the user
/// lives in a container with a user database of its own, so a UID is taken as it is and the default is 5678.
///
/// # Errors
/// There is no user of that name, or neither of the two defaults.
pub fn sidecar_user(spec: Option<&UserSpec>, cni_mode: bool) -> Result<User, Failure> {
    find(spec, cni_mode, &System)
}

/// Whether a program has to be run to find that user, because `/etc/passwd` does not have it.
pub fn sidecar_user_takes_a_program(spec: Option<&UserSpec>, cni_mode: bool) -> bool {
    let text = passwd().unwrap_or_default();
    let has = |wanted: &str| entries(&text).any(|(name, _)| name == wanted);
    match spec {
        Some(spec) => spec.as_uid().is_none() && !has(spec.as_str()),
        None => !cni_mode && !has(DEFAULT_NAME) && !entries(&text).any(|(_, uid)| uid == DEFAULT_UID),
    }
}

/// The user database.
trait Users {
    fn by_uid(&self, uid: u32) -> Result<Option<String>, Failure>;
    fn by_name(&self, name: &str) -> Result<Option<u32>, Failure>;
}

struct System;

/// `/etc/passwd` first, and `getent` for a name that is not in it. A lookup through libc would load every
/// configured name service into this process, and those that ask the network can hold it up for a minute.
impl Users for System {
    fn by_uid(&self, uid: u32) -> Result<Option<String>, Failure> {
        let text = passwd().map_err(|error| unread(PASSWD, &error))?;
        Ok(entries(&text).find(|(_, of)| *of == uid).map(|(name, _)| name.to_owned()))
    }

    fn by_name(&self, name: &str) -> Result<Option<u32>, Failure> {
        let text = match passwd() {
            Err(error) if error.is_missing() => String::new(),
            // Those who look names up for others would wait for it too.
            text => text.map_err(|error| unread(PASSWD, &error))?,
        };
        if let Some((_, uid)) = entries(&text).find(|(of, _)| *of == name) {
            return Ok(Some(uid));
        }
        if let Err(error) = files::is_regular(SERVICES.as_ref())
            && error.is_misnamed()
        {
            return Err(unread(SERVICES, &error));
        }
        if others_write(RUN) {
            let why = format!(
                "it is not in {PASSWD}, and no service is asked for it: {RUN} is writable by others, who could answer in \
                 its place"
            );
            return Err(Failure::new(Exit::Host, why));
        }
        match run(&Command::new("getent", ["passwd", name], DIRECTORY_DEADLINE)) {
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                Ok(entries(&text).next().filter(|_| output.success()).map(|(_, uid)| uid))
            }
            // A host without it has no other databases either.
            Err(RunError::NotFound { .. }) => Ok(None),
            Err(error) => Err(Failure::new(Exit::Host, error.to_string())),
        }
    }
}

fn others_write(directory: &str) -> bool {
    fs::metadata(directory).is_ok_and(|found| found.mode() & 0o022 != 0)
}

fn passwd() -> Result<String, Unread> {
    Ok(String::from_utf8_lossy(&files::read(PASSWD.as_ref(), LARGEST)?).into_owned())
}

/// Names and UIDs of a text in the form of `/etc/passwd` (passwd(5)); lines of another form are passed over.
fn entries(text: &str) -> impl Iterator<Item = (&str, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        (!name.is_empty()).then_some((name, uid))
    })
}

fn find(spec: Option<&UserSpec>, cni_mode: bool, users: &impl Users) -> Result<User, Failure> {
    match spec {
        Some(spec) => match spec.as_uid() {
            Some(uid) if cni_mode => Ok(User { uid, name: None, note: None }),
            Some(uid) => Ok(numbered(uid, users)),
            None => named(spec.as_str(), users),
        },
        None if cni_mode => Ok(User { uid: DEFAULT_UID, name: None, note: None }),
        None => default(users),
    }
}

fn numbered(uid: u32, users: &impl Users) -> User {
    // A database that cannot be read says as little about a number as one without it.
    let (name, why) = match users.by_uid(uid) {
        Ok(name) => (name, format!("no user in {PASSWD} has the UID {uid}")),
        Err(failure) => (None, failure.message),
    };
    let note = name.is_none().then(|| format!("{why}; {uid} is taken as the sidecar's UID all the same"));
    User { uid, name, note }
}

fn named(name: &str, users: &impl Users) -> Result<User, Failure> {
    let reason = match users.by_name(name) {
        Ok(Some(uid)) => return Ok(User { uid, name: Some(name.to_owned()), note: None }),
        Ok(None) => String::new(),
        Err(failure) if failure.exit != Exit::Host => return Err(failure),
        Err(failure) => format!(": {failure}"),
    };
    let message = format!(
        "the specified UID or username ('{name}') does not refer to a valid user on the host{reason}"
    );
    Err(Failure::new(Exit::Host, message).hint(format!(
        "create the user (useradd --system --no-create-home --shell /usr/sbin/nologin {name}) or pass the sidecar's \
         UID with --kuma-dp-user"
    )))
}

fn default(users: &impl Users) -> Result<User, Failure> {
    match users.by_uid(DEFAULT_UID) {
        Ok(Some(name)) => return Ok(User { uid: DEFAULT_UID, name: Some(name), note: None }),
        Err(failure) if failure.exit != Exit::Host => return Err(failure),
        _ => {}
    }
    match users.by_name(DEFAULT_NAME) {
        Ok(Some(uid)) => return Ok(User { uid, name: Some(DEFAULT_NAME.to_owned()), note: None }),
        Err(failure) if failure.exit != Exit::Host => return Err(failure),
        _ => {}
    }
    let message = format!(
        "no UID or username provided, and user with the default UID ('{DEFAULT_UID}') or username \
         ('{DEFAULT_NAME}') could not be found"
    );
    Err(Failure::new(Exit::Host, message).hint(format!(
        "create the user (useradd --uid {DEFAULT_UID} --user-group --no-create-home --shell /usr/sbin/nologin \
         {DEFAULT_NAME}) or say with --kuma-dp-user which user the sidecar runs as"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwd_lines_are_read_and_others_passed_over() {
        let text = "root:x:0:0:root:/root:/bin/bash\n# a comment\n+::::::\nkuma-dp:x:5678:5678::/:/sbin/nologin\nbad:x:-1:0\n";
        assert_eq!(entries(text).collect::<Vec<_>>(), [("root", 0), ("kuma-dp", 5678)]);
    }

    struct Fake(&'static [(u32, &'static str)]);

    impl Users for Fake {
        fn by_uid(&self, uid: u32) -> Result<Option<String>, Failure> {
            Ok(self.0.iter().find(|user| user.0 == uid).map(|user| user.1.to_owned()))
        }

        fn by_name(&self, name: &str) -> Result<Option<u32>, Failure> {
            Ok(self.0.iter().find(|user| user.1 == name).map(|user| user.0))
        }
    }

    /// With this exit code.
    struct Broken(Exit);

    impl Users for Broken {
        fn by_uid(&self, _: u32) -> Result<Option<String>, Failure> {
            Err(Failure::new(self.0, "I/O error"))
        }

        fn by_name(&self, _: &str) -> Result<Option<u32>, Failure> {
            Err(Failure::new(self.0, "I/O error"))
        }
    }

    fn found(spec: &str, cni_mode: bool, users: &impl Users) -> Result<(u32, Option<String>, bool), Failure> {
        let spec = (!spec.is_empty()).then(|| spec.parse::<UserSpec>().unwrap());
        find(spec.as_ref(), cni_mode, users).map(|user| (user.uid, user.name, user.note.is_some()))
    }

    #[test]
    fn by_uid_and_by_name() {
        let users = Fake(&[(0, "root"), (5678, "envoy"), (77, "kuma-dp")]);
        let named = |uid, name: &str| Ok((uid, Some(name.to_owned()), false));
        assert_eq!(found("0", false, &users), named(0, "root"));
        assert_eq!(found("root", false, &users), named(0, "root"));
        assert_eq!(found("kuma-dp", false, &users), named(77, "kuma-dp"));
        assert_eq!(found("", false, &users), named(5678, "envoy"), "the UID goes before the name");
        assert_eq!(found("", false, &Fake(&[(77, "kuma-dp")])), named(77, "kuma-dp"));
    }

    #[test]
    fn a_uid_needs_no_entry_but_gets_a_note() {
        assert_eq!(found("4294967294", false, &Fake(&[])), Ok((4_294_967_294, None, true)));
        assert_eq!(found("12", false, &Broken(Exit::Usage)), Ok((12, None, true)));
    }

    #[test]
    fn cni_mode_takes_numbers_as_they_are() {
        let users = Fake(&[(0, "root"), (77, "kuma-dp")]);
        assert_eq!(found("", true, &users), Ok((5678, None, false)));
        assert_eq!(found("1234", true, &users), Ok((1234, None, false)));
        assert_eq!(found("root", true, &users), Ok((0, Some("root".into()), false)));
    }

    #[test]
    fn nobody_is_an_error_with_the_next_step() {
        let failure = found("ghost", false, &Fake(&[])).unwrap_err();
        assert_eq!(failure.exit, Exit::Host);
        assert_eq!(
            failure.message,
            "the specified UID or username ('ghost') does not refer to a valid user on the host"
        );
        assert!(failure.hint.unwrap().contains("useradd --system"));
        let failure = found("ghost", false, &Broken(Exit::Host)).unwrap_err();
        assert!(failure.message.ends_with("user on the host: I/O error"), "{failure}");
        for (spec, exit) in
            [("ghost", Exit::Usage), ("", Exit::Usage), ("ghost", Exit::Failed), ("", Exit::Failed)]
        {
            assert_eq!(found(spec, false, &Broken(exit)), Err(Failure::new(exit, "I/O error")));
        }
        let failure = found("", false, &Fake(&[(0, "root")])).unwrap_err();
        assert_eq!(
            failure.message,
            "no UID or username provided, and user with the default UID ('5678') or username ('kuma-dp') could \
             not be found"
        );
        assert!(failure.hint.unwrap().contains("useradd --uid 5678"));
    }

    #[test]
    fn the_real_database_knows_root() {
        let root = "root".parse().unwrap();
        assert_eq!(sidecar_user(Some(&root), false).unwrap().uid, 0);
        let zero = "0".parse().unwrap();
        assert_eq!(sidecar_user(Some(&zero), false).unwrap().name.as_deref(), Some("root"));
        let nobody = "no-such-user-at-all".parse().unwrap();
        assert!(sidecar_user(Some(&nobody), false).is_err());
    }
}

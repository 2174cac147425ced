//! A place in which nothing that somebody leaves can hide: PIDs, temporary directories and mounts of its own.

use std::collections::BTreeSet;

use crate::support::lab::skip;
use crate::support::{Lab, Run, command};

/// An ordinary user's UID in a room.
pub const USER: u32 = 1000;

/// Who runs the demonstration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Root,
    /// An ordinary user to whom `/etc/subuid` grants some more.
    WithUsers,
    /// An ordinary user to whom it grants none.
    Alone,
}

/// Prints what a machine could keep: processes, files in temporary places, mounts, interfaces.
const LOOK: &str = r#"
look() {
	local process
	for process in /proc/[0-9]*; do
		[ "$process" = /proc/$$ ] || [ "$process" = /proc/$BASHPID ] || echo "process $(tr '\0' ' ' <"$process/cmdline")"
	done
	find /tmp /var/tmp /dev/shm /run ! -path '/run/lab*' ! -path /run | sed 's/^/file /'
	sed 's/^[0-9]* [0-9]* /mount /' /proc/self/mountinfo
	ip -o link | sed 's/^/link /'
}
"#;

/// Runs the demonstration and does something to it when it prints a line that holds a certain text.
const SCRIPT: &str = r#"
for place in /tmp /var/tmp /dev/shm; do
	mount -t tmpfs tmpfs "$place"
done
mkfifo "$DIR/pipe"
look >"$DIR/before" 2>&1
# What bash starts on the side would not hear SIGINT, but for jobs.
set -m
"$@" >"$DIR/pipe" 2>"$DIR/stderr" &
pid=$!
set +m
exec 3<"$DIR/pipe"
while IFS= read -r line <&3; do
	printf '%s\n' "$line"
	if [ -n "$WHEN" ] && [[ $line == *"$WHEN"* ]]; then
		WHEN=
		eval "$DO" >&2
	fi
done
wait $pid
code=$?
exec 3<&-
look >"$DIR/after" 2>&1
cat "$DIR/stderr" >&2
[ -z "$WHEN" ] || echo "never printed: $WHEN" >&2
exit $code
"#;

/// The demonstration in a room.
pub struct Demo {
    who: Who,
    when: String,
    what: String,
    env: Vec<(&'static str, &'static str)>,
    before: Vec<&'static str>,
}

impl Demo {
    pub fn by(who: Who) -> Self {
        Self { who, when: String::new(), what: String::new(), env: Vec::new(), before: Vec::new() }
    }

    /// Does something, as root and in bash, as soon as a line with this text is printed; `$pid` is the process.
    pub fn when(mut self, line: &str, what: &str) -> Self {
        (self.when, self.what) = (line.to_owned(), what.to_owned());
        self
    }

    pub fn env(mut self, name: &'static str, value: &'static str) -> Self {
        self.env.push((name, value));
        self
    }

    /// Lets a program start it.
    pub fn through(mut self, words: &[&'static str]) -> Self {
        self.before.extend(words);
        self
    }

    /// Runs it to its end, and fails if anything of it is left. `None`: that is not possible here.
    #[track_caller]
    pub fn run(self, lab: &Lab) -> Option<Run> {
        if self.who != Who::Root && !ordinary_users_may(lab, self.who) {
            return None;
        }
        command::must("chmod", &["755", &lab.program_path().to_string_lossy()]);
        let user = USER.to_string();
        let mut words: Vec<&str> = self.before.clone();
        if self.who != Who::Root {
            words.extend(["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups", "--"]);
        }
        let program = lab.program_path().to_string_lossy().into_owned();
        words.extend([program.as_str(), "demo"]);
        let room = ["--pid", "--fork", "--mount", "--mount-proc", "--kill-child", "--"];
        let dir = lab.dir().to_string_lossy().into_owned();
        let mut command = command::Program::new("unshare")
            .args(room)
            .args(["bash", "-c", &format!("{LOOK}{SCRIPT}"), "room"])
            .args(&words)
            .env("DIR", &dir)
            .env("WHEN", &self.when)
            .env("DO", &self.what)
            .env("LANG", "C.UTF-8");
        for (name, value) in self.env {
            command = command.env(name, value);
        }
        let run = command.run();
        let lines = |name: &str| {
            let text = std::fs::read_to_string(lab.dir().join(name)).expect("what was there");
            text.lines().map(str::to_owned).collect::<BTreeSet<_>>()
        };
        let (before, after) = (lines("before"), lines("after"));
        assert!(before.iter().any(|line| line.starts_with("mount ")), "{before:#?}");
        let left: Vec<_> = after.symmetric_difference(&before).collect();
        assert!(left.is_empty(), "not as before: {left:#?}\n{run}");
        assert!(!run.stderr.contains("never printed"), "{run}");
        for name in ["pipe", "before", "after", "stderr"] {
            std::fs::remove_file(lab.dir().join(name)).expect("a file of the room");
        }
        Some(run)
    }
}

fn ordinary_users_may(lab: &Lab, who: Who) -> bool {
    if command::find("newuidmap").is_none() || !std::path::Path::new("/etc/subuid").exists() {
        skip("no newuidmap, which gives ordinary users more than one user");
        return false;
    }
    let grants = if who == Who::WithUsers { format!("{USER}:300000:16\n") } else { String::new() };
    lab.replace("/etc/subuid", &grants);
    // In a user namespace newuidmap has no more rights than whoever runs it.
    let initial = std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.contains("4294967295"));
    if !initial {
        skip("newuidmap needs root of the machine");
    }
    initial
}

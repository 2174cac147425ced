//! Values that nobody can have meant, and what is said about each: the value, where it came from, what is allowed.

mod files;
mod flags;
mod variables;

/// Where a bad value is put.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    /// Behind `install` on the command line.
    Flags(&'static [&'static str]),
    /// Into the file `bad.yaml` in the current directory, which `--config` names.
    File(&'static str),
    /// Into a variable.
    Variable(&'static str, &'static str),
}

/// What is said about it.
#[derive(Debug, Clone, Copy)]
pub enum Says {
    /// `invalid value VALUE for ORIGIN: ALLOWED`.
    Value {
        /// As quoted in the sentence.
        value: &'static str,
        /// The flag, the variable, or the key with its place.
        origin: &'static str,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A sentence of its own.
    Sentence(&'static str),
}

/// A bad value and the one sentence about it.
#[derive(Debug, Clone, Copy)]
pub struct Bad {
    /// Where it is.
    pub place: Place,
    /// What is said about it.
    pub says: Says,
}

impl Bad {
    /// The arguments behind the program's name.
    pub fn args(&self) -> Vec<&'static str> {
        match self.place {
            Place::Flags(flags) => [&["install"], flags].concat(),
            Place::File(_) => vec!["install", "--config", "bad.yaml"],
            Place::Variable(_, _) => vec!["install"],
        }
    }

    /// The first line of standard error that begins with `error: `, without that.
    pub fn sentence(&self) -> String {
        match self.says {
            Says::Value { value, origin, allowed } => {
                format!("invalid value {value} for {origin}: {allowed}")
            }
            Says::Sentence(sentence) => sentence.into(),
        }
    }
}

const PORT: &str = "a port is a whole number from 1 to 65535";
const NO_RANGE: &str = "a port is one whole number from 1 to 65535; ranges cannot be used here";
const EXCLUSION: &str =
    "expected [[protocols:]ports:]uids with no part empty; '*' means all ports or both protocols";
const UIDS: &str = "a UID is a whole number from 0 to 4294967294, a UID range two of them with a '-' between";
const UID: &str = "a UID is a whole number from 0 to 4294967294";
const NETWORK: &str = "expected an IPv4 or IPv6 address, or a network such as 10.0.0.0/8 or fd00::/8";
const BRIDGE: &str = "expected interface:network, such as docker0:172.17.0.0/16";
const INTERFACE: &str = "an interface is a name of 1 to 15 characters, or the beginning of one and a '+'";
const USER: &str = "expected a user name or a UID";
const FAMILIES: &str = "expected 'dualstack' or 'ipv4'";
const SWITCH: &str = "expected true or false";
const SECONDS: &str = "a number of seconds is a whole number from 0 to 4294967295";
const DURATION: &str = "a duration is a number with a unit, such as 2s, 500ms or 1m30s";
const LEVEL: &str = "a kernel log level is a whole number from 0 (emergency) to 7 (debug)";
const EBPF: &str = "redirection by eBPF comes with a later version; leave it out and iptables rules are used";
const NO_UIDS: &str = "traffic that arrives has no local user, so inbound ports cannot be left alone by UID; \
    use redirect.inbound.excludePorts or redirect.inbound.excludePortsForIPs";

const fn bad(place: Place, value: &'static str, origin: &'static str, allowed: &'static str) -> Bad {
    Bad { place, says: Says::Value { value, origin, allowed } }
}

const fn flag(flags: &'static [&'static str], value: &'static str, allowed: &'static str) -> Bad {
    bad(Place::Flags(flags), value, flags[0], allowed)
}

const fn flags(flags: &'static [&'static str], sentence: &'static str) -> Bad {
    Bad { place: Place::Flags(flags), says: Says::Sentence(sentence) }
}

const fn key(text: &'static str, value: &'static str, origin: &'static str, allowed: &'static str) -> Bad {
    bad(Place::File(text), value, origin, allowed)
}

const fn file(text: &'static str, sentence: &'static str) -> Bad {
    Bad { place: Place::File(text), says: Says::Sentence(sentence) }
}

/// Every bad value. Each is refused with exit code 2 before anything is looked at or changed.
pub const BAD: [&[Bad]; 3] = [flags::FLAGS, variables::VARIABLES, files::FILES];

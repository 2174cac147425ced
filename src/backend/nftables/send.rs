//! Hands a change to the kernel, and finds out what it refused.

use std::io;

use crate::attribute::Attributes;
use crate::passing::{Passing, is_passing_answer};
use crate::sys::netlink::nftables::{Door, Refusal};
use crate::sys::rights::{self, Right};

use super::decode::decode;
use super::encode;
use super::model::{Chain, Rule, Statement, TABLE, Table};
use super::observe::unsupported;
use super::refusal::{Part, Refused, apart};
use super::wire::{self, Message, message};

/// A table that never is.
const TRIAL: &str = "kuma_mesh_trial";

/// Why a change was not made. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Look again, and try again.
    #[error("another program changed nf_tables at the same moment")]
    Changed,
    /// `CAP_NET_ADMIN` is lacking.
    #[error("changing nf_tables needs the capability CAP_NET_ADMIN in this network namespace")]
    Denied,
    /// A process said that it alone may change the table.
    #[error("the table inet {TABLE} belongs to another process, which alone may change it until it ends")]
    Owned,
    /// More than fits into what this process may send at once.
    #[error(
        "{bytes} bytes of rules and lists are more than the kernel takes from this process at once; root outside of \
         a user namespace may send more, and so may everybody with a higher net.core.wmem_max"
    )]
    TooBig {
        /// How many it would have been.
        bytes: usize,
    },
    /// The kernel had no memory for it.
    #[error("the kernel has no memory for {bytes} bytes of rules and lists at once")]
    NoMemory {
        /// How many it would have been.
        bytes: usize,
    },
    /// No `nf_tables`, or none for both families.
    #[error("this kernel has no nf_tables")]
    Unsupported,
    /// The kernel refused something of it.
    #[error("{0}")]
    Refused(Box<Refused>),
    /// There was no answer, so whether it was made is not known.
    #[error("the kernel did not answer as expected: {0}")]
    Io(#[source] io::Error),
    /// The kernel does not say what is there now.
    #[error("the kernel does not tell what is in the table inet {TABLE}: {0}")]
    Unread(#[source] io::Error),
}

impl Passing for SendError {
    fn is_passing(&self) -> bool {
        match self {
            Self::NoMemory { .. } => true,
            Self::Refused(refused) => is_passing_answer(refused.errno),
            Self::Io(error) | Self::Unread(error) => error.is_passing(),
            Self::Changed | Self::Denied | Self::Owned | Self::TooBig { .. } | Self::Unsupported => false,
        }
    }
}

impl SendError {
    /// Whether the change may have been made all the same.
    pub fn may_have_changed(&self) -> bool {
        matches!(self, Self::Io(_))
    }

    /// What the one who runs this can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Changed => "find out who keeps changing the firewall, and run the command again",
            Self::Denied => return Some(rights::remedy(&[Right::NetAdmin])),
            Self::Owned => "end that process, or let it remove its table; nothing was changed",
            Self::TooBig { .. } => {
                "raise the setting net.core.wmem_max, or exclude fewer addresses and ports"
            }
            Self::NoMemory { .. } => "free some memory, and run the command again",
            Self::Unsupported => "install with --backend iptables, whose legacy variant needs no nf_tables",
            Self::Refused(refused) => return Some(refused.hint()),
            Self::Io(_) | Self::Unread(_) => return None,
        };
        Some(hint.to_owned())
    }
}

/// Makes a change, if this is still the generation.
///
/// # Errors
/// Why it was not made.
pub fn send(door: &mut Door, messages: &[Message], generation: u32) -> Result<(), SendError> {
    let Err(refusal) = door.commit(messages, generation) else { return Ok(()) };
    Err(match refusal {
        Refusal::Changed => SendError::Changed,
        Refusal::Denied => SendError::Denied,
        Refusal::TooBig => SendError::TooBig { bytes: size(messages) },
        Refusal::NoMemory => SendError::NoMemory { bytes: size(messages) },
        // Not the right to change anything is missing, but that to change this table.
        Refusal::Refused { message: Some(_), errno: libc::EPERM, .. } => SendError::Owned,
        // What nfnetlink says to a batch for a part of it that is not there.
        Refusal::Refused { message: None, errno: libc::EOPNOTSUPP | libc::EINVAL, .. } => {
            SendError::Unsupported
        }
        Refusal::Refused { message, errno, words, offset } => {
            let message = message.and_then(|place| messages.get(place));
            let mut refused = Refused::new(message, offset, errno, words);
            if refused.statement.is_none() && !is_passing_answer(errno) {
                refused.statement = search(door, &refused, messages);
            }
            SendError::Refused(Box::new(refused))
        }
        Refusal::Io(error) => match unsupported(error) {
            error if error.kind() == io::ErrorKind::Unsupported => SendError::Unsupported,
            error => SendError::Io(error),
        },
    })
}

fn size(messages: &[Message]) -> usize {
    messages.iter().map(|message| message.body.len()).sum()
}

/// Which statement of a refused rule it was, found out by trying each alone. A kernel that does not say at which
/// place of a rule it stumbled says so of each of several rules.
fn search(door: &mut Door, refused: &Refused, messages: &[Message]) -> Option<Statement> {
    let Part::Rule(chain, rule) = &refused.part else { return None };
    let statements = apart(rule);
    let rules = statements.iter().map(|one| Rule { statements: vec![one.clone()], comment: None }).collect();
    // The chain as it was to be, because it matters which hook calls it.
    let hook = decode(messages).table.chains.into_iter().find(|is| is.name == *chain).and_then(|is| is.hook);
    let trial =
        trial(&Table { chains: vec![Chain { name: chain.clone(), hook, rules }], ..Table::default() });
    let first_rule = trial.iter().position(|message| message.kind == message::NEW_RULE)?;
    // Whatever the generation is: nothing of this ever happens.
    let generation = door.generation().ok()?;
    match door.commit(&trial, generation) {
        // Another reason is not that of the refusal.
        Err(Refusal::Refused { message: Some(place), errno, .. }) if errno == refused.errno => {
            statements.into_iter().nth(place.checked_sub(first_rule)?)
        }
        _ => None,
    }
}

/// A batch that the kernel always refuses, but for this table at its end: the table is deleted twice.
fn trial(table: &Table) -> Vec<Message> {
    let messages = encode::create(table).into_iter().chain(encode::remove()).chain(encode::remove());
    messages.map(elsewhere).collect()
}

/// The same of another table, one that nobody has. The table's name is the first attribute of every message.
fn elsewhere(mut message: Message) -> Message {
    let ours = Attributes::new().text(wire::table::NAME, TABLE).len();
    let mut body: Vec<u8> = Attributes::new().text(wire::table::NAME, TRIAL).into();
    body.extend(message.body.drain(..).skip(ours));
    Message { body, ..message }
}

#[cfg(test)]
mod tests {
    use super::super::model::{ChainKind, Hook, HookPoint, Verdict};
    use super::super::observe::observe;
    use super::*;
    use crate::sys::netns::testing::apart;

    fn in_namespace(test: impl FnOnce(&mut Door) + Send) {
        apart(|| test(&mut Door::open().unwrap()));
    }

    fn table(statements: Vec<Statement>, kind: ChainKind) -> Table {
        let hook = Some(Hook { kind, point: HookPoint::Output, priority: -95, drops: false });
        let rules = vec![
            Rule { statements: vec![Statement::Counter], comment: None },
            Rule { statements, comment: Some("why".into()) },
        ];
        Table { chains: vec![Chain { name: "out".into(), hook, rules }], ..Table::default() }
    }

    fn refused(door: &mut Door, table: &Table) -> Refused {
        let generation = door.generation().unwrap();
        match send(door, &encode::create(table), generation) {
            Err(SendError::Refused(refused)) => *refused,
            other => panic!("{other:?}"),
        }
    }

    fn unknown() -> Vec<Statement> {
        vec![
            Statement::Counter,
            Statement::CtZone(1),
            Statement::Foreign("nothing".into()),
            Statement::Verdict(Verdict::Accept),
        ]
    }

    #[test]
    fn the_expression_that_the_kernel_lacks_is_named() {
        in_namespace(|door| {
            let refused = refused(door, &table(unknown(), ChainKind::Nat));
            assert_eq!(refused.statement, Some(Statement::Foreign("nothing".into())), "{refused}");
            assert_eq!(refused.errno, libc::ENOENT);
            let Part::Rule(chain, rule) = &refused.part else { panic!("{refused:?}") };
            assert_eq!((chain.as_str(), rule.statements.len()), ("out", 4));
            assert_eq!(observe(door).unwrap().table, None);
        });
    }

    #[test]
    fn it_is_found_where_the_kernel_does_not_say_so() {
        in_namespace(|door| {
            let wanted = table(unknown(), ChainKind::Nat);
            let messages = encode::create(&wanted);
            let refused = Refused::new(messages.last(), None, libc::ENOENT, None);
            let before = observe(door).unwrap();
            assert_eq!(search(door, &refused, &messages), Some(Statement::Foreign("nothing".into())));
            assert_eq!(observe(door).unwrap(), before, "a trial leaves nothing, not even a generation");
            let known = encode::create(&table(vec![Statement::Counter], ChainKind::Nat));
            let innocent = Refused::new(known.last(), None, libc::ENOENT, None);
            assert_eq!(search(door, &innocent, &known), None);
        });
    }

    #[test]
    fn what_does_not_belong_into_a_chain_is_named_as_well() {
        in_namespace(|door| {
            let redirect = vec![Statement::Redirect("1".parse().unwrap())];
            let refused = refused(door, &table(redirect, ChainKind::Filter));
            assert_eq!(
                refused.to_string(),
                "the kernel refused \"redirect to :1\" in the rule \"redirect to :1\" of the chain out: Operation not \
                 supported"
            );
        });
    }
}

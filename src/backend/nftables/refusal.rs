//! What the kernel refused, in words. Pure.

use std::fmt;
use std::io;

use crate::attribute::{attributes, find, find_text};

use super::model::{Rule, Statement, Verdict};
use super::statement;
use super::wire::{self, Message, message};

/// A change that the kernel refused, and with it all of the transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What it was about.
    pub part: Part,
    /// What of a rule, if the kernel, or asking it again, told.
    pub statement: Option<Statement>,
    /// Why; an errno.
    pub errno: i32,
    /// Why, in the kernel's words beyond that.
    pub words: Option<String>,
}

/// What a message is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The table itself.
    Table,
    /// A set, by its name.
    Set(String),
    /// Elements of a set, by the set's name.
    Elements(String),
    /// A chain: its name and type, which is empty for one that no hook calls.
    Chain(String, String),
    /// A rule, and the name of its chain.
    Rule(String, Rule),
    /// All of it together.
    Everything,
}

impl Refused {
    /// Of this message, with the place in its body that the kernel complains of.
    pub fn new(of: Option<&Message>, offset: Option<usize>, errno: i32, words: Option<String>) -> Self {
        let part = of.map_or(Part::Everything, Part::of);
        let statement = of.zip(offset).and_then(|(message, offset)| statement_at(&message.body, offset));
        Self { part, statement, errno, words }
    }

    /// What the one who runs this can do about it.
    pub fn hint(&self) -> String {
        let lacks = |what: &str, module: &str, option: &str| {
            format!("this kernel lacks {what}: load {module}, or use a kernel with {option}")
        };
        let kind = io::Error::from_raw_os_error(self.errno).kind();
        let missing = matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::Unsupported);
        match (&self.statement, &self.part) {
            _ if kind == io::ErrorKind::OutOfMemory => {
                "the kernel had no memory left for it, or not for this container".to_owned()
            }
            (Some(Statement::Redirect(_)), _) if missing => {
                lacks("redirection", "the module nft_redir", "CONFIG_NFT_REDIR")
            }
            (Some(Statement::CtZone(_)), _) if missing => lacks(
                "zones of connection tracking",
                "the module nft_ct",
                "CONFIG_NFT_CT and CONFIG_NF_CONNTRACK_ZONES",
            ),
            (Some(Statement::Invalid | Statement::Untracked), _) if missing => {
                lacks("the state of connections", "the module nft_ct", "CONFIG_NFT_CT")
            }
            (Some(Statement::Log { .. }), _) if missing => lacks(
                "log lines",
                "the modules nft_log and nf_log_syslog, before Linux 5.13 nf_log_ipv4 and nf_log_ipv6",
                "CONFIG_NFT_LOG and CONFIG_NF_LOG_SYSLOG",
            ),
            (Some(Statement::ForOtherHosts), _) if missing => lacks(
                "questions to the routing table",
                "the modules nft_fib_inet, nft_fib_ipv4 and nft_fib_ipv6",
                "CONFIG_NFT_FIB_INET, CONFIG_NFT_FIB_IPV4 and CONFIG_NFT_FIB_IPV6",
            ),
            (Some(Statement::Counter), _) if missing => {
                lacks("counters", "the module nft_counter", "CONFIG_NFT_COUNTER")
            }
            (_, Part::Table) => {
                lacks("tables for both families", "the module nf_tables", "CONFIG_NF_TABLES_INET")
            }
            (_, Part::Chain(_, kind)) if missing && kind == "nat" => {
                "this kernel cannot translate addresses in a table for both families: load the module \
                 nft_chain_nat, or use Linux 5.2 or newer with CONFIG_NFT_NAT"
                    .to_owned()
            }
            (_, Part::Set(_)) if missing => {
                lacks("sets of intervals", "the module nf_tables_set or nft_set_rbtree", "CONFIG_NF_TABLES")
            }
            _ if missing => {
                "use Linux 5.2 or newer with nf_tables, or install with --backend iptables".to_owned()
            }
            _ => "install with --backend iptables, and report what the kernel says".to_owned(),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the kernel refused ")?;
        match &self.part {
            Part::Table => f.write_str("the table")?,
            Part::Set(name) => write!(f, "the set {name}")?,
            Part::Elements(set) => write!(f, "the elements of the set {set}")?,
            Part::Chain(name, _) => write!(f, "the chain {name}")?,
            Part::Rule(chain, rule) => {
                if let Some(statement) = &self.statement {
                    let alone = Rule { statements: vec![statement.clone()], comment: None };
                    write!(f, "\"{alone}\" in ")?;
                }
                let rule = Rule { comment: None, ..rule.clone() };
                write!(f, "the rule \"{rule}\" of the chain {chain}")?;
            }
            Part::Everything => f.write_str("the transaction as a whole")?,
        }
        write!(f, ": {}", reason(self.errno))?;
        match &self.words {
            Some(words) => write!(f, " ({})", crate::text::escape(words)),
            None => Ok(()),
        }
    }
}

impl Part {
    fn of(message: &Message) -> Self {
        let text = |kind| find_text(&message.body, kind).unwrap_or_default();
        match message.kind {
            message::NEW_SET => Self::Set(text(wire::set::NAME)),
            message::NEW_ELEMENTS | message::DELETE_ELEMENTS => Self::Elements(text(wire::element::SET)),
            message::NEW_CHAIN => Self::Chain(text(wire::chain::NAME), text(wire::chain::TYPE)),
            message::NEW_RULE => {
                let expressions = find(&message.body, wire::rule::EXPRESSIONS).unwrap_or_default();
                let (statements, _) = statement::read(expressions);
                Self::Rule(text(wire::rule::CHAIN), Rule { statements, comment: None })
            }
            _ => Self::Table,
        }
    }
}

/// The errno in words, without its number.
fn reason(errno: i32) -> String {
    let words = io::Error::from_raw_os_error(errno).to_string();
    words.split(" (os error").next().unwrap_or_default().to_owned()
}

/// The statement of a rule that has something at this place of its message's body.
fn statement_at(body: &[u8], offset: usize) -> Option<Statement> {
    let expressions = find(body, wire::rule::EXPRESSIONS)?;
    let end =
        |value: &[u8]| value.as_ptr().addr().checked_sub(body.as_ptr().addr()).map(|at| at + value.len());
    // The list as a whole may be meant; then it is no expression.
    let list = expressions.as_ptr().addr().checked_sub(body.as_ptr().addr())?;
    let offset = (offset >= list).then_some(offset)?;
    let place = attributes(expressions).position(|(_, value)| end(value).is_some_and(|end| offset < end))?;
    statement::with_lengths(expressions)
        .into_iter()
        .scan(0, |before, (statement, length)| {
            *before += length;
            Some((statement, *before))
        })
        .find(|(_, end)| place < *end)
        .map(|(statement, _)| statement)
}

/// Rules of one statement each, those that need nothing else to be there. What the kernel says to them tells what of
/// a rule it refused.
pub(super) fn apart(rule: &Rule) -> Vec<Statement> {
    use super::model::Test;
    let alone = |statement: &&Statement| {
        !matches!(
            statement,
            Statement::Verdict(Verdict::Jump(_))
                | Statement::Address(_, Test::In(_) | Test::NotIn(_))
                | Statement::Port(_, Test::In(_) | Test::NotIn(_))
                | Statement::Interface(_, Test::In(_) | Test::NotIn(_))
                | Statement::Owner(Test::In(_) | Test::NotIn(_))
        )
    };
    rule.statements.iter().filter(alone).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::super::encode;
    use super::super::model::{Chain, Table};
    use super::*;
    use crate::config::values::Protocol;

    fn rule_message() -> Message {
        let statements = vec![
            Statement::Protocol(Protocol::Tcp),
            Statement::Counter,
            Statement::Redirect("15001".parse().unwrap()),
        ];
        let rules = vec![Rule { statements, comment: Some("why".into()) }];
        let chains = vec![Chain { name: "out".into(), hook: None, rules }];
        encode::create(&Table { chains, ..Table::default() }).pop().unwrap()
    }

    #[test]
    fn every_place_in_a_rule_belongs_to_a_statement_or_to_none() {
        let message = rule_message();
        let mut seen: Vec<Option<Statement>> =
            (0..message.body.len()).map(|at| statement_at(&message.body, at)).collect();
        seen.dedup();
        let Part::Rule(_, rule) = Part::of(&message) else { panic!("{message:?}") };
        let wanted: Vec<_> =
            [None].into_iter().chain(rule.statements.into_iter().map(Some)).chain([None]).collect();
        assert_eq!(seen, wanted);
    }

    #[test]
    fn words_name_the_rule_and_the_way_out() {
        let message = rule_message();
        let place = (0..message.body.len())
            .find(|at| matches!(statement_at(&message.body, *at), Some(Statement::Redirect(_))));
        let refused = Refused::new(Some(&message), place, 2, None);
        assert_eq!(
            refused.to_string(),
            "the kernel refused \"redirect to :15001\" in the rule \"meta l4proto tcp counter redirect to :15001\" \
             of the chain out: No such file or directory"
        );
        assert!(refused.hint().contains("load the module nft_redir,"));
        let all = Refused::new(None, None, 40, Some("a\u{1b}b".into()));
        assert_eq!(
            all.to_string(),
            "the kernel refused the transaction as a whole: Too many levels of symbolic links (a\\u{1b}b)"
        );
    }
}

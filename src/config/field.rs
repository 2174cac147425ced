//! The kinds of settings: how the text of each is cut into items, read into the configuration, and shown again.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::Config;
use super::document::Node;
use super::values::{
    BackendChoice, Cidr, InvalidValue, IpFamilyMode, Port, UidExclusion, UserSpec, VirtualNetwork, invalid,
    whole_number,
};
use super::{Executables, duration, text};

/// Where a setting lives in the configuration, and with it the grammar of its value.
#[derive(Debug, Clone, Copy)]
pub enum Field {
    /// True or false.
    Switch(fn(&mut Config) -> &mut bool),
    /// A port.
    Port(fn(&mut Config) -> &mut Port),
    /// Ports, with commas; a flag given again replaces what came before.
    Ports(fn(&mut Config) -> &mut Vec<Port>),
    /// Addresses and networks, with commas; a flag given again adds.
    Networks(fn(&mut Config) -> &mut Vec<Cidr>),
    /// `[[protocols:]ports:]uids`; commas belong to the entry, a flag given again adds.
    Exclusions(fn(&mut Config) -> &mut Vec<UidExclusion>),
    /// `interface:network`; a flag given again adds.
    Bridges(fn(&mut Config) -> &mut Vec<VirtualNetwork>),
    /// A user, or nothing.
    User(fn(&mut Config) -> &mut Option<UserSpec>),
    /// `auto`, `iptables` or `nftables`.
    Backend(fn(&mut Config) -> &mut BackendChoice),
    /// `dualstack` or `ipv4`.
    Families(fn(&mut Config) -> &mut IpFamilyMode),
    /// The path of a file.
    File(fn(&mut Config) -> &mut PathBuf),
    /// A whole number of what the text says.
    Number(fn(&mut Config) -> &mut u32, &'static str),
    /// A kernel log level.
    Level(fn(&mut Config) -> &mut u8),
    /// A duration.
    Pause(fn(&mut Config) -> &mut Duration),
    /// `name:path` for each of the six programs; later layers add to earlier ones, program by program.
    Programs(fn(&mut Config) -> &mut Executables),
    /// Kuma has it, and it cannot be used, because of the reason. Only an empty list passes.
    Never(&'static str),
}

/// One item of a value, as given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its text.
    pub text: String,
    /// The longer text that it was cut from.
    pub within: Option<Arc<str>>,
    /// Where it stands below its setting, if that is a list or a section in a file.
    pub path: Vec<usize>,
}

impl Item {
    fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), within: None, path: Vec::new() }
    }

    fn cut(whole: &str, separator: char) -> Vec<Self> {
        let within = whole.contains(separator).then(|| Arc::from(whole));
        let item =
            |part: &str| Self { text: part.trim().to_owned(), within: within.clone(), path: Vec::new() };
        whole.split(separator).map(item).collect()
    }
}

/// A value as it is written into a file or a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// A word that needs no quotes: a number, a boolean, a keyword.
    Word(String),
    /// Free text.
    Text(String),
    /// Words.
    Words(Vec<String>),
    /// Free texts.
    Texts(Vec<String>),
    /// Named paths; unset ones are missing.
    Pairs(Vec<(&'static str, String)>),
}

impl Field {
    /// Whether the value is a list.
    pub fn is_list(self) -> bool {
        matches!(
            self,
            Self::Ports(_) | Self::Networks(_) | Self::Exclusions(_) | Self::Bridges(_) | Self::Never(_)
        )
    }

    /// Whether a flag given again drops the earlier value, although people may expect it to add.
    pub fn last_flag_wins(self) -> bool {
        matches!(self, Self::Ports(_))
    }

    /// The name that help and tables give the value.
    pub fn value_name(self) -> &'static str {
        match self {
            Self::Switch(_) => "true|false",
            Self::Port(_) => "PORT",
            Self::Ports(_) => "PORT,…",
            Self::Networks(_) => "NETWORK,…",
            Self::Exclusions(_) | Self::Never(_) => "[[PROTOCOLS:]PORTS:]UIDS",
            Self::Bridges(_) => "INTERFACE:NETWORK",
            Self::User(_) => "USER",
            Self::Backend(_) => "auto|iptables|nftables",
            Self::Families(_) => "dualstack|ipv4",
            Self::File(_) => "FILE",
            Self::Number(_, _) => "NUMBER",
            Self::Level(_) => "0…7",
            Self::Pause(_) => "DURATION",
            Self::Programs(_) => "NAME:PATH,…",
        }
    }

    /// Cuts what flags say, one text for each time the flag was given.
    pub fn cut_flags(self, texts: &[&str]) -> Vec<Item> {
        let last = texts.last().copied().unwrap_or_default();
        match self {
            Self::Ports(_) => cut_ports(last),
            Self::Networks(_) => texts.iter().flat_map(|text| Item::cut(text, ',')).collect(),
            Self::Exclusions(_) | Self::Bridges(_) | Self::Never(_) => {
                texts.iter().map(|text| Item::new(*text)).collect()
            }
            Self::Programs(_) => cut_list(last, ','),
            _ => vec![Item::new(last)],
        }
    }

    /// Cuts what a variable says. Entries for UIDs may hold commas themselves, so they can also be told apart by
    /// semicolons, as in Kuma's pod annotation.
    pub fn cut_variable(self, text: &str) -> Vec<Item> {
        match self {
            Self::Ports(_) => cut_ports(text),
            Self::Exclusions(_) | Self::Never(_) if text.contains(';') => cut_list(text, ';'),
            Self::Networks(_)
            | Self::Exclusions(_)
            | Self::Never(_)
            | Self::Bridges(_)
            | Self::Programs(_) => cut_list(text, ','),
            _ => vec![Item::new(text)],
        }
    }

    /// Cuts what a file says; an error names what was expected instead, and the path to what is wrong.
    pub fn cut_node(self, node: &Node) -> Result<Vec<Item>, (Vec<usize>, InvalidValue)> {
        let wrong = |path: Vec<usize>, node: &Node, wanted: &str| Err((path, mismatch(node, wanted)));
        match node {
            Node::Scalar(text) if matches!(self, Self::Ports(_)) => Ok(cut_ports(text)),
            Node::Scalar(text) if matches!(self, Self::Programs(_)) => Ok(cut_list(text, ',')),
            Node::Scalar(text) if matches!(self, Self::Networks(_)) => Ok(Item::cut(text, ',')),
            Node::Scalar(text) => Ok(vec![Item::new(text)]),
            Node::Null if matches!(self, Self::User(_) | Self::Families(_) | Self::Backend(_)) => {
                Ok(vec![Item::new("")])
            }
            Node::Null if self.is_list() => wrong(Vec::new(), node, "write [] for an empty list"),
            Node::List(nodes) if self.is_list() => {
                let mut items = Vec::new();
                for (index, node) in nodes.iter().enumerate() {
                    let Node::Scalar(text) = node else {
                        return wrong(vec![index], node, "every entry of the list is one value");
                    };
                    let cut = match self {
                        Self::Ports(_) if !text.is_empty() => cut_ports(text),
                        Self::Ports(_) | Self::Networks(_) => Item::cut(text, ','),
                        _ => vec![Item::new(text)],
                    };
                    items.extend(cut.into_iter().map(|item| Item { path: vec![index], ..item }));
                }
                Ok(items)
            }
            _ if self.is_list() => wrong(Vec::new(), node, "expected a list"),
            _ if matches!(self, Self::Programs(_)) => {
                wrong(Vec::new(), node, "expected a section with a path for each program")
            }
            Node::Null => wrong(Vec::new(), node, "leave the key out for its default"),
            _ => wrong(Vec::new(), node, "expected one value"),
        }
    }

    /// Reads items into the configuration. The answer lists what is wrong, by the item's index; the field then
    /// keeps its earlier value.
    pub fn set(self, config: &mut Config, items: &[Item], yaml: bool) -> Vec<(usize, InvalidValue)> {
        let one = items.first().map(|item| item.text.as_str()).unwrap_or_default();
        let result = match self {
            Self::Ports(place) => return set_list(place(config), items),
            Self::Networks(place) => return set_list(place(config), items),
            Self::Exclusions(place) => return set_list(place(config), items),
            Self::Bridges(place) => return set_list(place(config), items),
            Self::Programs(place) => return set_programs(place(config), items),
            Self::Never(reason) => {
                return (0..items.len()).map(|index| (index, InvalidValue(reason.into()))).collect();
            }
            Self::Switch(place) => read_switch(one, yaml).map(|value| *place(config) = value),
            Self::Port(place) => one.parse().map(|value| *place(config) = value),
            Self::User(place) if one.is_empty() => {
                *place(config) = None;
                Ok(())
            }
            Self::User(place) => one.parse().map(|value| *place(config) = Some(value)),
            Self::Backend(place) => one.parse().map(|value| *place(config) = value),
            Self::Families(place) => one.parse().map(|value| *place(config) = value),
            Self::File(place) => read_path(one).map(|value| *place(config) = value),
            Self::Number(place, what) => whole_number(one, what).map(|value| *place(config) = value),
            Self::Level(place) => read_level(one).map(|value| *place(config) = value),
            Self::Pause(place) => duration::parse(one).map(|value| *place(config) = value),
        };
        result.err().map(|why| (0, why)).into_iter().collect()
    }

    /// The value that a configuration has here. It takes the configuration mutably only because one accessor per
    /// setting is enough; nothing is changed.
    pub fn show(self, config: &mut Config) -> Shown {
        fn all<T: ToString>(list: &[T]) -> Vec<String> {
            list.iter().map(ToString::to_string).collect()
        }
        match self {
            Self::Switch(place) => Shown::Word(place(config).to_string()),
            Self::Port(place) => Shown::Word(place(config).to_string()),
            Self::Number(place, _) => Shown::Word(place(config).to_string()),
            Self::Level(place) => Shown::Word(place(config).to_string()),
            Self::Backend(place) => Shown::Word(place(config).to_string()),
            Self::Families(place) => Shown::Word(place(config).to_string()),
            Self::Pause(place) => Shown::Word(duration::show(*place(config))),
            Self::User(place) => {
                Shown::Text(place(config).as_ref().map(ToString::to_string).unwrap_or_default())
            }
            Self::File(place) => Shown::Text(place(config).display().to_string()),
            Self::Ports(place) => Shown::Words(all(place(config))),
            Self::Networks(place) => Shown::Texts(all(place(config))),
            Self::Exclusions(place) => Shown::Texts(all(place(config))),
            Self::Bridges(place) => Shown::Texts(all(place(config))),
            Self::Programs(place) => {
                let path = |path: PathBuf| path.display().to_string();
                let programs = place(config).each();
                Shown::Pairs(
                    programs
                        .map(|(name, slot)| (name, slot.clone().map(path)))
                        .into_iter()
                        .filter_map(|(name, path)| Some((name, path?)))
                        .collect(),
                )
            }
            Self::Never(_) => Shown::Texts(Vec::new()),
        }
    }
}

/// A comma or semicolon list; an empty text is an empty list, an empty entry of a longer text stays, to be refused.
fn cut_list(text: &str, separator: char) -> Vec<Item> {
    if text.trim().is_empty() { Vec::new() } else { Item::cut(text, separator) }
}

/// Ports with commas. Empty entries are passed over, as kumactl does, unless nothing else is there: `,` must not
/// come to mean "every port" where a list chooses ports.
fn cut_ports(text: &str) -> Vec<Item> {
    let items = cut_list(text, ',');
    let ports = items.iter().filter(|item| !item.text.is_empty()).cloned().collect::<Vec<_>>();
    if ports.is_empty() { items } else { ports }
}

fn mismatch(node: &Node, wanted: &str) -> InvalidValue {
    let found = match node {
        Node::Null => "there is no value",
        Node::Scalar(_) => "this is one value",
        Node::Float(_) => "this is a number with a fraction or an exponent",
        Node::List(_) => "this is a list",
        Node::Map(_) => "this is a section",
    };
    InvalidValue(format!("{found}; {wanted}"))
}

fn set_list<T>(list: &mut Vec<T>, items: &[Item]) -> Vec<(usize, InvalidValue)>
where
    T: FromStr<Err = InvalidValue>,
{
    let mut problems = Vec::new();
    let mut values = Vec::new();
    for (index, item) in items.iter().enumerate() {
        match item.text.parse() {
            Ok(value) => values.push(value),
            Err(why) => problems.push((index, why)),
        }
    }
    if problems.is_empty() {
        *list = values;
    }
    problems
}

fn set_programs(programs: &mut Executables, items: &[Item]) -> Vec<(usize, InvalidValue)> {
    let mut problems = Vec::new();
    let mut wanted = programs.clone();
    let mut seen = Vec::new();
    for (index, item) in items.iter().enumerate() {
        match read_program(&item.text) {
            Ok((name, _)) if seen.contains(&name) => {
                problems.push((index, InvalidValue(format!("{name} is given twice"))));
            }
            Ok((name, path)) => {
                seen.push(name);
                for (slot, place) in wanted.each() {
                    if slot == name {
                        *place = Some(path.clone());
                    }
                }
            }
            Err(why) => problems.push((index, why)),
        }
    }
    if problems.is_empty() {
        *programs = wanted;
    }
    problems
}

/// Reads `name:path`.
pub fn read_program(text: &str) -> Result<(&'static str, PathBuf), InvalidValue> {
    let Some((name, path)) = text.split_once(':') else {
        return invalid("expected name:path, such as iptables:/usr/sbin/iptables-nft");
    };
    let Some(name) = Executables::NAMES.into_iter().find(|known| *known == name.trim()) else {
        return invalid(format!("the name before the ':' is one of {}", Executables::NAMES.join(", ")));
    };
    let path = read_path(path.trim())?;
    Ok((name, path.components().collect()))
}

fn read_path(text: &str) -> Result<PathBuf, InvalidValue> {
    if text.is_empty() || text.contains('\0') {
        return invalid("expected the path of a file");
    }
    Ok(Path::new(text).to_owned())
}

fn read_switch(text: &str, yaml: bool) -> Result<bool, InvalidValue> {
    let value = if yaml { text::yaml_switch(text) } else { text::switch(text) };
    value.ok_or_else(|| InvalidValue("expected true or false".into()))
}

fn read_level(text: &str) -> Result<u8, InvalidValue> {
    match whole_number(text, "") {
        Ok(level) if level <= 7 => Ok(u8::try_from(level).unwrap_or(7)),
        _ => invalid("a kernel log level is a whole number from 0 (emergency) to 7 (debug)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(items: &[Item]) -> Vec<&str> {
        items.iter().map(|item| item.text.as_str()).collect()
    }

    const PORTS: Field = Field::Ports(|c| &mut c.redirect.inbound.exclude_ports);
    const UIDS: Field = Field::Exclusions(|c| &mut c.redirect.outbound.exclude_ports_for_uids);
    const NETWORKS: Field = Field::Networks(|c| &mut c.redirect.outbound.exclude_ports_for_ips);
    const PROGRAMS: Field = Field::Programs(|c| &mut c.iptables_executables);

    #[test]
    fn flags_are_cut_as_kumactl_cuts_them() {
        assert_eq!(texts(&PORTS.cut_flags(&["1", "2, 3,,"])), ["2", "3"]);
        assert_eq!(texts(&PORTS.cut_flags(&["1", ""])), [""; 0]);
        assert_eq!(texts(&PORTS.cut_flags(&[","])), ["", ""]);
        assert_eq!(texts(&UIDS.cut_flags(&["80,443:1", "2"])), ["80,443:1", "2"]);
        assert_eq!(texts(&UIDS.cut_flags(&[""])), [""]);
        assert_eq!(
            texts(&NETWORKS.cut_flags(&["10.0.0.1, ::1", "fd00::/8"])),
            ["10.0.0.1", "::1", "fd00::/8"]
        );
        assert_eq!(texts(&NETWORKS.cut_flags(&["10.0.0.1,"])), ["10.0.0.1", ""]);
    }

    #[test]
    fn variables_are_cut_at_commas_or_semicolons() {
        assert_eq!(texts(&UIDS.cut_variable("1,2")), ["1", "2"]);
        assert_eq!(texts(&UIDS.cut_variable("80,443:1;2")), ["80,443:1", "2"]);
        assert_eq!(texts(&UIDS.cut_variable("1,")), ["1", ""]);
        assert_eq!(texts(&UIDS.cut_variable("")), [""; 0]);
        assert_eq!(texts(&NETWORKS.cut_variable("")), [""; 0]);
    }

    #[test]
    fn programs_are_merged_one_by_one() {
        let mut config = Config::default();
        let items = PROGRAMS.cut_flags(&["iptables:/a//b/./c, ip6tables:/six"]);
        assert_eq!(PROGRAMS.set(&mut config, &items, false), []);
        assert_eq!(PROGRAMS.set(&mut config, &PROGRAMS.cut_variable("iptables:/x:y"), false), []);
        assert_eq!(config.iptables_executables.iptables, Some("/x:y".into()));
        assert_eq!(config.iptables_executables.ip6tables, Some("/six".into()));
    }

    #[test]
    fn a_list_with_one_bad_entry_keeps_what_was_there() {
        let mut config = Config::default();
        assert_eq!(PORTS.set(&mut config, &PORTS.cut_flags(&["22"]), false), []);
        let problems = PORTS.set(&mut config, &PORTS.cut_flags(&["80,x,0"]), false);
        assert_eq!(problems.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(PORTS.show(&mut config), Shown::Words(vec!["22".into()]));
    }

    #[test]
    fn nodes_have_to_be_of_the_right_shape() {
        let scalar = |text: &str| Node::Scalar(text.into());
        assert_eq!(texts(&PORTS.cut_node(&scalar("1,2")).unwrap()), ["1", "2"]);
        assert_eq!(
            texts(&PORTS.cut_node(&Node::List(vec![scalar("1"), scalar("2,3")])).unwrap()),
            ["1", "2", "3"]
        );
        assert_eq!(texts(&UIDS.cut_node(&scalar("80,443:1")).unwrap()), ["80,443:1"]);
        assert_eq!(texts(&UIDS.cut_node(&scalar("")).unwrap()), [""]);
        assert!(PORTS.cut_node(&Node::Null).unwrap_err().1.0.contains("[]"));
        let nested = Node::List(vec![scalar("1"), Node::List(vec![])]);
        assert_eq!(PORTS.cut_node(&nested).unwrap_err().0, [1]);
        assert!(UIDS.cut_node(&Node::Map(vec![])).is_err());
        assert!(PROGRAMS.cut_node(&Node::List(vec![])).is_err());
        let switch = Field::Switch(|c| &mut c.verbose);
        assert!(switch.cut_node(&Node::List(vec![scalar("true")])).is_err());
        assert!(switch.cut_node(&Node::Float("1.5".into())).is_err());
        let user = Field::User(|c| &mut c.kuma_dp_user);
        assert_eq!(texts(&user.cut_node(&Node::Null).unwrap()), [""]);
    }
}

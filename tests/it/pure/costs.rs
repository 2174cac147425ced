//! What a hostile configuration costs: time in proportion to its size, whether it is refused or taken.
//!
//! Each is measured at one size and at one that is [`TIMES`] as large, by the processor's time of this thread, so other
//! work on the machine does not count. What takes time with the square of the size takes 256 times as long.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tproxy::config::{File, Flag, Layers, Resolved, resolve, settings};
use tproxy::host::{HostFacts, Ipv6Support};

const SIZE: usize = 100;
const TIMES: usize = 16;

/// Between what is in proportion (16, and somewhat more where memory is slow) and what is not.
const BOUND: u32 = 90;

/// What is too short to be measured counts as this.
const SHORTEST: Duration = Duration::from_micros(300);

/// The item or key of a number.
type Item = fn(usize) -> String;

fn cost(work: &dyn Fn()) -> Duration {
    let now = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock"));
    let once = || {
        let begun = now();
        work();
        now().saturating_sub(begun)
    };
    (0..2).map(|_| once()).min().unwrap_or_default()
}

#[track_caller]
fn grows_with_its_size(what: &str, of_size: impl Fn(usize) -> Layers) {
    let of = |size: usize| {
        let layers = of_size(size);
        cost(&|| drop(resolve(&layers)))
    };
    let (small, large) = (of(SIZE).max(SHORTEST), of(SIZE * TIMES));
    assert!(large < small * BOUND, "{what}: {small:?}, and {large:?} for {TIMES} times as much");
}

fn file(text: String) -> Layers {
    Layers { files: vec![File { name: "a.yaml".to_owned(), text, recorded: false }], ..Layers::default() }
}

fn list(size: usize, item: impl Fn(usize) -> String, separator: &str) -> String {
    (0..size).map(item).collect::<Vec<_>>().join(separator)
}

#[test]
fn files_that_nest() {
    for open in ["{a: ", "{\"a\":", "[", "- ", "? ", "[{a: ", "[#]\n", "[\"\n]\",", "a:\n- [", "{[]: "] {
        grows_with_its_size(open, |size| file(open.repeat(size)));
    }
    for (open, close) in [("{\"a\":", "}"), ("[", "]")] {
        grows_with_its_size(open, |size| file(format!("{}1{}", open.repeat(size), close.repeat(size))));
    }
    grows_with_its_size("words in 200 lists", |size| {
        file(format!("{}{}", "[".repeat(200), "a,".repeat(size)))
    });
}

#[test]
fn files_with_many_keys() {
    let keys: [(&str, Item); 9] = [
        ("", |n| format!("k{n}: 1")),
        ("", |n| format!("wiat{n}: 1")),
        ("", |_| "wait: 1".to_owned()),
        ("", |n| format!("a.b{n}:")),
        ("", |n| format!("kuma{n}: {{}}")),
        ("iptablesExecutables:\n", |n| format!("  k{n}: 1")),
        ("iptablesExecutables:\n", |_| "  iptables: /x".to_owned()),
        ("redirect:\n", |n| format!("  k{n}: 1")),
        ("redirect:\n  dns:\n", |n| format!("    port{n}: 1")),
    ];
    for (head, key) in keys {
        grows_with_its_size(&key(1), |size| file(format!("{head}{}\n", list(size, key, "\n"))));
    }
    grows_with_its_size("JSON", |size| file(format!("{{{}}}", list(size, |n| format!("\"k{n}\": 1"), ", "))));
    grows_with_its_size("one long key", |size| file(format!("{}: 1", "k".repeat(100 * size))));
}

#[test]
fn files_with_odd_yaml() {
    let texts: [Item; 10] = [
        |size| format!("{}--- 1\n", list(size, |n| format!("%TAG !a{n}! b\n"), "")),
        |size| format!("a: &a [{}]\nb: [{}]\n", "x, ".repeat(size), "*a, ".repeat(size)),
        |size| format!("a: &a {}\nb: [{}]\n", "x".repeat(size), "*a, ".repeat(size)),
        |size| {
            format!(
                "a: &a {{{}}}\n{}",
                list(size, |n| format!("k{n}: 1"), ", "),
                list(size, |n| format!("b{n}: *a\n"), "")
            )
        },
        |size| list(size, |n| format!("k{n}: &a{n} 1\n"), ""),
        |size| "--- 1\n".repeat(size),
        |size| format!("a: {}", "x\n  ".repeat(size)),
        |size| format!("a: |\n{}", "  x\n\n".repeat(size)),
        |size| format!("a: \"{}\"", "\\x41 \n ".repeat(size)),
        |size| format!("a: [{}]", "1e308, ".repeat(size)),
    ];
    for text in texts {
        grows_with_its_size(&text(2), |size| file(text(size)));
    }
}

/// Values of lists, good and bad, as a list and as one text.
const ITEMS: [(&str, Item); 12] = [
    ("redirect.inbound.excludePorts", |n| (n % 65535 + 1).to_string()),
    ("redirect.inbound.includePorts", |n| format!("x{n}")),
    ("redirect.outbound.excludePorts", |n| (n * 2 % 65535 + 1).to_string()),
    ("redirect.outbound.excludePortsForIPs", |n| format!("10.{}.{}.1", n / 256 % 256, n % 256)),
    ("redirect.outbound.excludePortsForIPs", |n| format!("10.{}.{}.1/8", n / 256 % 256, n % 256)),
    ("redirect.inbound.excludePortsForIPs", |n| format!("fd00::{n}:x")),
    ("redirect.outbound.excludePortsForUIDs", |n| format!("tcp:{}:{}", n % 65000 + 1, n + 1)),
    ("redirect.outbound.excludePortsForUIDs", |n| format!("tcp:{}:x", n % 65000 + 1)),
    ("redirect.outbound.excludePortsForUIDs", |n| format!("sctp{n}:1:1")),
    ("redirect.vnet.networks", |n| format!("br{}:10.{}.{}.1/24", n % 999, n / 256 % 256, n % 256)),
    ("redirect.vnet.networks", |n| format!("br{n}")),
    ("redirect.inbound.excludePortsForUIDs", |n| n.to_string()),
];

fn in_a_file(key: &str, value: &str) -> Layers {
    let words: Vec<&str> = key.split('.').collect();
    let lines = words.iter().enumerate().map(|(depth, word)| format!("{}{word}:", "  ".repeat(depth)));
    file(format!("{} {value}\n", lines.collect::<Vec<_>>().join("\n")))
}

#[test]
fn long_lists_in_files() {
    for (key, item) in ITEMS {
        let what = format!("{key}: {}", item(1));
        let quoted = |size| list(size, |n| format!("\"{}\"", item(n)), ", ");
        grows_with_its_size(&what, |size| in_a_file(key, &format!("[{}]", quoted(size))));
        grows_with_its_size(&what, |size| in_a_file(key, &format!("\"{}\"", list(size, item, ","))));
    }
    let ports = |size| format!("[\"tcp:{}:1\"]", list(size, |n| (n + 1).to_string(), ","));
    grows_with_its_size("ports", |size| in_a_file("redirect.outbound.excludePortsForUIDs", &ports(size)));
    let protocols = |size| format!("[\"{}:1:1\"]", "tcp,udp,".repeat(size));
    grows_with_its_size("protocols", |size| {
        in_a_file("redirect.outbound.excludePortsForUIDs", &protocols(size))
    });
}

#[test]
fn long_variables_and_many_of_them() {
    for (key, item) in ITEMS {
        let setting = settings::by_key(key).expect("a setting");
        grows_with_its_size(key, |size| {
            let variables = vec![(setting.variable(), list(size, item, ","))];
            Layers { variables, ..Layers::default() }
        });
    }
    for name in ["KUMA_TRANSPARENT_PROXY_REDIRECT_DNS_X", "KUMA_TRANSPARENT_PROXY_EBPF_"] {
        grows_with_its_size(name, |size| {
            let variables = (0..size).map(|n| (format!("{name}{n}"), "1".to_owned())).collect();
            Layers { variables, ..Layers::default() }
        });
    }
}

#[test]
fn long_flags_and_many_of_them() {
    for (key, item) in ITEMS {
        let setting = settings::by_key(key).expect("a setting");
        let Some(name) = setting.flag else { continue };
        grows_with_its_size(key, |size| {
            let flags = vec![Flag { setting, name, text: list(size, item, ",") }];
            Layers { flags, ..Layers::default() }
        });
        grows_with_its_size(key, |size| {
            let flags = (0..size).map(|n| Flag { setting, name, text: item(n) }).collect();
            Layers { flags, ..Layers::default() }
        });
    }
}

/// What passes becomes rules.
#[test]
fn long_lists_as_rules() {
    let facts = HostFacts {
        sidecar_uid: 5678,
        loopback: "lo".into(),
        ipv6: Ipv6Support::Available,
        resolvers: Vec::new(),
        docker_dns: false,
        translated: tproxy::host::Translated::default(),
    };
    for (key, item) in ITEMS {
        let config = |size: usize| {
            let quoted = list(size, |n| format!("\"{}\"", item(n)), ", ");
            resolve(&in_a_file(key, &format!("[{quoted}]"))).ok().map(|Resolved { config, .. }| config)
        };
        let (Some(small), Some(large)) = (config(SIZE), config(SIZE * TIMES)) else { continue };
        let of = |config| cost(&|| drop(tproxy::plan::build(config, &facts)));
        let (small, large) = (of(&small).max(SHORTEST), of(&large));
        assert!(large < small * BOUND, "{key} {}: {small:?}, and {large:?}", item(1));
    }
}

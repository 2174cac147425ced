//! What others put into our table: it is told when it goes, and it comes back with the rest, to the last byte.

use tproxy::attribute::{Attributes, attributes, find, find_text};
use tproxy::backend::nftables::change::{Change, Wanted};
use tproxy::backend::nftables::commit::bring;
use tproxy::backend::nftables::decode::Observed;
use tproxy::backend::nftables::foreign::intruders;
use tproxy::backend::nftables::observe::observe;
use tproxy::backend::nftables::send::SendError;
use tproxy::backend::nftables::wire::Message;
use tproxy::sys::netlink::nftables::Door;

use super::same::without_handles;
use super::sample;
use crate::support::command::{Program, Run, must};
use crate::support::{Lab, firewall};

/// One of everything, with what it counted.
pub const EVERYTHING: &str = r#"table inet kuma_mesh {
	comment "not ours"
	counter hits { packets 5 bytes 600 }
	quota some { over 25 mbytes used 10 bytes }
	limit slow { rate 5/second burst 7 packets }
	ct timeout brief { protocol tcp; l3proto inet; policy = { established : 100, close : 4 }; }
	set banned { type ipv4_addr; flags interval, timeout; timeout 1h; gc-interval 10s; elements = { 198.51.100.0/24 timeout 2h, 203.0.113.7 } }
	set seen { type ipv4_addr; size 1000; flags dynamic, timeout; timeout 1h; }
	set counted { type inet_service; counter; elements = { 80 counter packets 3 bytes 4 comment "web" } }
	set touching { type inet_service; flags interval; elements = { 1-7, 8, 9-20, 65535 } }
	set noted { type ipv6_addr; flags interval; auto-merge; elements = { fd00::/8 comment "home" } }
	set pairs { type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.0/8 . 1-100, 10.0.0.0/9 . 200 } }
	map names { type inet_service : counter; elements = { 1 : "hits" } }
	map ways { type ipv4_addr : verdict; flags interval; elements = { 10.0.0.0/8 : jump sub, 192.0.2.1-192.0.2.77 : drop } }
	chain sub {
		comment "sub, too"
		limit rate 5/second burst 9 packets accept
		quota over 100 mbytes used 7 bytes drop
	}
	chain theirs {
		type filter hook forward priority 5; policy drop;
		ip saddr vmap @ways
		ip saddr @banned drop
		add @seen { ip saddr limit rate 3/second burst 5 packets }
		update @seen { ip daddr timeout 30s } counter name "hits"
		counter name tcp dport map @names
		quota name "some" limit name "slow" accept
		tcp dport { 22, 80-90 } ct state vmap { established : accept, new : jump sub }
		ip saddr . tcp dport @pairs tcp dport vmap { 1 : goto sub, 2 : drop }
		meta mark set numgen inc mod 2 fib daddr type local counter packets 8 bytes 9
		meta l4proto tcp jump { ip saddr 1.2.3.4 counter packets 1 bytes 2 accept; }
	}
}
"#;

/// What not every kernel has: how it is told, and what makes it.
const PERHAPS: [(&str, &str); 6] = [
    (
        "flowtable fast",
        "flowtable fast { hook ingress priority 0; devices = { lo }; }\nchain theirs { meta l4proto tcp flow add @fast\n}",
    ),
    (
        "ct helper ftp",
        "ct helper ftp { type \"ftp\" protocol tcp; }\nchain theirs { tcp dport 21 ct helper set \"ftp\"\n}",
    ),
    ("synproxy https", "synproxy https { mss 1460\nwscale 7\ntimestamp sack-perm\n}"),
    ("ct expectation pg", "ct expectation pg { protocol tcp; dport 5432; timeout 1h; size 12; l3proto ip; }"),
    ("chain early {", "chain early { type filter hook ingress device lo priority 0; policy drop; }"),
    ("the flag \"dormant\"", "flags dormant;"),
];

/// Whether the kernel has it; says so if not.
fn taken(text: &str) -> bool {
    let whole = format!("table inet kuma_mesh {{\n{text}\n}}\n");
    let run = Program::new("nft").args(["-f", "-"]).stdin(whole).run();
    if run.code != Some(0) {
        eprintln!("this kernel has none of it: {text}");
    }
    run.code == Some(0)
}

/// Rules of theirs in a chain of ours, and what they need.
const BETWEEN: &str = r#"
	add counter inet kuma_mesh hits { packets 5 bytes 600 ; }
	add set inet kuma_mesh banned { type ipv4_addr; flags timeout; timeout 1h; elements = { 203.0.113.7 }; }
	add rule inet kuma_mesh outbound ip daddr @banned counter name "hits" limit rate 5/second accept
	insert rule inet kuma_mesh outbound tcp dport { 9, 10-12 } quota over 100 mbytes used 7 bytes drop
	add rule inet kuma_mesh inbound tcp dport 22 accept
"#;

fn now(door: &mut Door) -> Observed {
    observe(door).expect("an answer").table.expect("a table")
}

/// All the kernel told, but for what is new each time or passes with time.
fn lasting(observed: &Observed) -> Vec<Message> {
    const ELEMENTS: u16 = 12;
    const EXPIRATION: u16 = 5;
    let mut messages: Vec<Message> = observed.told.to_vec();
    for message in &mut messages {
        message.flags = 0;
        message.body = without_handles(message);
        if message.kind == ELEMENTS {
            let list = find(&message.body, 3).unwrap_or_default();
            let mut elements: Vec<Vec<u8>> = attributes(list)
                .map(|(_, element)| {
                    let kept = attributes(element).filter(|(kind, _)| *kind != EXPIRATION);
                    kept.fold(Attributes::new(), |kept, (kind, value)| kept.bytes(kind, value)).into()
                })
                .collect();
            // A hash has its own order each time.
            elements.sort();
            let list = elements.iter().fold(Attributes::new(), |list, element| list.bytes(1, element));
            let set = find_text(&message.body, 2).expect("a name");
            message.body = Attributes::new().text(2, &set).nested(3, &list).into();
        }
    }
    messages.sort_by_key(|message| message.kind);
    messages
}

/// As `nft` shows it, but for what passes with time.
fn listed() -> String {
    let text = must("nft", &["list", "table", "inet", "kuma_mesh"]);
    let words = text.split(' ').scan(false, |after, word| {
        let kept = if *after { word.trim_start_matches(|c: char| c.is_ascii_alphanumeric()) } else { word };
        *after = word == "expires";
        Some(kept)
    });
    words.collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn assert_same(now: &Observed, former: &Observed) {
    let (now, former) = (lasting(now), lasting(former));
    for (was, is) in former.iter().zip(&now) {
        assert_eq!(is, was);
    }
    assert_eq!(now.len(), former.len());
}

#[track_caller]
fn assert_comes_back(former: &Observed) {
    let text = listed();
    for between in [Some(Wanted::New(sample::table().0)), None] {
        bring(between.as_ref()).expect("ours to change");
        bring(Some(&Wanted::Former(former.clone()))).unwrap_or_else(|error| panic!("{error}"));
        let mut door = Door::open().expect("a door");
        let back = now(&mut door);
        assert_eq!(listed(), text);
        assert_same(&back, former);
        assert_eq!((&back.table, &back.foreign), (&former.table, &former.foreign));
    }
}

#[test]
fn everything_comes_back_as_it_was() {
    Lab::enter(|lab| {
        lab.silence();
        firewall::nft(EVERYTHING);
        let taken: Vec<&str> =
            PERHAPS.into_iter().filter_map(|(what, text)| taken(text).then_some(what)).collect();
        let mut door = Door::open().expect("a door");
        let former = now(&mut door);
        let told = intruders(&former).join("\n");
        for what in taken {
            assert!(told.contains(what), "{what}: {told}");
        }
        for what in ["counter hits", "quota some", "limit slow", "ct timeout brief", "set banned", "set seen"]
        {
            assert!(former.foreign.iter().any(|foreign| foreign.starts_with(what)), "{what}: {told}");
        }
        for what in ["set touching", "set noted: elements", "chain theirs {", "chain sub: <limit> accept"] {
            assert!(told.contains(what), "{what}: {told}");
        }
        assert!(!told.contains("set __set"), "{told}");
        assert_comes_back(&former);
    });
}

#[test]
fn what_is_there_is_not_made_again() {
    Lab::enter(|lab| {
        lab.silence();
        firewall::nft(EVERYTHING);
        let mut door = Door::open().expect("a door");
        let former = observe(&mut door).expect("an answer");
        let wanted = former.table.clone().map(Wanted::Former);
        bring(wanted.as_ref()).expect("nothing to do");
        assert_eq!(door.generation().expect("a generation"), former.generation);
        // Only an element of a set of ours is another one: so it is one element that comes back.
        firewall::nft("delete element inet kuma_mesh touching { 65535 }\n");
        let change = Change::to(Some(&now(&mut door)), wanted.as_ref(), false);
        assert!(matches!(&change, Change::Elements(sets) if sets.len() == 1), "{change:?}");
        bring(wanted.as_ref()).expect("one element");
        assert_same(&now(&mut door), &former.table.expect("a table"));
    });
}

#[test]
fn a_table_of_ours_comes_back_as_it_was() {
    Lab::enter(|lab| {
        lab.silence();
        bring(Some(&Wanted::New(sample::table().0))).expect("a table");
        let former = now(&mut Door::open().expect("a door"));
        assert_comes_back(&former);
    });
}

/// A kernel that does not take back what it told itself: our own part comes back, and whoever asked hears of the rest.
#[test]
fn our_own_part_comes_back_at_least() {
    Lab::enter(|lab| {
        lab.silence();
        let (table, _) = sample::table();
        bring(Some(&Wanted::New(table.clone()))).expect("a table");
        firewall::nft("add rule inet kuma_mesh out numgen inc mod 2 0 accept\n");
        let mut former = now(&mut Door::open().expect("a door"));
        assert_ne!(former.table, table);
        let told = former.told.iter().cloned().map(|mut message| {
            if let Some(at) = message.body.windows(6).position(|bytes| bytes == b"numgen") {
                message.body[at..at + 6].copy_from_slice(b"nobody");
            }
            message
        });
        former.told = told.collect();
        bring(None).expect("no table");
        let refused = bring(Some(&Wanted::Former(former))).expect_err("no such expression");
        assert!(matches!(refused, SendError::Refused(_)), "{refused}");
        let now = now(&mut Door::open().expect("a door"));
        assert_eq!(now.table, table);
    });
}

/// Everything that goes is named.
#[track_caller]
fn told_what_goes(run: Run) -> Run {
    let goes = "a foreign part of our nftables table is removed: ";
    [
        "counter hits",
        "set banned: another type or other flags than ours",
        "chain outbound: ip daddr @banned <objref> <limit> accept",
        "chain outbound: tcp dport @__set0 <quota> drop",
        "chain inbound: tcp dport 22 accept",
    ]
    .iter()
    .fold(run, |run, what| run.says(&format!("{goes}{what}")))
}

const FLAGS: [&str; 6] =
    ["install", "--kuma-dp-user", "kuma-dp", "--redirect-all-dns-traffic", "--backend", "nftables"];

#[test]
fn a_trial_that_ends_gives_it_back() {
    Lab::enter(|lab| {
        lab.silence();
        lab.program().args(FLAGS).run().succeeds();
        firewall::nft(BETWEEN);
        let mut door = Door::open().expect("a door");
        let (text, former) = (listed(), now(&mut door));
        // The same configuration: the table is ours alone.
        told_what_goes(lab.program().args(FLAGS).args(["--confirm", "1s", "--foreground"]).run())
            .exits(1)
            .says("nobody confirmed");
        assert_eq!(listed(), text);
        assert_same(&now(&mut door), &former);
        let uninstall = lab.program().args(["uninstall", "--dry-run"]).run().succeeds();
        uninstall.prints("- counter hits").prints("- chain inbound: tcp dport 22 accept");
        told_what_goes(lab.program().args(FLAGS).run().succeeds());
        assert!(!listed().contains("limit"), "{}", listed());
    });
}

#[test]
fn a_proof_that_fails_gives_it_back() {
    Lab::enter(|lab| {
        lab.silence();
        lab.program().args(FLAGS).run().succeeds();
        firewall::nft(BETWEEN);
        // Somebody lets every connection go before our rules see it.
        firewall::nft(
            "add table ip ahead\nadd chain ip ahead out { type nat hook output priority -110; }\nadd rule ip ahead out tcp dport 1-65535 dnat to 192.0.2.1\n",
        );
        // Rules of ours may still count what was sent to prove it.
        let stateless = || must("nft", &["-s", "list", "table", "inet", "kuma_mesh"]);
        let before = stateless();
        let run = lab.program().args(FLAGS).args(["--exclude-outbound-ports=81", "--verify"]).run();
        told_what_goes(run).exits(1).says("the host is as it was before");
        assert_eq!(stateless(), before);
        assert!(listed().contains("packets 5 bytes 600"), "{}", listed());
    });
}

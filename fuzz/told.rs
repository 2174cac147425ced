// What has to hold of whatever the kernel tells, even if it were any bytes at all. Shared by fuzz targets and tests.

use tproxy::backend::nftables::change::{self, Change, Wanted};
use tproxy::backend::nftables::decode::{Observed, decode};
use tproxy::backend::nftables::encode;
use tproxy::backend::nftables::foreign::intruders;
use tproxy::backend::nftables::infer::infer;
use tproxy::backend::nftables::model::Statement;
use tproxy::backend::nftables::refusal::Refused;
use tproxy::backend::nftables::replay::again;
use tproxy::backend::nftables::text;
use tproxy::backend::nftables::wire::Message;
use tproxy::host::{HostFacts, Ipv6Support};
use tproxy::sys::netlink::answer::{Answer, Refusal, Verdict};
use tproxy::sys::netlink::events::Transaction;

/// The number of every message that is recorded or made up.
pub const SEQUENCE: u32 = 1;

/// Takes a datagram as each of the things that the kernel sends, and all that it tells as our table.
pub fn datagram(bytes: &[u8]) -> Observed {
    let mut answer = Answer::to(SEQUENCE);
    let _ = answer.take(bytes);
    let told: usize = answer.messages.iter().map(|message| message.body.len()).sum();
    assert!(told <= bytes.len() && answer.messages.len() <= bytes.len() / 20);

    for changes in [1, 3] {
        let mut verdict = Verdict::on(changes, SEQUENCE);
        if let Err(Refusal::Refused { message, errno, words, offset }) = verdict.take(bytes) {
            assert!(message.is_none_or(|place| place < changes));
            let refused = Refused::new(answer.messages.first(), offset, errno, words);
            let _ = (refused.to_string(), refused.hint());
        }
    }
    let (mut pending, mut done) = (Transaction::default(), Vec::new());
    pending.take(bytes, &mut done);
    let changes = done.iter().chain([&pending]).flat_map(|transaction| &transaction.changes);
    assert!(changes.map(|change| change.bytes.len()).sum::<usize>() <= bytes.len());
    messages(&answer.messages)
}

/// Takes messages as what the kernel tells of our table, and does with it all that needs no kernel.
pub fn messages(told: &[Message]) -> Observed {
    let observed = Observed { told: told.into(), ..decode(told) };
    for set in observed.table.sets.values() {
        assert!(set.intervals.iter().all(|interval| interval.first <= interval.last));
        assert!(set.intervals.windows(2).all(|pair| pair[0].last < pair[1].first));
    }
    let _ = intruders(&observed);
    // What is sent for a way back is told again as the same; a second way back sends the same bytes.
    let sent = again(told);
    assert_eq!(again(&sent), sent);
    for (place, message) in told.iter().enumerate() {
        let refused = Refused::new(Some(message), Some(place * 8), 2, None);
        let _ = (refused.to_string(), refused.hint());
    }
    let _ = text::replace(&observed.table);
    read(&observed);

    let rules = || observed.table.chains.iter().flat_map(|chain| &chain.rules);
    // What is not understood, or tests addresses in a set that is not there, is not written as it was read.
    let plain = rules().flat_map(|rule| &rule.statements).all(|statement| match statement {
        Statement::Foreign(..) => false,
        Statement::Address(_, test) => !format!("{test:?}").contains("In("),
        _ => true,
    });
    if plain {
        let _ = decode(&encode::create(&observed.table));
    }
    observed
}

/// Reads a configuration off it, and makes of both what an installation would do.
fn read(observed: &Observed) {
    let host = HostFacts {
        sidecar_uid: 5678,
        loopback: "lo".into(),
        ipv6: Ipv6Support::Available,
        resolvers: Vec::new(),
        docker_dns: false,
        translated: tproxy::host::Translated::default(),
    };
    let wanted = infer(&observed.table).wanted(host, &observed.table);
    for wanted in [Wanted::New(wanted), Wanted::Former(observed.clone())] {
        for line in change::differences(Some(observed), Some(&wanted)) {
            let _ = line.to_string();
        }
        let former = matches!(wanted, Wanted::Former(_));
        let change = Change::to(Some(observed), Some(&wanted), false);
        assert!(!former || change.is_nothing(), "what is there is not made again: {change:?}");
    }
}

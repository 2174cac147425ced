//! Any text as a value of each kind: refused with a reason, or a value that, shown, reads as itself.

#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use libfuzzer_sys::fuzz_target;
use tproxy::config::duration;
use tproxy::config::field::read_program;
use tproxy::config::values::{
    Cidr, InterfacePattern, InvalidValue, IpFamilyMode, Port, PortRange, UidExclusion, UidRange, UserSpec,
    VirtualNetwork,
};

fn check<T>(text: &str)
where
    T: FromStr<Err = InvalidValue> + Display + Debug + PartialEq,
{
    match text.parse::<T>() {
        Ok(value) => assert_eq!(value.to_string().parse::<T>().as_ref(), Ok(&value), "{text:?}"),
        Err(why) => assert!(!why.0.is_empty(), "refused without a reason"),
    }
}

fuzz_target!(|text: &str| {
    check::<Port>(text);
    check::<PortRange>(text);
    check::<UidRange>(text);
    check::<Cidr>(text);
    check::<IpFamilyMode>(text);
    check::<UidExclusion>(text);
    check::<InterfacePattern>(text);
    check::<VirtualNetwork>(text);
    check::<UserSpec>(text);
    let _ = read_program(text);
    if let Ok(value) = duration::parse(text) {
        assert_eq!(duration::parse(&duration::show(value)), Ok(value), "{text:?}");
    }
    // An entry that says nothing must never come to mean everybody.
    if let Ok(entry) = text.parse::<UidExclusion>() {
        assert!(!entry.protocols.is_empty() && !entry.ports.is_empty(), "{text:?}");
    }
});

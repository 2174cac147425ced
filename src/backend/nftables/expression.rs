//! Statements as the kernel's expressions, exactly those that `nft` makes of the same words. Pure.
//!
//! An expression loads something into a register, changes it there, or tests it; a rule goes on while tests hold.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::attribute::Attributes;
use crate::config::values::{Port, PortRange, Protocol, UidRange};
use crate::plan::Family;

use super::model::{End, Interface, Statement, Test, Verdict};
use super::set::{Key, Set};
use super::wire::{
    IPV4, IPV6, bitwise, byteorder, compare, counter, ct, data, fib, immediate, log, lookup, meta, payload,
    range, redir, rule,
};

/// The expressions of a rule. The sets tell of which family the addresses in a set are.
pub(super) fn write(statements: &[Statement], sets: &BTreeMap<String, Set>) -> Attributes {
    let mut writer = Writer(Attributes::new());
    for statement in statements {
        writer.statement(statement, sets);
    }
    writer.0
}

/// The number of a protocol.
pub(super) const fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

/// Where an address is in the network header.
pub(super) const fn address_offset(family: Family, end: End) -> u32 {
    match (family, end) {
        (Family::V4, End::Source) => 12,
        (Family::V4, End::Destination) => 16,
        (Family::V6, End::Source) => 8,
        (Family::V6, End::Destination) => 24,
    }
}

/// Where a port is in the transport header.
pub(super) const fn port_offset(end: End) -> u32 {
    match end {
        End::Source => 0,
        End::Destination => 2,
    }
}

struct Writer(Attributes);

impl Writer {
    fn push(&mut self, name: &str, data: &Attributes) {
        let expression = Attributes::new().text(rule::NAME, name).nested(rule::DATA, data);
        self.0 = std::mem::take(&mut self.0).nested(rule::ELEMENT, &expression);
    }

    fn statement(&mut self, statement: &Statement, sets: &BTreeMap<String, Set>) {
        match statement {
            Statement::Family(family) => {
                self.meta(meta::FAMILY);
                self.compare(compare::EQUAL, &[if *family == Family::V4 { IPV4 } else { IPV6 }]);
            }
            Statement::Protocol(protocol) => {
                self.meta(meta::PROTOCOL);
                self.compare(compare::EQUAL, &[number(*protocol)]);
            }
            Statement::Address(end, test) => self.address(*end, test, sets),
            Statement::Port(end, test) => self.port(*end, test),
            Statement::Interface(end, test) => self.interface(*end, test),
            Statement::Owner(test) => self.owner(test),
            Statement::ForOtherHosts => {
                let body = Attributes::new()
                    .number(fib::DESTINATION, data::REGISTER)
                    .number(fib::RESULT, fib::ADDRESS_TYPE)
                    .number(fib::FLAGS, fib::DESTINATION_ADDRESS);
                self.push("fib", &body);
                self.compare(compare::UNEQUAL, &fib::LOCAL.to_ne_bytes());
            }
            Statement::Invalid => self.state(ct::INVALID),
            Statement::Untracked => self.state(ct::UNTRACKED),
            Statement::Counter => {
                let zero = Attributes::new()
                    .bytes(counter::BYTES, &0_u64.to_be_bytes())
                    .bytes(counter::PACKETS, &0_u64.to_be_bytes());
                self.push("counter", &zero);
            }
            Statement::Log { prefix, level } => {
                let mut body = Attributes::new();
                if !prefix.is_empty() {
                    body = body.text(log::PREFIX, prefix);
                }
                self.push("log", &body.number(log::LEVEL, u32::from(*level)));
            }
            Statement::CtZone(zone) => {
                self.load(&zone.to_ne_bytes());
                let set = Attributes::new().number(ct::KEY, ct::ZONE).number(ct::SOURCE, data::REGISTER);
                self.push("ct", &set);
            }
            Statement::Redirect(port) => self.redirect(*port),
            Statement::Verdict(verdict) => self.verdict(verdict),
            // Never wanted. The kernel does not know the name either, or wants more than the name, and refuses.
            Statement::Foreign(name) => self.push(name, &Attributes::new()),
        }
    }

    fn address(&mut self, end: End, test: &Test<IpNet>, sets: &BTreeMap<String, Set>) {
        let (family, length) = match test {
            Test::Is(IpNet::V4(_)) | Test::IsNot(IpNet::V4(_)) => (Family::V4, 4),
            Test::Is(IpNet::V6(_)) | Test::IsNot(IpNet::V6(_)) => (Family::V6, 16),
            Test::In(set) | Test::NotIn(set) => match sets.get(set).map(|set| set.key) {
                Some(Key::Ipv6) => (Family::V6, 16),
                _ => (Family::V4, 4),
            },
        };
        let offset = address_offset(family, end);
        match test {
            Test::Is(net) => self.network(*net, offset, length, compare::EQUAL),
            Test::IsNot(net) => self.network(*net, offset, length, compare::UNEQUAL),
            Test::In(set) | Test::NotIn(set) => {
                self.payload(payload::NETWORK, offset, length);
                self.look_up(set, matches!(test, Test::NotIn(_)));
            }
        }
    }

    fn network(&mut self, net: IpNet, offset: u32, length: u32, operation: u32) {
        let (address, mask) = match net.trunc() {
            IpNet::V4(net) => (net.addr().octets().to_vec(), net.netmask().octets().to_vec()),
            IpNet::V6(net) => (net.addr().octets().to_vec(), net.netmask().octets().to_vec()),
        };
        let bits = u32::from(net.prefix_len());
        // Whole bytes are read and compared alone.
        if bits > 0 && bits.is_multiple_of(8) {
            self.payload(payload::NETWORK, offset, bits / 8);
            let whole = address.iter().zip(&mask).filter(|(_, mask)| **mask > 0);
            self.compare(operation, &whole.map(|(byte, _)| *byte).collect::<Vec<_>>());
        } else {
            self.payload(payload::NETWORK, offset, length);
            self.mask(&mask);
            self.compare(operation, &address);
        }
    }

    fn port(&mut self, end: End, test: &Test<PortRange>) {
        self.payload(payload::TRANSPORT, port_offset(end), 2);
        match test {
            Test::Is(PortRange { first, last }) if first == last => {
                self.compare(compare::EQUAL, &big(*first));
            }
            Test::IsNot(PortRange { first, last }) if first == last => {
                self.compare(compare::UNEQUAL, &big(*first));
            }
            Test::Is(ports) => self.within(&big(ports.first), &big(ports.last)),
            Test::IsNot(ports) => self.outside(&big(ports.first), &big(ports.last)),
            Test::In(set) => self.look_up(set, false),
            Test::NotIn(set) => self.look_up(set, true),
        }
    }

    fn interface(&mut self, end: End, test: &Test<Interface>) {
        self.meta(match end {
            End::Source => meta::INPUT_NAME,
            End::Destination => meta::OUTPUT_NAME,
        });
        let name = |interface: &Interface| {
            let mut bytes = interface.name.clone().into_bytes();
            if !interface.prefix {
                bytes.resize(Key::Interface.width(), 0);
            }
            bytes
        };
        match test {
            Test::Is(interface) => self.compare(compare::EQUAL, &name(interface)),
            Test::IsNot(interface) => self.compare(compare::UNEQUAL, &name(interface)),
            Test::In(set) => self.look_up(set, false),
            Test::NotIn(set) => self.look_up(set, true),
        }
    }

    fn owner(&mut self, test: &Test<UidRange>) {
        self.meta(meta::SOCKET_USER);
        match test {
            Test::Is(UidRange { first, last }) if first == last => {
                self.compare(compare::EQUAL, &first.to_ne_bytes());
            }
            Test::IsNot(UidRange { first, last }) if first == last => {
                self.compare(compare::UNEQUAL, &first.to_ne_bytes());
            }
            _ => {
                // The kernel orders values by their bytes.
                let body = Attributes::new()
                    .number(byteorder::SOURCE, data::REGISTER)
                    .number(byteorder::DESTINATION, data::REGISTER)
                    .number(byteorder::OPERATION, byteorder::TO_NETWORK)
                    .number(byteorder::LENGTH, 4)
                    .number(byteorder::SIZE, 4);
                self.push("byteorder", &body);
                match test {
                    Test::Is(uids) => self.within(&uids.first.to_be_bytes(), &uids.last.to_be_bytes()),
                    Test::IsNot(uids) => self.outside(&uids.first.to_be_bytes(), &uids.last.to_be_bytes()),
                    Test::In(set) => self.look_up(set, false),
                    Test::NotIn(set) => self.look_up(set, true),
                }
            }
        }
    }

    fn state(&mut self, bit: u32) {
        let load = Attributes::new().number(ct::KEY, ct::STATE).number(ct::DESTINATION, data::REGISTER);
        self.push("ct", &load);
        self.mask(&bit.to_ne_bytes());
        self.compare(compare::UNEQUAL, &0_u32.to_ne_bytes());
    }

    fn meta(&mut self, key: u32) {
        let body = Attributes::new().number(meta::KEY, key).number(meta::DESTINATION, data::REGISTER);
        self.push("meta", &body);
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32) {
        let body = Attributes::new()
            .number(payload::DESTINATION, data::REGISTER)
            .number(payload::BASE, base)
            .number(payload::OFFSET, offset)
            .number(payload::LENGTH, length);
        self.push("payload", &body);
    }

    fn mask(&mut self, mask: &[u8]) {
        let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
        let body = Attributes::new()
            .number(bitwise::SOURCE, data::REGISTER)
            .number(bitwise::DESTINATION, data::REGISTER)
            .number(bitwise::OPERATION, bitwise::MASK_XOR)
            .number(bitwise::LENGTH, length)
            .nested(bitwise::MASK, &value(mask))
            .nested(bitwise::XOR, &value(&vec![0; mask.len()]));
        self.push("bitwise", &body);
    }

    fn compare(&mut self, operation: u32, with: &[u8]) {
        let body = Attributes::new()
            .number(compare::SOURCE, data::REGISTER)
            .number(compare::OPERATION, operation)
            .nested(compare::DATA, &value(with));
        self.push("cmp", &body);
    }

    fn within(&mut self, first: &[u8], last: &[u8]) {
        self.compare(compare::AT_LEAST, first);
        self.compare(compare::AT_MOST, last);
    }

    fn outside(&mut self, first: &[u8], last: &[u8]) {
        let body = Attributes::new()
            .number(range::SOURCE, data::REGISTER)
            .number(range::OPERATION, range::OUTSIDE)
            .nested(range::FROM, &value(first))
            .nested(range::TO, &value(last));
        self.push("range", &body);
    }

    fn look_up(&mut self, set: &str, inverted: bool) {
        let body = Attributes::new()
            .text(lookup::SET, set)
            .number(lookup::SOURCE, data::REGISTER)
            .number(lookup::FLAGS, if inverted { lookup::INVERTED } else { 0 });
        self.push("lookup", &body);
    }

    fn load(&mut self, bytes: &[u8]) {
        let body = Attributes::new()
            .number(immediate::DESTINATION, data::REGISTER)
            .nested(immediate::DATA, &value(bytes));
        self.push("immediate", &body);
    }

    fn redirect(&mut self, port: Port) {
        self.load(&big(port));
        let body =
            Attributes::new().number(redir::PORT, data::REGISTER).number(redir::FLAGS, redir::PORT_GIVEN);
        self.push("redir", &body);
    }

    fn verdict(&mut self, verdict: &Verdict) {
        let code = match verdict {
            Verdict::Accept => data::ACCEPT,
            Verdict::Drop => data::DROP,
            Verdict::Return => data::RETURN,
            Verdict::Jump(_) => data::JUMP,
        };
        let mut body = Attributes::new().number(data::CODE, code.cast_unsigned());
        if let Verdict::Jump(chain) = verdict {
            body = body.text(data::CHAIN, chain);
        }
        let body = Attributes::new()
            .number(immediate::DESTINATION, data::VERDICT_REGISTER)
            .nested(immediate::DATA, &Attributes::new().nested(data::VERDICT, &body));
        self.push("immediate", &body);
    }
}

fn value(bytes: &[u8]) -> Attributes {
    Attributes::new().bytes(data::VALUE, bytes)
}

fn big(port: Port) -> [u8; 2] {
    port.get().to_be_bytes()
}

//! Just enough DNS (RFC 1035) to answer one question about addresses. Pure; a question may be any bytes at all.

use std::net::IpAddr;

const HEADER: usize = 12;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;
/// Answers are good for so many seconds.
const TTL: u32 = 30;

/// It is an answer, by a server that looks further if asked.
const ANSWER: u8 = 0x80;
const RECURSION_AVAILABLE: u8 = 0x80;
/// Opcode, and whether recursion is wanted.
const KEPT: u8 = 0x79;
const NO_SUCH_NAME: u8 = 3;

/// The name that is asked for, and the answer with the addresses that `names` knows of it. `None`: it is not one
/// plain question.
pub fn answer(question: &[u8], names: impl Fn(&str) -> Vec<IpAddr>) -> Option<(String, Vec<u8>)> {
    let header = question.get(..HEADER)?;
    if header[2] & ANSWER != 0 || header[4..6] != [0, 1] {
        return None;
    }
    let (name, end) = name(question, HEADER)?;
    let asked = question.get(end..end + 4)?;
    let kind = u16::from_be_bytes([asked[0], asked[1]]);
    let class = u16::from_be_bytes([asked[2], asked[3]]);
    let known = names(&name);
    let found: Vec<_> = known
        .iter()
        .filter(|addr| class == CLASS_IN && kind == if addr.is_ipv4() { TYPE_A } else { TYPE_AAAA })
        .collect();

    let failed = if known.is_empty() { NO_SUCH_NAME } else { 0 };
    let mut bytes = header[..2].to_vec();
    bytes.extend([ANSWER | header[2] & KEPT, RECURSION_AVAILABLE | failed, 0, 1]);
    bytes.extend(u16::try_from(found.len()).ok()?.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(&question[HEADER..end + 4]);
    for addr in found {
        // The name is the question's.
        bytes.extend([0xc0, u8::try_from(HEADER).unwrap_or_default()]);
        bytes.extend(kind.to_be_bytes());
        bytes.extend(class.to_be_bytes());
        bytes.extend(TTL.to_be_bytes());
        match addr {
            IpAddr::V4(four) => {
                bytes.extend([0, 4]);
                bytes.extend(four.octets());
            }
            IpAddr::V6(six) => {
                bytes.extend([0, 16]);
                bytes.extend(six.octets());
            }
        }
    }
    Some((name, bytes))
}

/// A name in lower case, and where it ends. Questions have no use for compression.
fn name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            return Some((name, at));
        }
        let label = message.get(at..at + length).filter(|_| length < 64)?;
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ask(kind: u16) -> Vec<u8> {
        let mut question = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        question.extend(b"\x03Svc\x04mesh\x00");
        question.extend(kind.to_be_bytes());
        question.extend([0, 1]);
        question
    }

    fn names(name: &str) -> Vec<IpAddr> {
        if name == "svc.mesh" { vec![[240, 0, 0, 7].into(), "fd00::7".parse().unwrap()] } else { Vec::new() }
    }

    #[test]
    fn addresses_of_the_kind_that_was_asked_for() {
        let (name, four) = answer(&ask(TYPE_A), names).unwrap();
        assert_eq!(name, "svc.mesh");
        assert_eq!(four[..8], [0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 1]);
        assert!(four.ends_with(&[0, 4, 240, 0, 0, 7]));
        let (_, six) = answer(&ask(TYPE_AAAA), names).unwrap();
        assert_eq!(six.len(), four.len() + 12);
        let (_, none) = answer(&ask(15), names).unwrap();
        assert_eq!(none[3..8], [0x80, 0, 1, 0, 0], "the name is known, without an address of that kind");
        let (_, unknown) = answer(&ask(TYPE_A), |_| Vec::new()).unwrap();
        assert_eq!(unknown[3] & 15, NO_SUCH_NAME);
    }

    #[test]
    fn what_is_no_question_gets_no_answer() {
        let (_, answered) = answer(&ask(TYPE_A), names).unwrap();
        assert_eq!(answer(&answered, names), None);
        for cut in 0..ask(TYPE_A).len() {
            assert_eq!(answer(&ask(TYPE_A)[..cut], names), None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            answer(&bytes, names);
            let mut question = bytes;
            if let Some(first) = question.first_chunk_mut::<6>() {
                *first = [0, 0, 1, 0, 0, 1];
            }
            answer(&question, names);
        }
    }
}

//! resolv.conf, read the way the C library reads it (`res_init` of glibc): what it does not understand it passes
//! over. Pure, and the file may be any bytes at all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Resolver;

/// Everything that may begin a line: resolv.conf(5), and two words of the BSDs that do no harm.
const KEYWORDS: [&str; 7] = ["nameserver", "domain", "search", "sortlist", "options", "lookup", "family"];

/// Lines complained of one by one.
const MAX_NOTES: usize = 5;

/// The servers in the order of the file, without duplicates, and a sentence about every line that was passed over.
///
/// All servers are taken, although glibc asks the first three alone: programs with a resolver of their own ask the
/// others too.
pub fn parse(text: &[u8]) -> (Vec<Resolver>, Vec<String>) {
    let mut resolvers = Vec::new();
    let mut notes = Vec::new();
    let mut passed_over = 0usize;
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = String::from_utf8_lossy(line);
        let (resolver, note) = read_line(&line);
        resolvers.extend(resolver.filter(|resolver| !resolvers.contains(resolver)));
        if let Some(note) = note {
            passed_over += 1;
            if passed_over <= MAX_NOTES {
                notes.push(format!("line {}: {note}", index + 1));
            }
        }
    }
    if passed_over > MAX_NOTES {
        notes.push(format!("{} more lines make no sense", passed_over - MAX_NOTES));
    }
    (resolvers, notes)
}

/// What a line says, and what should be said about it.
fn read_line(line: &str) -> (Option<Resolver>, Option<String>) {
    if line.starts_with(['#', ';']) {
        return (None, None);
    }
    let blank = |c: char| matches!(c, ' ' | '\t' | '\r');
    let keyword = line.split(blank).next().unwrap_or_default();
    if keyword == "nameserver" && line.len() > keyword.len() {
        let end = |c: char| blank(c) || matches!(c, '#' | ';');
        let value = line[keyword.len()..].trim_start_matches(blank).split(end).next().unwrap_or_default();
        return nameserver(value);
    }
    let note = match keyword {
        "" => line.trim_start_matches(blank).starts_with("nameserver").then(|| {
            "a nameserver line must not begin with a blank; the C library passes it over".to_owned()
        }),
        "nameserver" => Some("no address".to_owned()),
        keyword if KEYWORDS.contains(&keyword) => None,
        keyword => Some(format!("unknown keyword '{}'", shown(keyword))),
    };
    (None, note)
}

fn nameserver(value: &str) -> (Option<Resolver>, Option<String>) {
    if value.is_empty() {
        return (None, Some("no address".to_owned()));
    }
    if let Some(addr) = inet_aton(value) {
        return (Some(Resolver { addr: IpAddr::V4(here(addr)), zone: None }), None);
    }
    let (addr, zone) = match value.split_once('%') {
        Some((addr, zone)) => (addr, Some(zone)),
        None => (value, None),
    };
    let Ok(addr) = addr.parse::<Ipv6Addr>() else {
        return (None, Some(format!("'{}' is no IP address", shown(value))));
    };
    // A packet to an IPv4-mapped address is an IPv4 packet.
    if let Some(addr) = addr.to_ipv4_mapped() {
        return (Some(Resolver { addr: IpAddr::V4(here(addr)), zone: None }), None);
    }
    let note = zone.filter(|zone| !is_zone(zone)).map(|zone| {
        format!("the zone '{}' is no interface's name; the address is used without it", shown(zone))
    });
    let zone = zone.filter(|zone| is_zone(zone)).map(str::to_owned);
    let addr = if addr.is_unspecified() { Ipv6Addr::LOCALHOST } else { addr };
    (Some(Resolver { addr: IpAddr::V6(addr), zone }), note)
}

/// A packet to 0.0.0.0 leaves for the host itself.
fn here(addr: Ipv4Addr) -> Ipv4Addr {
    if addr.is_unspecified() { Ipv4Addr::LOCALHOST } else { addr }
}

/// Interface names are 1 to 15 bytes without blanks and slashes (`dev_valid_name` in the kernel); quotes and what
/// else could mean something in a rule's text are nobody's either.
fn is_zone(zone: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'@');
    (1..=15).contains(&zone.len()) && zone.bytes().all(good)
}

/// An IPv4 address as `inet_aton(3)` reads it: one to four numbers, each decimal, octal or hexadecimal as in C, the
/// last one filling all bytes that are left.
fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let parts = text.split('.').map(number).collect::<Option<Vec<_>>>()?;
    let (last, bytes) = parts.split_last()?;
    let room = 4u32.checked_sub(u32::try_from(bytes.len()).ok()?).filter(|room| *room > 0)?;
    if u64::from(*last) >= 1 << (8 * room) {
        return None;
    }
    let mut addr = *last;
    for (byte, shift) in bytes.iter().zip([24, 16, 8]) {
        addr |= u32::from(u8::try_from(*byte).ok()?) << shift;
    }
    Some(Ipv4Addr::from_bits(addr))
}

fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    // from_str_radix would let a sign pass.
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, radix).ok())?
}

/// Foreign text, short and without control characters.
fn shown(text: &str) -> String {
    const CHARS: usize = 40;
    let cut = text.chars().take(CHARS).flat_map(|c| {
        let escaped = c.is_control().then(|| c.escape_default());
        let plain = escaped.is_none().then_some(c);
        escaped.into_iter().flatten().chain(plain)
    });
    let dots = if text.chars().nth(CHARS).is_some() { "…" } else { "" };
    format!("{}{dots}", cut.collect::<String>())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The servers as `addr` or `addr%zone`.
    fn servers(text: &str) -> Vec<String> {
        let (resolvers, _) = parse(text.as_bytes());
        let zone =
            |resolver: &Resolver| resolver.zone.as_ref().map_or(String::new(), |zone| format!("%{zone}"));
        resolvers.iter().map(|resolver| format!("{}{}", resolver.addr, zone(resolver))).collect()
    }

    fn notes(text: &str) -> Vec<String> {
        parse(text.as_bytes()).1
    }

    #[test]
    fn an_ordinary_file() {
        let text = "# made by hand\n; really\ndomain example.org\nsearch a b\noptions edns0 no-such-option\n\
                    sortlist 10.0.0.0/8\n\nnameserver 10.0.0.2\nnameserver\t127.0.0.53 # local\nnameserver fd00::53\n";
        assert_eq!(servers(text), ["10.0.0.2", "127.0.0.53", "fd00::53"]);
        assert_eq!(notes(text), [""; 0]);
    }

    #[test]
    fn every_server_counts_once_and_in_order() {
        let text = "nameserver 4.4.4.4\nnameserver 1.1.1.1\nnameserver 4.4.4.4\nnameserver 3.3.3.3\nnameserver 2.2.2.2";
        assert_eq!(servers(text), ["4.4.4.4", "1.1.1.1", "3.3.3.3", "2.2.2.2"]);
    }

    #[test]
    fn zones_stay_with_their_address() {
        let text =
            "nameserver fe80::1%eth0\nnameserver fe80::1%eth1\nnameserver fe80::1\nnameserver fe80::2%2\n";
        assert_eq!(servers(text), ["fe80::1%eth0", "fe80::1%eth1", "fe80::1", "fe80::2%2"]);
        for bad in ["%", "%sixteen-letters-", "%a/b", "%a\"b"] {
            let text = format!("nameserver fe80::1{bad}\n");
            assert_eq!(servers(&text), ["fe80::1"], "{bad}");
        }
        assert_eq!(
            notes("nameserver fe80::1%a/b\n"),
            ["line 1: the zone 'a/b' is no interface's name; the address is used without it"]
        );
    }

    #[test]
    fn addresses_that_mean_another_one() {
        assert_eq!(servers("nameserver ::ffff:10.0.0.1"), ["10.0.0.1"]);
        assert_eq!(servers("nameserver 0.0.0.0\nnameserver ::"), ["127.0.0.1", "::1"]);
        assert_eq!(
            servers("nameserver 127.1\nnameserver 010.1.2.3\nnameserver 0x0a000001"),
            ["127.0.0.1", "8.1.2.3", "10.0.0.1"]
        );
    }

    #[test]
    fn numbers_that_are_no_address() {
        for bad in [
            "",
            ".",
            "1.2.3.4.5",
            "1.2.3.256",
            "256.1.1.1",
            "1.2.65536",
            "4294967296",
            "08.1.1.1",
            "0x",
            "+1.2.3.4",
            "1..2",
            "a",
            "1.2.3.4x",
            "::g",
            "fe80::1::2",
        ] {
            assert_eq!(servers(&format!("nameserver {bad}\n")), [""; 0], "{bad}");
            assert_eq!(notes(&format!("nameserver {bad}\n")).len(), 1, "{bad}");
        }
    }

    #[test]
    fn windows_line_ends_and_a_missing_last_one() {
        assert_eq!(servers("nameserver 1.1.1.1\r\n\r\nnameserver 2.2.2.2\r"), ["1.1.1.1", "2.2.2.2"]);
        assert_eq!(notes("nameserver 1.1.1.1\r\n\r\nnameserver 2.2.2.2\r"), [""; 0]);
    }

    #[test]
    fn what_the_c_library_passes_over_is_passed_over_with_a_note() {
        let text =
            " nameserver 1.1.1.1\nnameservers 2.2.2.2\nnameserver\nNameserver 3.3.3.3\nbad\x1bword x\n";
        assert_eq!(servers(text), [""; 0]);
        assert_eq!(
            notes(text),
            [
                "line 1: a nameserver line must not begin with a blank; the C library passes it over",
                "line 2: unknown keyword 'nameservers'",
                "line 3: no address",
                "line 4: unknown keyword 'Nameserver'",
                "line 5: unknown keyword 'bad\\u{1b}word'",
            ]
        );
    }

    #[test]
    fn a_file_of_nonsense_gets_a_few_notes() {
        let notes = notes(&"x\n".repeat(100));
        assert_eq!(notes.len(), 6);
        assert_eq!(notes[5], "95 more lines make no sense");
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            parse(&bytes);
        }

        #[test]
        fn no_text_breaks_it(text in "((nameserver|options|#|[0-9a-fx.:%]{0,12}|\\PC)[ \t\r]?\n?){0,30}") {
            parse(text.as_bytes());
        }

        #[test]
        fn every_address_is_read_back(addrs in proptest::collection::vec(any::<IpAddr>(), 0..9)) {
            let text = addrs.iter().fold(String::new(), |text, addr| format!("{text}nameserver {addr}\n"));
            let mut wanted = Vec::new();
            for addr in &addrs {
                let meant = match addr.to_canonical() {
                    IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
                    other => other,
                };
                if !wanted.contains(&meant) {
                    wanted.push(meant);
                }
            }
            let (resolvers, notes) = parse(text.as_bytes());
            let read = resolvers.iter().map(|resolver| resolver.addr).collect::<Vec<_>>();
            prop_assert_eq!(read, wanted);
            prop_assert!(notes.is_empty());
        }
    }
}

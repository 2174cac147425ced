//! Netlink attributes: a length, a kind and a value, one after the other, or one within another. Pure, and what is
//! read may be any bytes at all.
//!
//! The layout is that of `struct nlattr` in the kernel's `include/uapi/linux/netlink.h`.

/// Length and kind.
const HEADER: usize = 4;
/// The upper bits of a kind are flags.
const KIND: u16 = 0x3fff;
/// `NLA_F_NESTED`: the value is attributes itself.
const NESTED: u16 = 0x8000;

/// The kind and value of each attribute; ends where no further one can be made out.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
        let attribute = (kind & KIND, rest.get(HEADER..length)?);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(attribute)
    })
}

/// The value of the first attribute of that kind.
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(of, _)| *of == kind).map(|(_, value)| value)
}

/// The same as a number in network byte order.
pub fn find_u32(bytes: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(*find(bytes, kind)?.first_chunk()?))
}

/// The same as a text, which a zero ends.
pub fn find_text(bytes: &[u8], kind: u16) -> Option<String> {
    let text = find(bytes, kind)?.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// The longest value that the kernel reads, in bytes.
const LONGEST: usize = u16::MAX as usize - HEADER;

/// Room for what most are: a transaction is made of hundreds, and to grow costs more than to write.
const ROOM: usize = 64;

/// Attributes as they are written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// None yet.
    pub fn new() -> Self {
        Self(Vec::with_capacity(ROOM))
    }

    /// One more. The kernel reads no value of more than 65,531 bytes; a longer one is cut off, which it refuses.
    #[must_use]
    pub fn bytes(self, kind: u16, value: &[u8]) -> Self {
        self.ended(kind, value, &[])
    }

    /// One more, whose value has an end of its own.
    fn ended(mut self, kind: u16, value: &[u8], end: &[u8]) -> Self {
        let value = value.get(..LONGEST - end.len()).unwrap_or(value);
        let length = HEADER + value.len() + end.len();
        self.0.reserve(length.next_multiple_of(4));
        self.0.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.extend_from_slice(end);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// A number in network byte order.
    #[must_use]
    pub fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// A text and the zero that ends it.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Self {
        self.ended(kind, value.as_bytes(), &[0])
    }

    /// Others as the value of one.
    #[must_use]
    pub fn nested(self, kind: u16, value: &Self) -> Self {
        self.bytes(kind | NESTED, &value.0)
    }

    /// How many bytes they are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&[u8]> for Attributes {
    /// Those that were read.
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<Attributes> for Vec<u8> {
    fn from(attributes: Attributes) -> Self {
        attributes.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let inner = Attributes::new().number(7, 0x0102_0304);
        let bytes: Vec<u8> = Attributes::new().text(1, "abc").bytes(2, &[9]).nested(3, &inner).into();
        assert_eq!(find_text(&bytes, 1).as_deref(), Some("abc"));
        assert_eq!(find(&bytes, 2), Some(&[9][..]));
        assert_eq!(find(&bytes, 3).and_then(|inner| find_u32(inner, 7)), Some(0x0102_0304));
        assert_eq!(find(&bytes, 4), None);
        let kinds: Vec<u16> = attributes(&bytes).map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [1, 2, 3]);
    }

    #[test]
    fn a_value_that_is_too_long_is_cut_off_in_one_piece() {
        let bytes: Vec<u8> = Attributes::new().bytes(1, &vec![7; 70_000]).bytes(2, &[8]).into();
        assert_eq!(find(&bytes, 1).map(<[u8]>::len), Some(65_531));
        assert_eq!(find(&bytes, 2), Some(&[8][..]));
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for kind in 0..5 {
                find_text(&bytes, kind);
                find_u32(&bytes, kind);
            }
            prop_assert!(attributes(&bytes).count() <= bytes.len() / 4 + 1);
        }
    }
}

//! Writing RLP. The crate `rlp` does the work; its types stay inside.

/// Writes one item. A list says beforehand how many items it will hold.
///
/// ```
/// let mut encoder = poste_codec::rlp::Encoder::new();
/// encoder.list(2).uint(0).bytes(b"dog");
/// assert_eq!(encoder.finish(), [0xc5, 0x80, 0x83, b'd', b'o', b'g']);
/// ```
#[derive(Default)]
pub struct Encoder {
    stream: rlp::RlpStream,
}

impl Encoder {
    /// An encoder that has written nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a list; the next `items` items are inside it.
    pub fn list(&mut self, items: usize) -> &mut Self {
        self.stream.begin_list(items);
        self
    }

    /// A string.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.stream.append(&bytes);
        self
    }

    /// An unsigned integer: big-endian without leading zeros, zero as the empty string.
    pub fn uint(&mut self, value: u64) -> &mut Self {
        self.stream.append(&value);
        self
    }

    /// 0x01 or 0x80.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.uint(u64::from(value))
    }

    /// An item that is encoded already.
    pub fn raw(&mut self, item: &[u8]) -> &mut Self {
        self.stream.append_raw(item, 1);
        self
    }

    /// The encoding.
    ///
    /// # Panics
    /// When a list was given fewer items than it announced: that is a defect of the caller, never of input.
    pub fn finish(self) -> Vec<u8> {
        self.stream.out().into()
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("bytes", &self.stream.len()).finish_non_exhaustive()
    }
}

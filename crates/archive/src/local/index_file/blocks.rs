//! Reads of whole blocks, each verified.

use std::io;
use std::sync::Arc;

use poste_journal::{DiskFile, read_exact_at};

use super::format::{
    BLOCK_BYTES, CONTENT_BYTES, Footer, MAGIC, MAX_FOOTER_BYTES, Seal, TRAILER_BYTES, footer_blocks, u32_at,
};
use super::{IndexError, IndexKey, invalid};

/// Blocks that one call of the disk reads where many are wanted.
const BLOCKS_PER_READ: u32 = 64;

/// A file that consists of blocks.
#[derive(Debug)]
pub(super) struct Blocks {
    file: Arc<dyn DiskFile>,
    seal: Seal,
    file_bytes: u64,
}

impl Blocks {
    pub(super) fn of(file: Arc<dyn DiskFile>, key: &IndexKey) -> Result<Self, IndexError> {
        let file_bytes = file.len()?;
        let whole = file_bytes > 0 && file_bytes.is_multiple_of(BLOCK_BYTES as u64);
        if !whole || u32::try_from(file_bytes / BLOCK_BYTES as u64).is_err() {
            return Err(invalid(format!("a length of {file_bytes} bytes")));
        }
        Ok(Self { file, seal: Seal::of(key), file_bytes })
    }

    /// Reads one block. The buffer holds nothing of use when this fails.
    pub(super) fn read(&self, number: u32, block: &mut [u8; BLOCK_BYTES]) -> Result<(), IndexError> {
        self.read_bytes(number, block)?;
        self.check(number, block)
    }

    /// Reads blocks in their order; `each` gets their contents.
    pub(super) fn scan(
        &self,
        first: u32,
        count: u32,
        mut each: impl FnMut(&[u8]) -> Result<(), IndexError>,
    ) -> Result<(), IndexError> {
        let end = first + count;
        let mut buffer = vec![0; count.min(BLOCKS_PER_READ) as usize * BLOCK_BYTES];
        let mut number = first;
        while number < end {
            let piece = &mut buffer[..(end - number).min(BLOCKS_PER_READ) as usize * BLOCK_BYTES];
            self.read_bytes(number, piece)?;
            for block in piece.as_chunks::<BLOCK_BYTES>().0 {
                self.check(number, block)?;
                each(&block[..CONTENT_BYTES])?;
                number += 1;
            }
        }
        Ok(())
    }

    /// As [`Blocks::scan`], item by item: `items` of `N` bytes from block `first` on.
    pub(super) fn scan_items<const N: usize>(
        &self,
        first: u32,
        items: u32,
        mut each: impl FnMut(&[u8; N]) -> Result<(), IndexError>,
    ) -> Result<(), IndexError> {
        let mut left = items as usize;
        let blocks = left.div_ceil(CONTENT_BYTES / N) as u32;
        self.scan(first, blocks, |content| {
            let items = content.as_chunks::<N>().0;
            let items = &items[..items.len().min(left)];
            left -= items.len();
            items.iter().try_for_each(&mut each)
        })
    }

    /// Reads the footer.
    pub(super) fn footer(&self, key: &IndexKey) -> Result<Footer, IndexError> {
        let blocks = (self.file_bytes / BLOCK_BYTES as u64) as u32;
        let mut last = [0; BLOCK_BYTES];
        self.read(blocks - 1, &mut last)?;
        let trailer = &last[CONTENT_BYTES - TRAILER_BYTES..CONTENT_BYTES];
        let footer_bytes = u32_at(trailer, 0) as usize;
        if !trailer.ends_with(MAGIC) || footer_bytes > MAX_FOOTER_BYTES {
            return Err(invalid("no footer"));
        }
        let first = blocks.checked_sub(footer_blocks(footer_bytes)).ok_or_else(|| invalid("no footer"))?;
        let mut bytes = Vec::with_capacity(footer_bytes + CONTENT_BYTES);
        self.scan(first, blocks - first, |content| {
            bytes.extend_from_slice(content);
            Ok(())
        })?;
        bytes.truncate(footer_bytes);
        Footer::decode(&bytes, key, self.file_bytes).map_err(IndexError::Invalid)
    }

    fn read_bytes(&self, number: u32, bytes: &mut [u8]) -> Result<(), IndexError> {
        let offset = u64::from(number) * BLOCK_BYTES as u64;
        read_exact_at(self.file.as_ref(), bytes, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => invalid(format!("it ends before block {number}")),
            _ => IndexError::Io(error),
        })
    }

    fn check(&self, number: u32, block: &[u8; BLOCK_BYTES]) -> Result<(), IndexError> {
        let good = self.seal.verifies(number, block);
        good.then_some(()).ok_or_else(|| invalid(format!("block {number} is damaged or not of this file")))
    }
}

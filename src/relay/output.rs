//! What to write next: ranges of the read buffer as they lie, with a few bytes of our own between them.

use std::io::{self, IoSlice};
use std::ops::Range;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// What is kept from write to write, in bytes of our own and in pieces; more is given back.
const KEPT_BYTES: usize = 64 * 1024;
const KEPT_PIECES: usize = 1024;
/// So many are told to the kernel without an allocation.
const FEW_PIECES: usize = 8;

/// Pieces of one `write`, in order. Reused from read to read, so that the steady state allocates nothing.
#[derive(Debug, Default)]
pub struct Output {
    own: Vec<u8>,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// A range of the read buffer.
    Input(Range<usize>),
    /// A range of `own`.
    Own(Range<usize>),
}

impl Output {
    /// Passes a range of the read buffer on.
    pub fn pass(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        match self.pieces.last_mut() {
            Some(Piece::Input(last)) if last.end == range.start => last.end = range.end,
            _ => self.pieces.push(Piece::Input(range)),
        }
    }

    /// Puts bytes of our own in.
    pub fn insert(&mut self, bytes: &[u8]) {
        let start = self.own.len();
        self.own.extend_from_slice(bytes);
        let end = self.own.len();
        if let Some(Piece::Own(last)) = self.pieces.last_mut() {
            last.end = end;
            return;
        }
        self.pieces.push(Piece::Own(start..end));
    }

    /// Forgets everything, and gives back what one large write has taken.
    pub fn clear(&mut self) {
        self.own.clear();
        self.own.shrink_to(KEPT_BYTES);
        self.pieces.clear();
        self.pieces.shrink_to(KEPT_PIECES);
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.pieces
            .iter()
            .map(|piece| match piece {
                Piece::Input(range) | Piece::Own(range) => range.len(),
            })
            .sum()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Everything in one piece.
    #[cfg(any(test, fuzzing))]
    pub fn to_vec(&self, input: &[u8]) -> Vec<u8> {
        self.slices(input).flat_map(|slice| slice.to_vec()).collect()
    }

    /// Writes everything, in as few writes as the writer takes, and flushes. Not cancel-safe: dropped in mid-write
    /// it leaves a part written.
    pub async fn write_to(&mut self, input: &[u8], writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        if !self.is_empty() {
            let (mut few, mut many) = ([IoSlice::new(&[]); FEW_PIECES], Vec::new());
            let mut left = if self.pieces.len() <= FEW_PIECES {
                few.iter_mut().zip(self.slices(input)).for_each(|(slot, slice)| *slot = slice);
                few.get_mut(..self.pieces.len()).unwrap_or_default()
            } else {
                many.extend(self.slices(input));
                many.as_mut_slice()
            };
            while !left.is_empty() {
                let written = writer.write_vectored(left).await?;
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                IoSlice::advance_slices(&mut left, written);
            }
            writer.flush().await?;
        }
        self.clear();
        Ok(())
    }

    fn slices<'a>(&'a self, input: &'a [u8]) -> impl Iterator<Item = IoSlice<'a>> {
        let bytes = |piece: &Piece| match piece {
            Piece::Input(range) => input.get(range.clone()),
            Piece::Own(range) => self.own.get(range.clone()),
        };
        self.pieces.iter().map(move |piece| IoSlice::new(bytes(piece).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn adjacent_ranges_become_one_and_order_is_kept() {
        let mut output = Output::default();
        output.pass(0..2);
        output.pass(2..4);
        output.insert(b"<");
        output.insert(b">");
        output.pass(4..4);
        output.pass(4..6);
        assert_eq!(output.pieces.len(), 3);
        assert_eq!((output.len(), output.to_vec(b"abcdef")), (8, b"abcd<>ef".to_vec()));
        let mut written = Vec::new();
        output.write_to(b"abcdef", &mut written).await.unwrap();
        assert_eq!((written, output.is_empty()), (b"abcd<>ef".to_vec(), true));
    }

    #[test]
    fn what_one_large_write_has_taken_is_given_back() {
        let mut output = Output::default();
        for at in 0..10_000 {
            output.pass(at * 2..at * 2 + 1);
            output.insert(&[0; 100]);
        }
        output.clear();
        assert!(output.own.capacity() <= KEPT_BYTES && output.pieces.capacity() <= KEPT_PIECES);
    }
}

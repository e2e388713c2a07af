//! From two text files, and what cuts them into subwords, to a store of pairs.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::Crc;
use rayon::prelude::*;

use super::{Filter, Pair, PairStore, ParallelLines, Subwords};
use crate::error::{Error, Result};
use crate::limits::Budget;

/// The ids of a sentence and of its translation, both with `</s>` at the end.
pub type PairIds = (Vec<u32>, Vec<u32>);

/// Pairs that are encoded at a time, on several threads, and the bytes of text that end a piece earlier.
const PIECE: usize = 1024;
const PIECE_BYTES: usize = 1 << 20;

/// Raised with each change of the rules by which text becomes tokens and ids: what was made by others is made anew.
pub const RULES: u64 = 4;

/// What a store of pairs is made of.
#[derive(Debug, Clone, Copy)]
pub struct PairTexts<'a> {
    /// A sentence a line, plain or gzipped.
    pub source: &'a Path,
    /// Their translations.
    pub target: &'a Path,
    /// What cuts the source; of joint subwords the same as of the target.
    pub source_subwords: &'a Subwords,
    /// What cuts the target.
    pub target_subwords: &'a Subwords,
    /// Which pairs are kept, by their number of subwords.
    pub filter: Filter,
}

impl PairTexts<'_> {
    /// A number that differs where other ids would come of the text: of the bytes of both files (which are read for
    /// it, as they are on the disk), of the subwords and of the filter. Names and places of files do not matter.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn fingerprint(&self) -> Result<u64> {
        let mut fingerprint = Fingerprint::default();
        fingerprint.number(RULES);
        fingerprint.file(self.source)?;
        fingerprint.file(self.target)?;
        self.source_subwords.describe(&mut fingerprint)?;
        self.target_subwords.describe(&mut fingerprint)?;
        fingerprint.number(self.filter.max_length as u64);
        fingerprint.number(self.filter.max_ratio.to_bits());
        Ok(fingerprint.0)
    }

    /// The store in the file `out`: opened if it is there, else built, see [`PairStore::build`].
    ///
    /// # Errors
    /// For the reasons of [`PairStore::open`], so if the file there was made of something else; of
    /// [`PairStore::build`] and [`ParallelLines`]; and if the filter is out of range.
    pub fn open_or_build(&self, out: &Path) -> Result<PairStore> {
        match out.exists() {
            true => PairStore::open(out, self.fingerprint()?),
            false => self.build(out),
        }
    }

    /// The store in the file `out`, built even if there is one.
    ///
    /// # Errors
    /// As [`PairTexts::open_or_build`].
    pub fn build(&self, out: &Path) -> Result<PairStore> {
        let sizes = (
            self.source_subwords.vocab_size(),
            self.target_subwords.vocab_size(),
        );
        PairStore::build(out, self.fingerprint()?, sizes, self.pairs()?)
    }

    /// The pairs in memory, for small data: at most 4,194,304 of them and 512 MiB of ids.
    ///
    /// # Errors
    /// If there are more, or none, for the reasons of [`ParallelLines`], and if the filter is out of range.
    pub fn in_memory(&self) -> Result<PairStore> {
        let mut budget = Budget::default();
        let mut all = Vec::new();
        for pair in self.pairs()? {
            let pair = pair?;
            budget.take(self.source, 4 * (pair.0.len() + pair.1.len()))?;
            all.push(pair);
        }
        PairStore::in_memory(all)
    }

    fn pairs(&self) -> Result<Encoded<'_>> {
        self.filter.check()?;
        Ok(Encoded {
            texts: *self,
            lines: ParallelLines::open(self.source, self.target)?,
            ready: VecDeque::new(),
        })
    }
}

/// The ids of pairs in memory, in their order, without those that the filter drops.
///
/// # Errors
/// If a line is too long, see [`Subwords::encode`], with the pair's number from 0; or the filter is out of range.
pub fn encode_pairs(
    pairs: &[Pair],
    source: &Subwords,
    target: &Subwords,
    filter: &Filter,
) -> Result<Vec<PairIds>> {
    filter.check()?;
    let mut all = Vec::new();
    for (piece, number) in pairs.chunks(PIECE).zip((0..).step_by(PIECE)) {
        let encode = |pair: &Pair| encode(pair, source, target, filter);
        let made: Vec<Result<Option<PairIds>>> = piece.par_iter().map(encode).collect();
        for (pair, number) in made.into_iter().zip(number..) {
            all.extend(pair.map_err(|why| in_pair(number, &why))?);
        }
    }
    Ok(all)
}

fn in_pair(number: usize, why: &Error) -> Error {
    Error::Batch {
        reason: format!("pair {number}, counted from 0: {why}"),
    }
}

/// The ids of a pair; `None` if the filter drops it.
fn encode(
    pair: &Pair,
    source: &Subwords,
    target: &Subwords,
    filter: &Filter,
) -> Result<Option<PairIds>> {
    let (mut first, mut second) = (source.encode(&pair.source)?, target.encode(&pair.target)?);
    if !filter.keeps(first.len(), second.len()) {
        return Ok(None);
    }
    // No more memory than for the ids: there are millions of them.
    first.reserve_exact(1);
    second.reserve_exact(1);
    first.push(source.eos());
    second.push(target.eos());
    Ok(Some((first, second)))
}

/// The pairs of the files as ids, encoded some at a time.
struct Encoded<'a> {
    texts: PairTexts<'a>,
    lines: ParallelLines,
    ready: VecDeque<Result<PairIds>>,
}

impl Encoded<'_> {
    /// Encodes the next lines; false if there are none. An error comes behind the pairs before it.
    fn fill(&mut self) -> bool {
        let (mut piece, mut bytes, mut error) = (Vec::new(), 0, None);
        while piece.len() < PIECE && bytes < PIECE_BYTES {
            match self.lines.next() {
                Some(Ok(pair)) => {
                    bytes += pair.source.len() + pair.target.len();
                    piece.push(pair);
                }
                Some(Err(failed)) => {
                    error = Some(failed);
                    break;
                }
                None => break,
            }
        }
        let PairTexts {
            source_subwords,
            target_subwords,
            filter,
            ..
        } = self.texts;
        let made = encode_pairs(&piece, source_subwords, target_subwords, &filter);
        let any = !piece.is_empty() || error.is_some();
        match made {
            Ok(pairs) => self.ready.extend(pairs.into_iter().map(Ok)),
            Err(failed) => self.ready.push_back(Err(failed)),
        }
        self.ready.extend(error.map(Err));
        any
    }
}

impl Iterator for Encoded<'_> {
    type Item = Result<PairIds>;

    fn next(&mut self) -> Option<Result<PairIds>> {
        while self.ready.is_empty() {
            if !self.fill() {
                return None;
            }
        }
        self.ready.pop_front()
    }
}

/// A number for any content: FNV-1a, with the length of each part before it.
pub(super) struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    pub(super) fn number(&mut self, number: u64) {
        self.mix(&number.to_le_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.mix(bytes);
    }

    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// A file by its length and checksum, which is faster for gigabytes.
    fn file(&mut self, path: &Path) -> Result<()> {
        let failed = |e| Error::io(path, e);
        let mut file = File::open(path).map_err(failed)?;
        let (mut crc, mut length) = (Crc::new(), 0);
        let mut buffer = vec![0; 1 << 18];
        loop {
            let count = file.read(&mut buffer).map_err(failed)?;
            if count == 0 {
                break;
            }
            crc.update(&buffer[..count]);
            length += count as u64;
        }
        self.number(length);
        self.number(u64::from(crc.sum()));
        Ok(())
    }
}

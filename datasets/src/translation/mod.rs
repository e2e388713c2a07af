//! Parallel text: sentences in one language, and their translations.
//!
//! ```text
//! parallel (pairs of lines) ──> subwords (token ids) ──> store (ids on the disk) ──> batches (order, tensors)
//!   ↑ two text files, parquet     ↑ learned,               ↑ filter by length
//!                                   or dictionary and codes
//!
//! moses (tokens) ──> codes (pieces, "@@") ──> dictionary (ids)          what fairseq's data were made with
//!                                               binary (.bin, .idx)     and how they lie on the disk
//! ```
//!
//! * [`read_parallel`], [`ParallelLines`] and [`read_parquet`] read pairs, [`Filter`] says which are kept;
//! * [`Subwords`] turns a line into ids and ids into a line: [`learn_subwords`] learns a joint vocabulary of
//!   both languages, [`Subwords::fairseq`] takes a [`Dictionary`] and [`BpeCodes`];
//! * [`Moses`] splits punctuation off, and puts it back;
//! * [`FairseqBinary`] reads what `fairseq-preprocess` wrote;
//! * [`PairTexts`] makes a [`PairStore`] of two text files: token ids, mapped into memory;
//! * [`TokenBatcher`] decides which pairs make up a batch of at most so many tokens, a pure function of
//!   `(seed, epoch, lengths)`, and [`TranslationBatches`] makes the [`TranslationBatch`]es.
//!
//! Ids of a line come without an end; those of a store end with [`Subwords::eos`], on both sides.
//!
//! ```
//! use candle_core::Device;
//! use datasets::Batches;
//! use datasets::translation::{
//!     Filter, Pair, PairStore, TokenBatcher, TranslationBatches, encode_pairs, learn_subwords,
//! };
//!
//! # fn main() -> datasets::Result<()> {
//! let pairs = [
//!     Pair::new("ein Haus", "a house"),
//!     Pair::new("das Haus ist alt", "the house is old"),
//! ];
//! let lines = pairs.iter().flat_map(|pair| [&pair.source, &pair.target]);
//! let subwords = learn_subwords(lines, 60)?;
//! let ids = encode_pairs(&pairs, &subwords, &subwords, &Filter::NONE)?;
//! let store = PairStore::in_memory(ids)?;
//! let batcher = TokenBatcher {
//!     max_tokens: 100,
//!     ..TokenBatcher::default()
//! };
//! let batches = TranslationBatches::new(store, batcher, subwords.pad(), &Device::Cpu)?;
//! let batch = batches.get(0, 0)?;
//! assert_eq!(batch.source.dims()[0], 2);
//! assert_eq!(batch.previous.dims(), batch.labels.dims());
//! # Ok(())
//! # }
//! ```

mod batch;
mod batcher;
mod batches;
mod binary;
mod codes;
mod detokenize;
mod dictionary;
mod filter;
mod layout;
mod learn;
mod learned;
mod merge;
mod moses;
mod parallel;
mod parquet;
mod prefixes;
mod store;
mod subwords;
mod texts;
pub(crate) mod write;
mod writer;

#[cfg(test)]
mod tests;

pub use batch::TranslationBatch;
pub use batcher::TokenBatcher;
pub use batches::TranslationBatches;
pub use binary::FairseqBinary;
pub use codes::{BpeCodes, remove_marks};
pub use dictionary::Dictionary;
pub use filter::Filter;
pub use learn::{learn_subwords, try_learn_subwords};
pub use moses::{Language, Moses, lower_case};
pub use parallel::{Pair, ParallelLines, read_parallel};
pub use parquet::{read_parquet, read_parquet_folder};
pub use store::PairStore;
pub use subwords::Subwords;
pub use texts::{PairIds, PairTexts, RULES, encode_pairs};

use std::path::Path;

use crate::error::{Error, Place};

/// What to do about a file that is not what its place in a data set asks for.
const FETCH: &str = "fetch or make the file again";

/// An error of a file of token ids.
fn token_file(
    path: &Path,
    got: impl Into<String>,
    expected: impl Into<String>,
    hint: &'static str,
) -> Error {
    Error::TokenFile {
        path: path.to_path_buf(),
        expected: expected.into(),
        got: got.into(),
        hint,
    }
}

/// An error of a line of a dictionary or of merges.
fn bad_line(path: &Path, line: usize, got: String, expected: &str) -> Error {
    Error::WordLine {
        path: path.to_path_buf(),
        place: Place::Line(line),
        expected: expected.to_string(),
        got,
    }
}

/// What Python's `str.split` without arguments, and so fairseq, takes as blank.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

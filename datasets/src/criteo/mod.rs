//! Criteo's click logs: the Kaggle contest of 2014 (45,840,617 rows) and the 24 days of a terabyte.
//!
//! ```text
//! train.txt, day_0.gz … ──prepare──> store (records of 160 bytes) ──days, split──> batches (tensors)
//!   ↑ generate                └─────> vocabulary ──prepare_with──> stores of other files
//! ```
//!
//! A line has a label (1 if the advertisement was clicked), 13 counts and 26 categorical values,
//! separated by tabs; `test.txt` has no labels. [`prepare()`] makes a [`Store`] of it, once, with the
//! preprocessing of Facebook's DLRM (Naumov et al., 2019; see [`Preprocessing`]), and goes on where
//! it was interrupted; a store opens at once and its rows stay on the disk until a batch wants them.
//!
//! * [`prepare()`] and [`prepare_with`] read the text; [`Vocabularies`] give later files the same ids;
//! * [`Store::days`] and [`Store::split`] say what is for training, [`ClickBatches`] in which order;
//! * [`generate()`] writes logs of clicks in the same format with a known model, [`Planted`].
//!
//! ```
//! use candle_core::Device;
//! use datasets::Batches;
//! use datasets::criteo::{ClickBatches, Preprocessing, generate, prepare};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! let text = folder.join("train.txt");
//! generate(1000, 7, &mut std::fs::File::create(&text)?)?;
//! let store = prepare(&[text], &folder.join("train.clicks"), &Preprocessing::default(), |_| ())?;
//! let days = store.days(7)?;
//! let batches = ClickBatches {
//!     store,
//!     rows: days.train,
//!     batch_size: 128,
//!     shuffle: Some(1),
//!     drop_last: false,
//!     device: Device::Cpu,
//! };
//! let batch = batches.get(0, 0)?;
//! assert_eq!(batch.dense.dims(), [128, 13]);
//! assert_eq!(batch.ids.len(), 128 * 26);
//! # Ok(())
//! # }
//! ```

mod appearances;
mod batches;
mod begin;
mod behind;
mod chunk;
mod column;
mod fields;
pub(crate) mod files;
mod generate;
mod header;
mod journal;
mod numbering;
mod permutation;
mod planted;
mod positions;
mod prepare;
mod preprocessing;
mod progress;
mod rare;
mod reading;
mod record;
mod row;
mod split;
mod store;
mod text;
mod vocabulary;

pub use batches::{ClickBatch, ClickBatches};
pub use generate::{Generated, generate, generate_rows, generate_store};
pub use header::{Skipped, SourceFile, Summary, VocabularyFile};
pub use planted::Planted;
#[doc(hidden)]
pub use prepare::prepare_noting;
pub use prepare::{prepare, prepare_with};
pub use preprocessing::{Malformed, Preprocessing};
pub use progress::{Phase, Progress};
pub use row::Row;
pub use split::{Days, Part};
pub use store::Store;
pub use vocabulary::Vocabularies;

/// Counts in a row.
pub const INTEGERS: usize = 13;
/// Categorical values in a row, and so tables of embeddings.
pub const CATEGORIES: usize = 26;

/// The name of a file without its folder.
fn file_name(path: &std::path::Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014), a bijection that scatters its input.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

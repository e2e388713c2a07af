//! Data sets for training on candle: from files to batches of tensors.
//!
//! ```text
//! glue (rows) ──> text (token ids) ──> dataset (examples) ──> batcher (order) ──> collate (tensors)
//!   ↑ folder, parquet, hub, sample
//!
//! conll (sentences) ──> text (pieces of words) ──> conll (examples) ──> batcher (order) ──> conll (tensors)
//!   ↑ text, sample
//!
//! translation (pairs of lines) ──> subwords (token ids) ──> store (ids on the disk) ──> batches (order, tensors)
//!   ↑ text, parquet, fairseq
//!
//! masked (lines) ──> text (token ids) ──> masked (sequences, what is hidden) ──> batcher (order) ──> masked (tensors)
//!
//! cifar10, imagenet ──> image (pictures) ──> batcher (order) ──> augment ──> batches (tensors)
//!   ↑ binary, folder, parquet, hub
//!
//! criteo (lines) ──> store (records on the disk) ──> batches (order, tensors)
//!   ↑ text, generator
//! ```
//!
//! Text:
//!
//! * [`glue`] reads the GLUE tasks from the folder layout of the GLUE download, from parquet files
//!   and from the Hugging Face Hub;
//! * [`conll`] reads sentences whose words have labels and makes batches of them;
//! * [`translation`] reads sentences and their translations, learns subwords of both languages or takes fairseq's,
//!   and makes batches of at most so many tokens;
//! * [`masked`] cuts text without labels into sequences and hides a share of their tokens;
//! * [`sample`] holds small data sets that come with the crate, so that everything runs offline;
//! * [`text`] turns rows into token ids, [`wordpiece`] learns a vocabulary where there is none;
//! * [`mod@collate`] pads a batch to its longest example and puts it on a device.
//!
//! Pictures:
//!
//! * [`cifar10`] reads the binary version, class folders and parquet into memory;
//! * [`imagenet`] finds class folders, Tiny ImageNet and parquet, and decodes when a batch wants it;
//! * [`image`] has augmentations, which are functions of `(seed, epoch, index)`, and batches.
//!
//! Clicks:
//!
//! * [`criteo`] turns click logs of any size into files of records, with vocabularies, and those
//!   into batches.
//!
//! All:
//!
//! * [`hub`] fetches single files into the shared cache, or reads them from it offline;
//! * [`batcher`] decides the order of the examples as a pure function of `(seed, epoch)`;
//! * [`Batches`] is what a training loop asks for them, [`Ahead`] makes those of any kind ahead of the step
//!   and tells how long that had to wait;
//! * [`limits`] says how much of a file is believed, so that a damaged one costs an error and no more.
//!
//! Nothing here prints, and nothing depends on what ran before.
//!
//! ```
//! use datasets::batcher::Batcher;
//! use datasets::dataset::TextDataset;
//! use datasets::glue::{GlueTask, Split};
//! use datasets::text::TextEncoder;
//! use datasets::{sample, wordpiece};
//!
//! # fn main() -> datasets::Result<()> {
//! let rows = sample::rows(GlueTask::Sst2, Split::Train)?.unwrap_or_default();
//! let texts = rows.iter().map(|row| row.first.as_str());
//! let encoder = TextEncoder::new(wordpiece::learn_wordpiece(texts, 500)?, 32)?;
//! let data = TextDataset::encode(&encoder, &rows)?;
//! let batcher = Batcher { batch_size: 16, seed: 1, ..Batcher::default() };
//! let order = batcher.order(&data.lengths(), 0);
//! let batch = data.batch(&order[0], &candle_core::Device::Cpu)?;
//! assert_eq!(batch.input_ids.dims()[0], 16);
//! # Ok(())
//! # }
//! ```

mod ahead;
mod around;
pub mod batcher;
mod batches;
mod border;
mod byte_level;
pub mod cifar10;
pub mod collate;
pub mod conll;
pub mod criteo;
pub mod dataset;
mod error;
mod excerpt;
mod expansion;
pub mod glue;
pub mod hub;
mod id_store;
pub mod image;
pub mod imagenet;
pub mod limits;
mod lines;
mod lock;
pub mod masked;
mod pages;
mod plain_text;
pub mod prefetch;
mod random;
pub mod sample;
mod shards;
mod split;
pub mod text;
mod text_batches;
mod tokenizer_config;
pub mod translation;
pub mod wordpiece;
pub mod words;

pub use ahead::Ahead;
pub use batcher::Batcher;
pub use batches::{Batches, FixedBatches, LabelledBatch, TensorBatch, UNLABELLED};
pub use collate::{TextBatch, collate};
pub use conll::{Corpus, LabelSet, Sentence, TokenBatch, TokenDataset};
pub use dataset::TextDataset;
pub use error::{Error, Place, Result};
pub use glue::{GlueCorpus, GlueTask, Label, Row};
pub use hub::{Hub, RepoKind};
pub use image::{Augment, Crop, Image, ImageBatch, ImageBatches, ImageDataset, OnCorrupt};
pub use masked::{MaskedBatch, MaskedBatches, Masking, Packed, Pairing, Pairs};
pub use prefetch::{Prefetch, Waited};
pub use split::Split;
pub use text::{Encoded, TextEncoder, WordPieces};
pub use text_batches::TextBatches;

//! Text without labels, for masked language models: a share of the tokens is hidden, and the model is to say them.
//!
//! ```text
//! file (lines) ──> pieces ──> packed (one run of ids, cut into sequences) ──> masking ──> batches (tensors)
//! ```
//!
//! [`TextFile`] reads lines, WikiText's prepared ones as prose; [`Packed`] cuts what the tokenizer makes of them, in memory or
//! in a file that is mapped into it, into sequences of one length, `[CLS] … [SEP]`; [`Masking`] chooses what is hidden, anew in every epoch, as a function of
//! (seed, epoch, sequence); [`Pairing`] makes two parts of a sequence, of which the model is to tell whether they belong
//! together; [`MaskedBatches`] makes batches of all that.

mod batch;
mod choice;
mod file;
mod packed;
mod pairing;

pub use batch::{MaskedBatch, MaskedBatches, Pairs};
pub use choice::Masking;
pub use file::TextFile;
pub use packed::{Packed, Pieces};
pub use pairing::Pairing;

//! What stands on an encoder: a classifier of sequences, one of tokens, a masked language model.

mod masked;
mod sequence;
mod token;

pub(crate) use masked::MaskedHead;
pub use masked::{MaskedLanguageModel, WordsAndPairs};
pub(crate) use sequence::ClassifierHead;
pub use sequence::{Outputs, Problem, SequenceClassifier};
pub use token::TokenClassifier;
pub(crate) use token::TokenHead;

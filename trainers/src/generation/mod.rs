//! Generated sequences: searching for them and scoring them.
//!
//! * [`BeamSearch`] asks a [`Decoder`] for the most probable sequences, by fairseq's rule;
//! * [`multi_bleu`] and [`sacre_bleu`] score translations, equal to Moses' multi-bleu.perl and to sacreBLEU;
//! * [`perplexity`] is the score of a language model;
//! * [`average`] and [`average_newest`] make the mean of the variables of several checkpoints.

mod average;
mod beam;
mod bleu;
mod decoder;
mod hypotheses;
mod multi_bleu;
mod perplexity;
mod sacre_bleu;
mod settings;
mod statistics;
#[cfg(test)]
mod tests;
mod tokenise_13a;
mod top;

pub use average::{average, average_newest};
pub use bleu::{Bleu, Smoothing};
pub use decoder::Decoder;
pub use hypotheses::Hypothesis;
pub use multi_bleu::{MultiBleu, multi_bleu};
pub use perplexity::perplexity;
pub use sacre_bleu::{SacreBleu, Tokeniser, sacre_bleu};
pub use settings::BeamSearch;
pub use statistics::{BleuStatistics, ORDERS};
pub use tokenise_13a::tokenise_13a;

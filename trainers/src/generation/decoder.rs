//! What a search asks of a model.

use crate::error::Result;

/// A model that goes on with sequences, a row each: a language model, or the decoder of a translation whose
/// encoder has read the sources.
///
/// A search begins with a row for each sentence. In each step it asks how the rows go on and then says which
/// rows it keeps.
pub trait Decoder {
    /// How many tokens there are: their ids are 0 .. `vocabulary`.
    fn vocabulary(&self) -> usize;

    /// Goes on with every row by one token, and gives the natural logarithms of the probabilities of the token
    /// behind it: [rows × vocabulary], row by row. Those of [`log_softmax`] are such.
    ///
    /// # Errors
    /// The model's.
    ///
    /// [`log_softmax`]: candle_nn::ops::log_softmax
    fn step(&mut self, tokens: &[u32]) -> Result<Vec<f32>>;

    /// Makes row i what row `rows[i]` was: what is remembered of rows (keys and values of attention, encoded
    /// sources) is put into this order, repeated and dropped accordingly. There are `rows.len()` rows then.
    ///
    /// # Errors
    /// The model's.
    fn select(&mut self, rows: &[usize]) -> Result<()>;
}

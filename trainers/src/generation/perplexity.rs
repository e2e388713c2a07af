//! The score of a language model.

/// exp(L), where L is the mean over all tokens of the negative natural logarithm of a token's probability, as
/// the loss of cross-entropy is: the number of equally probable tokens among which the model would be as
/// unsure.
///
/// fairseq prints losses in base 2, L / ln 2, and takes 2 to their power: the same number.
///
/// Losses of parts of a corpus are to be summed and divided by the tokens of the whole first: a mean of
/// perplexities is none.
pub fn perplexity(mean_loss: f64) -> f64 {
    mean_loss.exp()
}

#[cfg(test)]
mod tests {
    use super::perplexity;

    #[test]
    fn of_equally_probable_tokens_it_is_their_number() {
        assert!((perplexity(50f64.ln()) - 50.0).abs() < 1e-12);
        assert_eq!(perplexity(0.0), 1.0);
        let in_base_two = 3.25 / std::f64::consts::LN_2;
        assert!((perplexity(3.25) - in_base_two.exp2()).abs() < 1e-12);
    }
}

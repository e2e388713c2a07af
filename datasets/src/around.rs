//! What a tokenizer puts around a text: special tokens, once, and the text itself once.

use std::path::Path;

use tokenizers::tokenizer::{Encoding, PostProcessor, Token, Tokenizer};

use crate::error::Result;
use crate::text::{called, tokenizer_error};

/// What a tokenizer without a post-processor lacks.
const NOTHING_SPECIAL: &str = "it puts no special tokens, such as [CLS] and [SEP], around a text, which the models \
     need; take the tokenizer.json that came with the model, or give it a post-processor";

/// The special tokens of a tokenizer.
pub(crate) struct Around {
    /// How many a text gets, or a pair of texts, whichever is more.
    pub(crate) most: usize,
    /// Their ids, which need not be in the vocabulary.
    pub(crate) ids: Vec<u32>,
    /// Whether tokens have types other than 0.
    pub(crate) types: bool,
}

impl Around {
    /// Those that a tokenizer without truncation puts around nothing.
    ///
    /// # Errors
    /// If there are none, or a text does not come out exactly once: the post-processor of a file may repeat
    /// it any number of times, where no maximum length holds, or leave it out.
    pub(crate) fn of(tokenizer: &Tokenizer, path: Option<&Path>) -> Result<Self> {
        let mut types = false;
        for pair in [false, true] {
            types |= keeps_text(tokenizer, pair, path)?;
        }
        let single = called(path, || tokenizer.encode_fast("", true))?;
        let pair = called(path, || tokenizer.encode_fast(("", ""), true))?;
        let special =
            |encoding: &Encoding| encoding.get_special_tokens_mask().iter().sum::<u32>() as usize;
        let most = special(&single).max(special(&pair));
        if special(&pair) == 0 {
            return Err(tokenizer_error(path, NOTHING_SPECIAL));
        }
        let ids = [single.get_ids(), pair.get_ids()].concat();
        Ok(Self { most, ids, types })
    }
}

/// Sends a token of each text through the post-processor, and looks for it behind; whether there are types other
/// than 0.
fn keeps_text(tokenizer: &Tokenizer, pair: bool, path: Option<&Path>) -> Result<bool> {
    let Some(post_processor) = tokenizer.get_post_processor() else {
        return Ok(false);
    };
    let (first, second) = (0, 1);
    let text = |id| Encoding::from_tokens(vec![Token::new(id, "a".to_string(), (0, 1))], 0);
    let both = called(path, || {
        post_processor.process(text(first), pair.then(|| text(second)), true)
    })?;
    for (id, name, expected) in [(first, "first", 1), (second, "second", usize::from(pair))] {
        let tokens = both.get_ids().iter().zip(both.get_special_tokens_mask());
        let times = tokens.filter(|&got| got == (&id, &0)).count();
        if times != expected {
            let of = if pair { "pair" } else { "single text" };
            let name = if pair { name } else { "only" };
            let why = format!(
                "its post-processor puts the {name} text of a {of} {times} times among the special tokens, not once; \
                 take the tokenizer.json that came with the model"
            );
            return Err(tokenizer_error(path, why));
        }
    }
    Ok(both.get_type_ids().iter().any(|&kind| kind != 0))
}

//! What the model that made generated rows reaches on them: nobody can do better, on average.

use crate::parts;
use crate::train::ClickArgs;
use anyhow::{Result, bail};
use datasets::criteo::{Planted, Store};
use trainers::Scores;
use trainers::metrics::clicks;

/// The scores on some of a store's rows of the model that made them, if the flags name one.
pub fn scores(
    store: &Store,
    own: &ClickArgs,
    rows: &str,
    limit: Option<usize>,
) -> Result<Option<Scores>> {
    let Some(seed) = own.planted else {
        return Ok(None);
    };
    let batches = parts::evaluation(store, own, rows, limit)?;
    let model = Planted::new(seed);
    let (mut logits, mut labels) = (Vec::new(), Vec::new());
    for index in batches.rows {
        let row = model.row(index as u64);
        if row.label != store.label(index) {
            bail!("--planted {seed}: row {index} of the store is not the one of that seed");
        }
        logits.push(model.logit(&row));
        labels.push(row.label == Some(true));
    }
    Ok(Some(clicks(&logits, &labels)?.0))
}

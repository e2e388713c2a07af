//! What the model that made generated rows reaches on them: nobody can do better, on average.

use crate::parts;
use anyhow::{Result, bail};
use datasets::criteo::{Planted, Store};
use trainers::Scores;
use trainers::metrics::clicks;

/// The scores of the model number `seed` on some of the rows that it made.
pub fn scores(store: &Store, seed: u64, rows: &str, limit: Option<usize>) -> Result<Scores> {
    let (batches, _) = parts::evaluation(store, rows, limit)?;
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
    Ok(clicks(&logits, &labels)?.0)
}

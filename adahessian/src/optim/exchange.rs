//! What participants of one step add up before it: the sums of an optimizer, under names, and back.

use super::pending::{WeightedMean, expect_like};
use super::reducer::Sums;
use crate::error::Result;
use crate::numeric::{sum_f64, wide};
use crate::vars::NamedVars;
use candle_core::{Device, Tensor};

/// Puts one kind of sums; where nothing has come there are zeros, and a note that it is so.
pub(super) fn put(
    sums: &mut Sums,
    kind: &str,
    mean: &WeightedMean,
    vars: &NamedVars,
) -> Result<()> {
    sums.numbers.insert(format!("{kind}_weight"), mean.weight());
    for ((name, var), sum) in vars.iter().zip(mean.sums()) {
        let tensor = match sum {
            Some(sum) => sum.clone(),
            None => Tensor::zeros(var.shape(), wide(var.dtype()), var.device())?,
        };
        let reached = f64::from(u8::from(sum.is_some()));
        sums.numbers
            .insert(format!("{kind}_reached.{name}"), reached);
        sums.tensors.insert(format!("{kind}.{name}"), tensor);
    }
    Ok(())
}

/// Whether somebody has put this kind.
pub(super) fn holds(sums: &Sums, kind: &str) -> bool {
    sums.numbers.contains_key(&format!("{kind}_weight"))
}

/// Takes one kind of sums; those that no participant has are left out.
pub(super) fn take(
    sums: &mut Sums,
    kind: &str,
    mean: &mut WeightedMean,
    vars: &NamedVars,
) -> Result<()> {
    let weight = sums.number(&format!("{kind}_weight"))?;
    let each = vars.iter().map(|(name, var)| {
        let reached = sums.number(&format!("{kind}_reached.{name}"))? > 0.0;
        let tensor = sums.tensor(&format!("{kind}.{name}"))?;
        // A reducer may be anybody's.
        expect_like(name, var, &tensor)?;
        Ok(reached.then_some(tensor))
    });
    mean.set(each.collect::<Result<_>>()?, weight);
    Ok(())
}

/// Puts the sum of the losses.
pub(super) fn put_loss(sums: &mut Sums, loss: &WeightedMean) -> Result<()> {
    let number = match loss.sums().next().flatten() {
        Some(loss) => sum_f64(loss)?,
        None => 0.0,
    };
    sums.numbers.insert("loss".into(), number);
    sums.numbers.insert("loss_weight".into(), loss.weight());
    Ok(())
}

/// Takes it.
pub(super) fn take_loss(sums: &mut Sums, loss: &mut WeightedMean) -> Result<()> {
    let (number, weight) = (sums.number("loss")?, sums.number("loss_weight")?);
    let tensor = (weight != 0.0).then(|| Tensor::new(number, &Device::Cpu));
    loss.set(vec![tensor.transpose()?], weight);
    Ok(())
}

//! The weighted mean of what micro-batches contribute to one step.

mod clipping;
mod squares;

pub(crate) use clipping::Clipping;
pub(crate) use squares::{Range, sum_of_squares};

use crate::engine::vector::Vector;
use crate::error::{Error, Result};
use crate::numeric::{AT_ONCE, in_place, wide, widened};
use crate::optim::NotFinite;
use crate::optim::group::Resolved;
use crate::optim::reach::Reach;
use crate::optim::traced;
use crate::vars::NamedVars;
use candle_core::{DType, Tensor, Var};

/// Σ wᵢ xᵢ and Σ wᵢ, one entry for each variable; `None` where nothing has come yet.
#[derive(Debug)]
pub(crate) struct WeightedMean {
    sums: Vec<Option<Sum>>,
    weight: f64,
}

#[derive(Debug)]
struct Sum {
    tensor: Tensor,
    /// Whether the memory was made here, so that nobody else reads it: it may be changed in place.
    own: bool,
}

impl Sum {
    /// weight · tensor, in f32 where the tensor is in half precision.
    fn of(tensor: Tensor, weight: f64) -> Result<Self> {
        let tensor = widened(&tensor)?;
        match weight == 1.0 {
            true => Ok(Self { tensor, own: false }),
            false => Ok(Self {
                tensor: (tensor * weight)?,
                own: true,
            }),
        }
    }

    fn add(&mut self, tensor: Tensor, weight: f64) -> Result<()> {
        let tensor = widened(&tensor)?;
        if self.own && in_place::add_scaled(&self.tensor, &tensor, weight)? {
            return Ok(());
        }
        let part = Self::of(tensor, weight)?.tensor;
        self.tensor = (&self.tensor + part)?;
        self.own = true;
        Ok(())
    }

    fn divide(self, divisor: f64) -> Result<Tensor> {
        match self.own && in_place::divide(&self.tensor, divisor)? {
            true => Ok(self.tensor),
            false => Ok((self.tensor / divisor)?),
        }
    }
}

fn nothing(count: usize) -> Vec<Option<Sum>> {
    (0..count).map(|_| None).collect()
}

impl WeightedMean {
    pub fn new(count: usize) -> Self {
        Self {
            sums: nothing(count),
            weight: 0.0,
        }
    }

    /// Σ wᵢ xᵢ.
    pub fn sums(&self) -> impl Iterator<Item = Option<&Tensor>> {
        self.sums.iter().map(|sum| sum.as_ref().map(|s| &s.tensor))
    }

    /// Σ wᵢ.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// Takes over sums that were made elsewhere.
    pub fn set(&mut self, sums: Vec<Option<Tensor>>, weight: f64) {
        let sum = |tensor| Sum { tensor, own: false };
        self.sums = sums.into_iter().map(|t| t.map(sum)).collect();
        self.weight = weight;
    }

    pub fn is_empty(&self) -> bool {
        self.weight == 0.0
    }

    /// Adds one vector. Its tensors must be detached.
    pub fn add(&mut self, tensors: Vec<Option<Tensor>>, weight: f64) -> Result<()> {
        for (sum, tensor) in self.sums.iter_mut().zip(tensors) {
            let Some(tensor) = tensor else { continue };
            match sum {
                Some(sum) => sum.add(tensor, weight)?,
                None => *sum = Some(Sum::of(tensor, weight)?),
            }
        }
        self.weight += weight;
        Ok(())
    }

    /// The mean; empties the sum.
    pub fn take(&mut self) -> Result<Vec<Option<Tensor>>> {
        let weight = std::mem::take(&mut self.weight);
        let count = self.sums.len();
        let sums = std::mem::replace(&mut self.sums, nothing(count));
        let mean = |sum: Option<Sum>| match (sum, weight == 1.0) {
            (None, _) => Ok(None),
            (Some(sum), true) => Ok(Some(sum.tensor)),
            (Some(sum), false) => sum.divide(weight).map(Some),
        };
        sums.into_iter().map(mean).collect()
    }

    /// The mean of what is one number, the loss.
    pub fn take_number(&mut self) -> Result<Option<f64>> {
        if self.is_empty() {
            return Ok(None);
        }
        let mean = self.take()?.pop().flatten();
        let value = mean.map(|m| m.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>());
        Ok(value.transpose()?.and_then(|v| v.first().copied()))
    }
}

/// That a gradient or a diagonal, whoever made it, is one of this variable: passes over memory rely on it.
///
/// # Errors
/// [`Error::Variable`] for another shape, kind of numbers (half precision may be in f32) or device.
pub(crate) fn expect_like(name: &str, var: &Var, tensor: &Tensor) -> Result<()> {
    let same = tensor.dims() == var.dims()
        && wide(tensor.dtype()) == wide(var.dtype())
        && tensor.device().same_device(var.device());
    if same {
        return Ok(());
    }
    let shown = |t: &Tensor| {
        let place = t.device().location();
        format!("{:?} {:?} on {place:?}", t.dtype(), t.dims())
    };
    Err(Error::Variable {
        name: name.into(),
        expected: format!("a gradient like it, {}", shown(var)),
        got: shown(tensor),
    })
}

/// What the gradients that were accumulated reach.
pub(crate) fn reach(
    vars: &NamedVars,
    settings: &[Resolved],
    gradient: &WeightedMean,
    first: bool,
) -> Reach {
    let mut reach = Reach::default();
    for ((name, settings), sum) in vars.names().zip(settings).zip(&gradient.sums) {
        if sum.is_some() {
            reach.reached += 1;
            continue;
        }
        if first && !settings.allow_unreached {
            reach.refused.push(name.into());
        }
        reach.unreached.push(name.into());
    }
    reach
}

/// z ⊙ Hz of every variable that has a product, a portion of them at a time: what they were made of is gone then.
pub(crate) fn products(
    mut products: Vec<Option<Tensor>>,
    probe: &[Vector],
) -> Result<Vec<Option<Tensor>>> {
    let mut pairs: &mut [Option<Tensor>] = &mut products;
    let mut probe = probe;
    while !pairs.is_empty() {
        let count = portion(pairs);
        let (now, later) = pairs.split_at_mut(count);
        let (probes, rest) = probe.split_at(count);
        (pairs, probe) = (later, rest);
        let there = now.iter().zip(probes).filter(|(p, _)| p.is_some());
        let there = there.map(|(p, z)| Some((p.as_ref()?, z.as_tensor()?)));
        // At once where all of them are tensors of a GPU.
        let mut made = match there.collect::<Option<Vec<_>>>() {
            Some(there) => traced::products(&there)?.map(Vec::into_iter),
            None => None,
        };
        for (product, z) in now.iter_mut().zip(probes) {
            if let Some(p) = product.take() {
                *product = match &mut made {
                    Some(made) => made.next(),
                    None => Some(z.times(&p)?),
                };
            }
        }
    }
    Ok(products)
}

/// How many of the first tensors are no more than a portion together, at least one.
fn portion(tensors: &[Option<Tensor>]) -> usize {
    let counts = tensors
        .iter()
        .map(|t| t.as_ref().map_or(0, Tensor::elem_count));
    let mut sum = 0;
    let fitting = counts.take_while(|count| {
        sum += count;
        sum <= AT_ONCE
    });
    fitting.count().clamp(1, tensors.len())
}

/// Counts steps that were skipped because something was not finite.
#[derive(Clone, Debug, Default)]
pub(crate) struct Skips {
    pub in_a_row: u32,
    pub total: u64,
}

impl Skips {
    /// Notes a skip.
    pub fn note(&mut self) {
        self.in_a_row += 1;
        self.total += 1;
    }

    /// An error if this one were too many in a row.
    pub fn check(&self, why: &NotFinite, step: u64, limit: u32) -> Result<()> {
        match self.in_a_row < limit {
            true => Ok(()),
            false => Err(crate::Error::NonFinite {
                what: why.what,
                name: why.name.clone(),
                step,
                skipped: self.in_a_row + 1,
            }),
        }
    }
}

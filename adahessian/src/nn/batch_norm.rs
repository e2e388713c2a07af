//! Batch normalisation (Ioffe and Szegedy 2015), after `candle_nn::batch_norm`.

use super::{Init, VarBuilder, variable, wrong};
use crate::Kind;
use crate::numeric::{wide, widened};
use crate::ops::{RunningStatistics, one_value};
use candle_core::{ModuleT, Result, Tensor, Var};

pub use candle_nn::batch_norm::BatchNormConfig;

/// y = γ_c (x - μ_c)/√(σ²_c + ε) + β_c over the batch and all positions of each channel.
///
/// The input is [N, C, ..]. In training μ and σ² are the batch's own (σ² divided by n), and the running
/// statistics move: r ← (1 - momentum) r + momentum · batch, with the variance divided by n - 1; in
/// [`statistics_at_rest`](crate::ops::statistics_at_rest), and so in
/// [`check::audit`](crate::check::audit()), they stay. In evaluation they are the running ones. Composed.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    running_mean: Var,
    running_var: Var,
    weight_and_bias: Option<(Tensor, Tensor)>,
    remove_mean: bool,
    eps: f64,
    momentum: f64,
}

impl BatchNorm {
    /// With γ `weight`, β `bias` and running statistics, all `[num_features]`, and a momentum of 0.1.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for a shape or a number that does not fit.
    pub fn new(
        num_features: usize,
        running_mean: Tensor,
        running_var: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: f64,
    ) -> Result<Self> {
        let scale = Some((weight, bias));
        Self::make(num_features, [running_mean, running_var], scale, (eps, 0.1))
    }

    /// Without γ and β.
    ///
    /// # Errors
    /// As [`BatchNorm::new`].
    pub fn new_no_bias(
        num_features: usize,
        running_mean: Tensor,
        running_var: Tensor,
        eps: f64,
    ) -> Result<Self> {
        Self::make(num_features, [running_mean, running_var], None, (eps, 0.1))
    }

    /// With a momentum between 0 and 1.
    ///
    /// # Errors
    /// As [`BatchNorm::new`].
    pub fn new_with_momentum(
        num_features: usize,
        running_mean: Tensor,
        running_var: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: f64,
        momentum: f64,
    ) -> Result<Self> {
        let scale = Some((weight, bias));
        let numbers = (eps, momentum);
        Self::make(num_features, [running_mean, running_var], scale, numbers)
    }

    /// Without γ and β, with a momentum.
    ///
    /// # Errors
    /// As [`BatchNorm::new`].
    pub fn new_no_bias_with_momentum(
        num_features: usize,
        running_mean: Tensor,
        running_var: Tensor,
        eps: f64,
        momentum: f64,
    ) -> Result<Self> {
        let numbers = (eps, momentum);
        Self::make(num_features, [running_mean, running_var], None, numbers)
    }

    fn make(
        features: usize,
        [mean, variance]: [Tensor; 2],
        weight_and_bias: Option<(Tensor, Tensor)>,
        (eps, momentum): (f64, f64),
    ) -> Result<Self> {
        // Not-a-number is refused too.
        if eps.is_nan() || eps < 0.0 || !(0.0..=1.0).contains(&momentum) {
            let expected = "eps at least 0, momentum between 0 and 1";
            return wrong("batch norm", expected, (eps, momentum));
        }
        let scale = weight_and_bias.iter().flat_map(|(w, b)| [w, b]);
        for part in [&mean, &variance].into_iter().chain(scale) {
            if part.dims() != [features] {
                let expected = format!("[{features}]");
                let what = "statistics, weight and bias of a batch norm";
                return wrong(what, expected, part.dims());
            }
        }
        Ok(Self {
            running_mean: Var::from_tensor(&mean)?,
            running_var: Var::from_tensor(&variance)?,
            weight_and_bias,
            remove_mean: true,
            eps,
            momentum,
        })
    }

    /// The running mean, `[num_features]`.
    pub fn running_mean(&self) -> &Tensor {
        self.running_mean.as_tensor()
    }

    /// The running variance, `[num_features]`.
    pub fn running_var(&self) -> &Tensor {
        self.running_var.as_tensor()
    }

    /// ε.
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// γ and β.
    pub fn weight_and_bias(&self) -> Option<(&Tensor, &Tensor)> {
        self.weight_and_bias.as_ref().map(|(w, b)| (w, b))
    }

    /// The weight of a batch in the running statistics.
    pub fn momentum(&self) -> f64 {
        self.momentum
    }

    /// With the batch's statistics, towards which the running ones move.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for an input that is no [N, num_features, ..], has no entries, or one value a channel.
    pub fn forward_train(&self, x: &Tensor) -> Result<Tensor> {
        let shape = self.wide(x)?;
        // A mean over nothing would not be a number, and stay in the running statistics.
        if x.elem_count() == 0 {
            return wrong("batch of a batch norm", "no size of 0", x.dims());
        }
        let dtype = x.dtype();
        let x = x.to_dtype(wide(dtype))?;
        let channels = self.running_mean.dims()[0];
        let count = x.elem_count() / channels;
        if count == 1 {
            return Ok(one_value(x.dims())?);
        }
        let mean = |x: &Tensor| {
            let rows = x.transpose(0, 1)?.flatten_from(1)?; // [C, count]
            rows.mean(1)
        };
        let (x, average) = match self.remove_mean {
            true => {
                let average = mean(&x)?;
                let centred = x.broadcast_sub(&average.reshape(shape.as_slice())?)?;
                (centred, Some(average.detach()))
            }
            false => (x, None),
        };
        let variance = mean(&x.sqr()?)?;
        let running = RunningStatistics {
            mean: self.running_mean.clone(),
            variance: self.running_var.clone(),
        };
        let deviation = (variance.reshape(shape.as_slice())? + self.eps)?.sqrt()?;
        let y = self.scale(&x.broadcast_div(&deviation)?, &shape)?;
        let y = y.to_dtype(dtype)?;
        // When nothing can fail any more: who tries again would move them twice.
        let (momentum, average) = (self.momentum, average.as_ref());
        running.follow(average, &variance.detach(), momentum, count)?;
        Ok(y)
    }

    fn forward_eval(&self, x: &Tensor) -> Result<Tensor> {
        let shape = self.wide(x)?;
        let (dtype, x) = (x.dtype(), &widened(x)?);
        let constant = |var: &Var| {
            let value = var.as_detached_tensor().to_dtype(x.dtype())?;
            value.reshape(shape.as_slice())
        };
        let centred = x.broadcast_sub(&constant(&self.running_mean)?)?;
        let deviation = (constant(&self.running_var)? + self.eps)?.sqrt()?;
        self.scale(&centred.broadcast_div(&deviation)?, &shape)?
            .to_dtype(dtype)
    }

    /// γ x + β, of a wide x: half precision has too few digits for the sums that are their gradients.
    fn scale(&self, x: &Tensor, wide: &[usize]) -> Result<Tensor> {
        match &self.weight_and_bias {
            None => Ok(x.clone()),
            Some((weight, bias)) => {
                let scaled = x.broadcast_mul(&widened(weight)?.reshape(wide)?)?;
                scaled.broadcast_add(&widened(bias)?.reshape(wide)?)
            }
        }
    }

    /// The shape in which a value a channel is broadcast over the input: [1, C, 1, ..].
    fn wide(&self, x: &Tensor) -> Result<Vec<usize>> {
        let channels = self.running_mean.dims()[0];
        if x.rank() < 2 || x.dims()[1] != channels {
            let expected = format!("[N, {channels}, ..]");
            return wrong("input of a batch norm", expected, x.dims());
        }
        let mut wide = vec![1; x.rank()];
        wide[1] = channels;
        Ok(wide)
    }
}

impl ModuleT for BatchNorm {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        match train {
            true => self.forward_train(x),
            false => self.forward_eval(x),
        }
    }
}

/// With `running_mean`, `running_var` and, if `affine`, the variables `weight` and `bias`, all
/// `[num_features]`. The running ones are in f32 where the builder is in half precision.
///
/// # Errors
/// As [`BatchNorm::new`]; the builder's.
pub fn batch_norm<C: Into<BatchNormConfig>>(
    num_features: usize,
    config: C,
    vb: VarBuilder,
) -> Result<BatchNorm> {
    let config = config.into();
    let get = |name, value, kind| variable(&vb, num_features, name, Init::Const(value), kind);
    let running = [
        get("running_mean", 0.0, Kind::Statistic)?,
        get("running_var", 1.0, Kind::Statistic)?,
    ];
    let scale = match config.affine {
        true => Some((
            get("weight", 1.0, Kind::Vector)?,
            get("bias", 0.0, Kind::Vector)?,
        )),
        false => None,
    };
    let numbers = (config.eps, config.momentum);
    Ok(BatchNorm {
        remove_mean: config.remove_mean,
        ..BatchNorm::make(num_features, running, scale, numbers)?
    })
}

//! A rule of one's own: AdaBelief (Zhuang et al. 2020).

use adahessian::{Entry, Number, Result, Rule, Step};

/// m = β1 m + (1-β1) g; s = β2 s + (1-β2)(g - m)²; θ = θ(1 - ηλ) - η m̂ / (√ŝ + eps), with m̂ and ŝ
/// corrected for their start at zero.
#[derive(Clone, Copy, Debug)]
pub struct AdaBelief {
    /// (β1, β2).
    pub betas: (f64, f64),
    /// Added to the root.
    pub eps: f64,
}

impl Default for AdaBelief {
    fn default() -> Self {
        Self {
            betas: (0.9, 0.999),
            eps: 1e-8,
        }
    }
}

impl Rule for AdaBelief {
    const NAME: &'static str = "adabelief";
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_var"];
    /// 1 / (1 - βᵗ) of both.
    type Scalars = (f64, f64);

    fn check(&self) -> Result<()> {
        match self.eps > 0.0 {
            true => Ok(()),
            false => Err(adahessian::Error::Setting {
                what: "eps",
                expected: "above 0".into(),
                got: self.eps.to_string(),
            }),
        }
    }

    fn scalars(&self, step: &Step) -> (f64, f64) {
        let correction = |beta: f64| 1.0 / (1.0 - beta.powi(step.count as i32));
        (correction(self.betas.0), correction(self.betas.1))
    }

    #[inline(always)]
    fn update<N: Number>(&self, step: &Step, scalars: (f64, f64), x: Entry<'_, N>) -> N {
        let (beta1, beta2) = self.betas;
        let m = x.slots[0].blend(beta1, x.gradient.clone(), 1.0 - beta1);
        let apart = (x.gradient - m.clone()).square();
        let s = x.slots[1].blend(beta2, apart, 1.0 - beta2);
        let root = (s * scalars.1).sqrt() + self.eps;
        step.decay(x.value) - m * scalars.0 / root * step.lr
    }
}

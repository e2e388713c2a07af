//! Sophia with Hutchinson's estimator.

use crate::error::Result;
use crate::optim::group::{fraction, positive};
use crate::optim::pass::{self, Outcome, Pass};
use crate::optim::{Average, Builder, Entry, Number, Rule, Step};
use candle_core::Tensor;

/// Sophia-H (Liu et al. 2023, arXiv 2305.14342, Algorithm 3 with the estimator of Algorithm 1, of signs in the
/// place of its normal numbers, whose mean is the same and whose variance is smaller: [`Builder::probe`] has those), with the
/// paper's settings: β (0.96, 0.99), γ 0.01, eps 1e-12, λ 0.1, the Hessian on every tenth step. D enters
/// with its sign; where it is small or negative the step is that of momentum's sign.
///
/// ```text
/// m = β1 m + (1-β1) g;  h = β2 h + (1-β2) z ⊙ Hz   on the steps that compute it
/// θ = θ(1 - ηλ) - η clip(m / max(γ h, eps), ρ)
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SophiaH {
    /// (β1, β2): decays of the means of g and of D.
    pub betas: (f64, f64),
    /// γ, the scale of the curvature.
    pub gamma: f64,
    /// The smallest denominator.
    pub eps: f64,
    /// ρ, the largest absolute value of an entry's direction.
    pub rho: f64,
}

impl Default for SophiaH {
    fn default() -> Self {
        Self {
            betas: (0.96, 0.99),
            gamma: 0.01,
            eps: 1e-12,
            rho: 1.0,
        }
    }
}

impl SophiaH {
    /// The default settings, to be changed and built.
    pub fn builder() -> Builder<Self> {
        Self::default().into_builder()
    }
}

impl Rule for SophiaH {
    const NAME: &'static str = "sophiah";
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_hessian_diag"];
    const SECOND_ORDER: bool = true;
    type Scalars = ();

    fn check(&self) -> Result<()> {
        fraction("beta1", self.betas.0)?;
        fraction("beta2", self.betas.1)?;
        positive("gamma", self.gamma)?;
        positive("eps", self.eps)?;
        positive("rho", self.rho)
    }

    fn into_builder(self) -> Builder<Self> {
        let builder = Builder::new(self).lr(6e-4).weight_decay(0.1);
        builder.every(10).average(Average::Signed)
    }

    fn scalars(&self, _: &Step) {}

    #[inline(always)]
    fn observe<N: Number>(&self, diagonal: N, slots: &mut [N]) {
        slots[1].blend(self.betas.1, diagonal, 1.0 - self.betas.1);
    }

    #[inline(always)]
    fn update<N: Number>(&self, step: &Step, _: (), x: Entry<'_, N>) -> N {
        let m = x.slots[0].blend(self.betas.0, x.gradient, 1.0 - self.betas.0);
        let h = (x.slots[1].clone() * self.gamma).max(self.eps);
        step.decay(x.value) - (m / h).clamp(-self.rho, self.rho) * step.lr
    }

    #[inline(always)]
    fn below_eps<N: Number>(&self, _: (), slots: &[N]) -> Option<N> {
        Some((slots[1].clone() * self.gamma).below(self.eps))
    }

    fn curvature<N: Number>(&self, _: (), slots: &[N]) -> Option<N> {
        Some(slots[1].clone())
    }

    fn in_place(&self, pass: &Pass<'_>, slots: &[Tensor]) -> Result<Option<Outcome>> {
        pass::in_place(self, pass, slots)
    }
}

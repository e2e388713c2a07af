//! AdaHessian (Yao et al., AAAI 2021): Adam's form with the Hessian's diagonal in place of g².

use super::guard;
use crate::error::{Error, Result};
use crate::numeric::power;
use crate::optim::group::{fraction, not_negative};
use crate::optim::pass::{self, Outcome, Pass};
use crate::optim::{Builder, Entry, Number, Rule, Step, correction};
use candle_core::Tensor;

/// AdaHessian, with the defaults of the published code: η 0.15, β (0.9, 0.999), eps 1e-4, no decay, k 1,
/// one Rademacher sample, the Hessian on every step, no averaging.
///
/// ```text
/// g = ∇L, z = ±1, D = z ⊙ ∇(g·z)          gradient, probe, diagonal (Eq. 8, 9)
/// D = average of D over each block           (Eq. 10)
/// m = β1 m + (1-β1) g;  s = β2 s + (1-β2) D²  (Eq. 11)
/// v = (sqrt(s / (1-β2^t)))^k                  (Eq. 12)
/// θ = θ - η ((m / (1-β1^t)) / (v + eps) + λ θ)
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaHessian {
    /// (β1, β2): decays of the means of g and of D².
    pub betas: (f64, f64),
    /// Added to the denominator, after the bias correction and outside of the power; 0 counts as the smallest
    /// normal number of f32.
    pub eps: f64,
    /// The Hessian power k in 0..=1 (Eq. 12): 1 is Newton-like, 0 is momentum.
    pub hessian_power: f64,
    /// What becomes of entries that never had a curvature.
    pub unseen: Unseen,
}

/// What becomes of an entry whose D was 0 every time: the row of an embedding whose word was in no batch of which the
/// Hessian was taken, the weights of a unit that was at rest in all of them. Its step is m̂ / eps, thousands of
/// gradients long. Where each step takes the Hessian of its whole batch that hardly happens: such an entry has no
/// gradient either. Where the Hessian is delayed, or taken of a part of the batch, it happens to every rare word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unseen {
    /// It waits from the first step on that took no D of its own. With a [`crate::Delay`] other than `Hold`, which
    /// counts such a step as one with a D, and where the Hessian is of a part of the batch, ask for `Wait`.
    #[default]
    Auto,
    /// It waits for a curvature: no step but weight decay's. m goes on.
    Wait,
    /// It steps by m̂ / eps, as in the published code.
    Divide,
}

impl Default for AdaHessian {
    fn default() -> Self {
        Self {
            betas: (0.9, 0.999),
            eps: 1e-4,
            hessian_power: 1.0,
            unseen: Unseen::Auto,
        }
    }
}

impl Builder<AdaHessian> {
    /// (β1, β2).
    pub fn betas(mut self, beta1: f64, beta2: f64) -> Self {
        self.rule.betas = (beta1, beta2);
        self
    }

    /// The number added to the denominator.
    pub fn eps(mut self, eps: f64) -> Self {
        self.rule.eps = eps;
        self
    }

    /// The Hessian power k.
    pub fn hessian_power(mut self, power: f64) -> Self {
        self.rule.hessian_power = power;
        self
    }

    /// What becomes of entries that never had a curvature.
    pub fn unseen(mut self, unseen: Unseen) -> Self {
        self.rule.unseen = unseen;
        self
    }
}

impl AdaHessian {
    /// The default settings, to be changed and built.
    pub fn builder() -> Builder<Self> {
        Self::default().into_builder()
    }

    /// Whether entries without a curvature stay where they are.
    #[inline(always)]
    fn waits(&self, step: &Step) -> bool {
        let waits = match self.unseen {
            Unseen::Auto => step.diagonal_count < step.count,
            Unseen::Wait => true,
            Unseen::Divide => false,
        };
        waits && self.hessian_power > 0.0
    }

    /// v.
    #[inline(always)]
    fn denominator<N: Number>(&self, [_, correction, _]: [f64; 3], slots: &[N]) -> N {
        let root = (slots[1].clone() * correction).sqrt();
        root.powf(self.hessian_power)
    }
}

impl Rule for AdaHessian {
    const NAME: &'static str = "adahessian";
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_hessian_diag_sq"];
    const SECOND_ORDER: bool = true;
    const POWERS: bool = true;
    /// η / (1-β1ᵗ), 1 / (1-β2ᵗ), and the least s of an entry that has seen a curvature: 0 where none waits. A number, for
    /// a loop over entries that asks whether they wait is not made into vectors.
    type Scalars = [f64; 3];

    fn powers_are_one(&self) -> bool {
        self.hessian_power == 1.0
    }

    fn check(&self) -> Result<()> {
        fraction("beta1", self.betas.0)?;
        fraction("beta2", self.betas.1)?;
        not_negative("eps", self.eps)?;
        match (0.0..=1.0).contains(&self.hessian_power) {
            true => Ok(()),
            false => Err(Error::Setting {
                what: "hessian_power",
                expected: "a number in 0..=1".into(),
                got: self.hessian_power.to_string(),
            }),
        }
    }

    fn into_builder(self) -> Builder<Self> {
        Builder::new(self).lr(0.15)
    }

    fn scalars(&self, step: &Step) -> [f64; 3] {
        // One division: a chaotic trajectory feels the last bit.
        let rate = step.lr / (1.0 - power(self.betas.0, step.count));
        let least = match self.waits(step) {
            true => f64::from(f32::MIN_POSITIVE),
            false => 0.0,
        };
        [rate, correction(self.betas.1, step.diagonal_count), least]
    }

    #[inline(always)]
    fn observe<N: Number>(&self, diagonal: N, slots: &mut [N]) {
        slots[1].blend(self.betas.1, diagonal.square(), 1.0 - self.betas.1);
    }

    #[inline(always)]
    fn update<N: Number>(&self, step: &Step, scalars: [f64; 3], x: Entry<'_, N>) -> N {
        let m = x.slots[0].blend(self.betas.0, x.gradient, 1.0 - self.betas.0);
        // Of an entry that waits nothing: before the division, which may be endless.
        let m = match N::WHOLE && scalars[2] == 0.0 {
            true => m, // saves five operations
            false => m * (-x.slots[1].clone().below(scalars[2]) + 1.0),
        };
        // In this order, as PyTorch's addcdiv.
        let direction = m * scalars[0] / (self.denominator(scalars, x.slots) + guard(self.eps));
        step.decay(x.value) - direction
    }

    #[inline(always)]
    fn below_eps<N: Number>(&self, scalars: [f64; 3], slots: &[N]) -> Option<N> {
        Some(self.denominator(scalars, slots).below(self.eps))
    }

    fn curvature<N: Number>(&self, scalars: [f64; 3], slots: &[N]) -> Option<N> {
        Some((slots[1].clone() * scalars[1]).sqrt())
    }

    fn in_place(&self, pass: &Pass<'_>, slots: &[Tensor]) -> Result<Option<Outcome>> {
        pass::in_place(self, pass, slots)
    }
}

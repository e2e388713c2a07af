//! What an optimizer's rule is: one function of an entry, from which both the pass in place and the
//! step of candle's operations are made.

use super::builder::Builder;
use super::group::{Common, Group};
use super::number::Number;
use super::optimizer::Optimizer;
use super::pass::{self, Outcome, Pass};
use crate::error::Result;
use crate::numeric::power;
use crate::vars::NamedVars;
use candle_core::Tensor;

/// What a step's numbers are for one variable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The learning rate η, times the factors of the schedule and of the variable's group.
    pub lr: f64,
    /// The weight decay λ.
    pub weight_decay: f64,
    /// How many updates the variable has had, this one included.
    pub count: u64,
    /// How many times D was taken, this one included.
    pub diagonal_count: u64,
}

impl Step {
    /// g + λθ: decay as L2 regularisation.
    #[inline(always)]
    pub fn l2<N: Number>(&self, gradient: N, value: &N) -> N {
        match self.weight_decay == 0.0 {
            true => gradient,
            false => gradient + value.clone() * self.weight_decay,
        }
    }

    /// (1 - ηλ)θ: decoupled decay.
    #[inline(always)]
    pub fn decay<N: Number>(&self, value: N) -> N {
        match self.weight_decay == 0.0 {
            true => value,
            false => value * (1.0 - self.lr * self.weight_decay),
        }
    }
}

/// 1 / (1 - βᵗ): corrects the bias of a running mean that started at zero.
pub fn correction(beta: f64, count: u64) -> f64 {
    1.0 / (1.0 - power(beta, count))
}

/// One variable, or one entry of it, in one step.
pub struct Entry<'a, N> {
    /// The value θ.
    pub value: N,
    /// The gradient g, clipped.
    pub gradient: N,
    /// The rule's running quantities, in the order of [`Rule::slots`].
    pub slots: &'a mut [N],
}

/// An optimizer's rule: how θ and its running quantities change with the gradient g and, where it asks
/// for it, the Hessian's diagonal D. All else (accumulation, clipping, groups, skipped steps, delayed
/// Hessians, block averages, half precision, states) is [`Optimizer`]'s.
///
/// A rule is a few numbers and one function, [`Rule::update`]. Mark it `#[inline(always)]`: the loop
/// over a variable's entries becomes vector instructions then, and the rule is as fast as those that
/// come with this crate.
///
/// Lion (Chen et al. 2023) as an example, θ = θ(1 - ηλ) - η sign(β1 m + (1-β1) g):
///
/// ```
/// use adahessian::{Number, Entry, Result, Rule, Step};
///
/// #[derive(Clone, Copy)]
/// struct Lion {
///     betas: (f64, f64),
/// }
///
/// impl Rule for Lion {
///     const NAME: &'static str = "lion";
///     const SLOTS: &'static [&'static str] = &["exp_avg"];
///     type Scalars = ();
///
///     fn scalars(&self, _: &Step) {}
///
///     #[inline(always)]
///     fn update<N: Number>(&self, step: &Step, _: (), x: Entry<'_, N>) -> N {
///         let (beta1, beta2) = self.betas;
///         let m = x.slots[0].clone() * beta1 + x.gradient.clone() * (1.0 - beta1);
///         x.slots[0].blend(beta2, x.gradient, 1.0 - beta2);
///         let sign = -m.clone().below(0.0) + (-m).below(0.0);
///         step.decay(x.value) - sign * step.lr
///     }
/// }
///
/// # use candle_core::{Device, Var};
/// let x = Var::new(&[1f32, -2.0], &Device::Cpu)?;
/// let mut opt = Lion { betas: (0.9, 0.99) }.lr(0.5).build(vec![x.clone()])?;
/// opt.backward_step(&x.sqr()?.sum_all()?)?;
/// assert_eq!(x.to_vec1::<f32>()?, [0.5, -1.5]);
/// # Ok::<(), adahessian::Error>(())
/// ```
pub trait Rule: Copy + Send + Sync + 'static {
    /// The optimizer's name, which its saved states carry.
    const NAME: &'static str;

    /// The names of the running quantities, each of the variable's shape and zero at the start. With
    /// more than four a step on the CPU is made of candle's operations; on CUDA one kernel takes any number.
    const SLOTS: &'static [&'static str];

    /// How many of the last of [`Rule::SLOTS`] some settings do without.
    const OPTIONAL_SLOTS: usize = 0;

    /// Whether the rule asks for D: [`Rule::observe`] gets it, on the steps that compute it.
    const SECOND_ORDER: bool = false;

    /// Whether the step's length is decided for each variable as a whole: [`Rule::update`] returns a
    /// direction r instead of the new value then, and the step is θ - η τ r with [`Rule::trust`]'s τ.
    const TRUST: bool = false;

    /// Whether the rule calls [`Number::powf`] with exponents that some settings make 1, of which
    /// [`Rule::powers_are_one`] tells.
    const POWERS: bool = false;

    /// Numbers that one step needs and all entries share: corrections of a bias, say.
    type Scalars: Copy + Send + Sync;

    /// Computes them, once a step and variable.
    fn scalars(&self, step: &Step) -> Self::Scalars;

    /// Updates the running quantities and returns the new value.
    fn update<N: Number>(&self, step: &Step, scalars: Self::Scalars, x: Entry<'_, N>) -> N;

    /// Takes D, averaged over its blocks, into the running quantities; before [`Rule::update`].
    #[inline(always)]
    fn observe<N: Number>(&self, _diagonal: N, _slots: &mut [N]) {}

    /// The curvature in force, where the rule keeps one.
    fn curvature<N: Number>(&self, _scalars: Self::Scalars, _slots: &[N]) -> Option<N> {
        None
    }

    /// 1 where the step's denominator lies below the constant that guards it, else 0: its mean is
    /// reported as [`crate::optim::CurvatureInfo::below_eps`].
    #[inline(always)]
    fn below_eps<N: Number>(&self, _scalars: Self::Scalars, _slots: &[N]) -> Option<N> {
        None
    }

    /// With [`Rule::TRUST`], which needs it: the direction r once more, after the running quantities have their new values.
    #[inline(always)]
    fn direction<N: Number>(
        &self,
        _: &Step,
        _: Self::Scalars,
        _value: N,
        _slots: &[N],
    ) -> Option<N> {
        None
    }

    /// With [`Rule::TRUST`]: τ from ‖θ‖ and ‖r‖.
    fn trust(&self, _value_norm: f64, _direction_norm: f64) -> f64 {
        1.0
    }

    /// The running quantities that these settings need.
    fn slots(&self) -> &'static [&'static str] {
        Self::SLOTS
    }

    /// Whether all exponents are 1. Decided outside of the loop: one that may call `powf` is not made
    /// into vectors.
    fn powers_are_one(&self) -> bool {
        false
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`crate::Error::Setting`].
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// The rule with the settings that all optimizers share, as they are by default.
    fn into_builder(self) -> Builder<Self> {
        Builder::new(self)
    }

    /// The rule's default, to be set and built.
    fn builder() -> Builder<Self>
    where
        Self: Default,
    {
        Self::default().into_builder()
    }

    /// The rule with these common settings, in the place of all of its own: its learning rate and weight decay are
    /// those of `common` then, not the rule's defaults. To change some of them use [`Rule::builder`]'s methods.
    fn with(self, common: Common) -> Builder<Self> {
        Builder {
            common,
            ..self.into_builder()
        }
    }

    /// Sets the learning rate.
    fn lr(self, lr: f64) -> Builder<Self> {
        self.into_builder().lr(lr)
    }

    /// Sets the weight decay.
    fn weight_decay(self, decay: f64) -> Builder<Self> {
        self.into_builder().weight_decay(decay)
    }

    /// Sets groups of variables with settings of their own.
    fn groups(self, groups: Vec<Group>) -> Builder<Self> {
        self.into_builder().groups(groups)
    }

    /// The optimizer of these variables, with default settings.
    ///
    /// # Errors
    /// Those of [`Builder::build`].
    fn build(self, vars: impl Into<NamedVars>) -> Result<Optimizer<Self>> {
        self.into_builder().build(vars)
    }

    /// The step in one pass over memory. This crate's rules override it with the same words, so that
    /// it is compiled here, with this crate's optimisation, and not in every crate that uses them.
    #[doc(hidden)]
    fn in_place(&self, pass: &Pass<'_>, slots: &[Tensor]) -> Result<Option<Outcome>> {
        pass::in_place(self, pass, slots)
    }
}

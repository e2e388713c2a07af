//! candle's own trait.

use super::super::Optim;
use super::super::builder::Builder;
use super::super::rule::Rule;
use super::Optimizer;
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

/// So that a candle application changes one line. The variables get names by their position; their
/// order must be the same in every process that resumes a run (`VarMap::all_vars` is in no order:
/// prefer `build(&varmap)`).
impl<R: Rule> candle_nn::Optimizer for Optimizer<R> {
    type Config = Builder<R>;

    fn new(vars: Vec<Var>, config: Builder<R>) -> candle_core::Result<Self> {
        let float = vars.into_iter().filter(|v| v.dtype().is_float());
        Ok(config.build(float.collect::<Vec<_>>())?)
    }

    fn step(&mut self, grads: &GradStore) -> candle_core::Result<()> {
        Ok(Optim::step(self, grads).map(drop)?)
    }

    fn learning_rate(&self) -> f64 {
        Optim::lr(self)
    }

    fn set_learning_rate(&mut self, lr: f64) {
        self.common.lr = lr;
        self.lr_factor = 1.0;
    }

    fn backward_step(&mut self, loss: &Tensor) -> candle_core::Result<()> {
        Ok(Optim::backward_step(self, loss).map(drop)?)
    }
}

//! The Hessian of a loss, by a second backward pass (Pearlmutter 1994).

use crate::curvature::LinearOperator;
use crate::engine::vector::Vector;
use crate::error::{Error, Result};
use crate::second_order::{self, Gradient, versions};
use crate::vars::{NamedVars, VarVec};
use candle_core::backprop::GradStore;
use candle_core::{Tensor, TensorId, Var};

/// H = ∇²L at the variables' present values, as an operator: H v = ∇⟨∇L, v⟩ (Eq. 8 of the
/// AdaHessian paper), exact but for rounding. A product costs about two gradients, whatever the
/// number of variables.
///
/// It holds the graph of the gradient. A product after a variable was changed by this crate is refused:
/// the graph would mix old values with new ones. (Changes through `Var::set` are not seen.)
pub struct Hessian {
    vars: NamedVars,
    /// With graph; `None` where the loss does not reach the variable.
    gradients: Vec<Option<Gradient>>,
    /// When the gradients were made, and what they are gradients of.
    time: u64,
    ids: Vec<TensorId>,
}

impl Hessian {
    /// The Hessian of a loss of one element.
    ///
    /// # Errors
    /// Those of [`crate::backward`].
    pub fn of(loss: &Tensor, vars: &NamedVars) -> Result<Self> {
        let grads = second_order::backward(loss)?;
        let hessian = Self::from_gradients(&grads, vars);
        second_order::release(grads);
        hessian
    }

    /// The Hessian of the loss that these gradients belong to.
    ///
    /// # Errors
    /// [`Error::NoGraph`] if [`crate::backward`] did not make them, [`Error::CutGradient`] if one of them
    /// has lost its graph since.
    pub fn from_gradients(grads: &GradStore, vars: &NamedVars) -> Result<Self> {
        if !second_order::has_graph(grads) {
            return Err(Error::NoGraph);
        }
        let gradients = vars
            .iter()
            .map(|(name, var)| second_order::gradient_of(grads, name, var));
        Ok(Self {
            vars: vars.clone(),
            gradients: gradients.collect::<Result<_>>()?,
            time: versions::time_of(grads).ok_or(Error::NoGraph)?,
            ids: versions::ids_of(grads),
        })
    }

    /// Checks that no variable of the loss was changed since.
    fn expect_unchanged(&self) -> Result<()> {
        if versions::changed_since(self.time, &self.ids).is_none() {
            return Ok(());
        }
        let changed = |var: &Var| versions::changed_since(self.time, &[var.id()]).is_some();
        let name = match self.vars.iter().find(|(_, var)| changed(var)) {
            Some((name, _)) => format!("`{name}`"),
            None => "a variable of another optimizer".into(),
        };
        Err(Error::Changed { name })
    }

    /// The gradient of the loss, without graph; zero where the loss does not reach a variable.
    ///
    /// # Errors
    /// If candle cannot allocate.
    pub fn gradient(&self) -> Result<VarVec> {
        let pairs = self.gradients.iter().zip(self.vars.iter());
        let dense = pairs.map(|(g, (_, v))| or_zeros(g.as_ref().map(|g| g.tensor.detach()), v));
        VarVec::new(&self.vars, dense.collect::<Result<_>>()?)
    }

    /// Which variables the loss reaches, in their order.
    pub(crate) fn reached(&self) -> Vec<bool> {
        self.gradients.iter().map(Option::is_some).collect()
    }

    /// H v, `None` for the variables that the loss does not reach and zero for those that it
    /// reaches linearly.
    pub(crate) fn product(&self, vector: &VarVec) -> Result<Vec<Option<Tensor>>> {
        self.vars.expect_same(vector.vars())?;
        let vector = vector.in_own_types()?;
        let tensors = vector.tensors().iter();
        let vectors: Vec<Vector> = tensors.map(|v| Vector::Tensor(v.detach())).collect();
        self.product_with(&vectors)
    }

    /// The same with a vector for each variable, in their order.
    pub(crate) fn product_with(&self, vectors: &[Vector]) -> Result<Vec<Option<Tensor>>> {
        self.expect_unchanged()?;
        let reached = self.gradients.iter().zip(vectors);
        let pairs = reached.filter_map(|(g, v)| Some((g.clone()?, v.clone())));
        let vars: Vec<Var> = self.vars.iter().map(|(_, v)| v.clone()).collect();
        let products = second_order::second_backward(pairs.collect(), vars.clone())?;
        let both = products.into_iter().zip(&self.gradients).zip(&vars);
        both.map(|((product, gradient), var)| match gradient {
            Some(_) => or_zeros(product, var).map(Some),
            None => Ok(None),
        })
        .collect()
    }
}

fn or_zeros(tensor: Option<Tensor>, var: &Var) -> Result<Tensor> {
    match tensor {
        Some(tensor) => Ok(tensor),
        None => Ok(var.zeros_like()?.detach()),
    }
}

impl LinearOperator for Hessian {
    fn vars(&self) -> &NamedVars {
        &self.vars
    }

    /// # Errors
    /// [`Error::Variable`] for a vector of other variables, [`Error::Changed`], and those of the pass.
    fn apply(&self, vector: &VarVec) -> Result<VarVec> {
        let products = self.product(vector)?;
        let pairs = products.into_iter().zip(self.vars.iter());
        let dense = pairs.map(|(p, (_, v))| or_zeros(p, v));
        VarVec::new(&self.vars, dense.collect::<Result<_>>()?)
    }
}

/// The graph goes on a large stack, on a thread of its own.
impl Drop for Hessian {
    fn drop(&mut self) {
        second_order::release(std::mem::take(&mut self.gradients));
    }
}

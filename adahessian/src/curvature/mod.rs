//! Curvature as linear operators, and estimators that only ever apply one.

pub mod finite_difference;
pub mod hessian;
pub mod hutchinson;
pub mod mean;

use crate::error::Result;
use crate::vars::{NamedVars, VarVec};

/// A symmetric matrix in parameter space that is known by its products with vectors.
pub trait LinearOperator {
    /// The variables that span its space.
    fn vars(&self) -> &NamedVars;

    /// The product with a vector.
    ///
    /// # Errors
    /// If the vector belongs to other variables, or a pass through the model fails.
    fn apply(&self, vector: &VarVec) -> Result<VarVec>;
}

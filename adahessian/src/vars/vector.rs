//! Vectors in the space that variables span.

use super::NamedVars;
use crate::error::{Error, Result};
use crate::numeric::{sum_f64, widened};
use candle_core::{DType, Device, Tensor};

/// A vector in parameter space: one tensor for every variable, of its shape, in the order of the names. Its numbers are of
/// the variable's type, or of a wider one: curvatures of variables in half precision are in f32.
#[derive(Clone, Debug)]
pub struct VarVec {
    vars: NamedVars,
    tensors: Vec<Tensor>,
}

impl VarVec {
    /// A vector of these tensors, one for each variable in the order of their names.
    ///
    /// # Errors
    /// [`Error::Variable`] if the number of tensors or a shape does not fit.
    pub fn new(vars: &NamedVars, tensors: Vec<Tensor>) -> Result<Self> {
        if tensors.len() != vars.len() {
            return Err(Error::Variable {
                name: "(all)".into(),
                expected: format!("{} tensors", vars.len()),
                got: format!("{}", tensors.len()),
            });
        }
        for ((name, var), tensor) in vars.iter().zip(&tensors) {
            if var.dims() != tensor.dims() {
                return Err(Error::Variable {
                    name: name.into(),
                    expected: format!("shape {:?}", var.dims()),
                    got: format!("{:?}", tensor.dims()),
                });
            }
        }
        Ok(Self {
            vars: vars.clone(),
            tensors,
        })
    }

    /// The zero vector.
    ///
    /// # Errors
    /// If candle cannot allocate.
    pub fn zeros(vars: &NamedVars) -> Result<Self> {
        let zeros = vars.iter().map(|(_, v)| Ok(v.zeros_like()?.detach()));
        Self::new(vars, zeros.collect::<Result<_>>()?)
    }

    /// A vector made by a function of (name, shape, dtype, device).
    ///
    /// # Errors
    /// Those of the function, or a shape that does not fit.
    pub fn from_fn(
        vars: &NamedVars,
        f: impl Fn(&str, &[usize], DType, &Device) -> Result<Tensor>,
    ) -> Result<Self> {
        let tensors = vars
            .iter()
            .map(|(n, v)| f(n, v.dims(), v.dtype(), v.device()));
        Self::new(vars, tensors.collect::<Result<_>>()?)
    }

    /// The variables it belongs to.
    pub fn vars(&self) -> &NamedVars {
        &self.vars
    }

    /// Its tensors in the order of the names.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The (name, tensor) pairs in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.vars.names().zip(&self.tensors)
    }

    /// The part that belongs to one variable.
    ///
    /// # Errors
    /// [`Error::UnknownVariable`] if there is no such variable.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        Ok(&self.tensors[self.vars.position(name)?])
    }

    /// The part of the vector that belongs to these of its variables.
    ///
    /// # Errors
    /// [`Error::UnknownVariable`] if it has none for one of them.
    pub fn restricted(&self, vars: &NamedVars) -> Result<Self> {
        let parts = vars.names().map(|name| Ok(self.get(name)?.clone()));
        Self::new(vars, parts.collect::<Result<_>>()?)
    }

    /// The same with numbers of the variables' own types, to which a wider vector's are rounded.
    ///
    /// # Errors
    /// If candle cannot convert.
    pub(crate) fn in_own_types(&self) -> Result<Self> {
        let pairs = self.vars.iter().zip(&self.tensors);
        let own = pairs.map(|((_, var), tensor)| Ok(tensor.to_dtype(var.dtype())?));
        Self::new(&self.vars, own.collect::<Result<_>>()?)
    }

    fn zip(&self, other: &Self, f: impl Fn(&Tensor, &Tensor) -> Result<Tensor>) -> Result<Self> {
        self.vars.expect_same(&other.vars)?;
        let pairs = self.tensors.iter().zip(&other.tensors);
        // A Hessian's product with a variable in half precision is of its type, an optimizer's diagonal in f32.
        let joined = pairs.map(|(a, b)| match a.dtype() == b.dtype() {
            true => f(a, b),
            false => f(&widened(a)?, &widened(b)?),
        });
        Self::new(&self.vars, joined.collect::<Result<_>>()?)
    }

    /// `self + factor · other`.
    ///
    /// # Errors
    /// [`Error::Variable`] if the two belong to different variables.
    pub fn add_scaled(&self, other: &Self, factor: f64) -> Result<Self> {
        self.zip(other, |a, b| Ok((a + (b * factor)?)?))
    }

    /// `factor · self`.
    ///
    /// # Errors
    /// If candle fails.
    pub fn scale(&self, factor: f64) -> Result<Self> {
        let scaled = self.tensors.iter().map(|t| Ok((t * factor)?));
        Self::new(&self.vars, scaled.collect::<Result<_>>()?)
    }

    /// The product entry by entry, `self ⊙ other`.
    ///
    /// # Errors
    /// [`Error::Variable`] if the two belong to different variables.
    pub fn hadamard(&self, other: &Self) -> Result<Self> {
        self.zip(other, |a, b| Ok((a * b)?))
    }

    /// The inner product, in f64.
    ///
    /// # Errors
    /// [`Error::Variable`] if the two belong to different variables.
    pub fn dot(&self, other: &Self) -> Result<f64> {
        self.vars.expect_same(&other.vars)?;
        let pairs = self.tensors.iter().zip(&other.tensors);
        pairs
            .map(|(a, b)| sum_f64(&(a.to_dtype(DType::F64)? * b.to_dtype(DType::F64)?)?))
            .sum()
    }

    /// The Euclidean norm.
    ///
    /// # Errors
    /// If candle fails.
    pub fn norm(&self) -> Result<f64> {
        Ok(self.dot(self)?.sqrt())
    }
}

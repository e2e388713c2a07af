//! An operation without its type.

use super::op::Values;
use super::{Array, Backend, Gradients, Held, Kernel, Output};
use crate::error::{Error, Result};
use std::any::Any;

/// What an operation leaves for its next turn, of whatever type it is: whoever made it looks at it.
pub(super) type Kept = Box<dyn Any + Send + Sync>;
pub(super) type Deferred = Box<dyn Any + Send>;

/// An operation and what its forward pass left. All that the passes do around it is written for this trait, and so
/// compiled once for each backend, not once for each operation.
pub(super) trait Applied<B: Backend>: Send + Sync {
    fn name(&self) -> &'static str;

    fn reads(&self, input: usize) -> bool;

    fn reads_value(&self) -> bool;

    fn adjoint<'a>(
        &'a self,
        values: Values<'a, B>,
        gradient: Option<&B::Numbers>,
        deferred: Option<Deferred>,
        wanted: &[bool],
        onto: &mut Gradients<B>,
    ) -> Result<(Gradients<B>, Kept)>;

    fn second_adjoint<'a>(
        &'a self,
        values: Values<'a, B>,
        gradient: &Array<B>,
        kept: &Kept,
        cotangents: &[Option<Held<B>>],
    ) -> Result<(Output<B>, Deferred)>;
}

pub(super) struct Operation<B: Backend, O: Kernel<B>> {
    pub op: O,
    pub saved: O::Saved,
}

impl<B: Backend, O: Kernel<B>> Applied<B> for Operation<B, O> {
    fn name(&self) -> &'static str {
        self.op.name()
    }

    fn reads(&self, input: usize) -> bool {
        self.op.reads(input)
    }

    fn reads_value(&self) -> bool {
        self.op.reads_value()
    }

    fn adjoint<'a>(
        &'a self,
        values: Values<'a, B>,
        gradient: Option<&B::Numbers>,
        deferred: Option<Deferred>,
        wanted: &[bool],
        onto: &mut Gradients<B>,
    ) -> Result<(Gradients<B>, Kept)> {
        let deferred = match deferred.map(|left| left.downcast::<O::Deferred>()) {
            None => None,
            Some(Ok(left)) => Some(*left),
            Some(Err(_)) => return Err(not_its_own(self.op.name())),
        };
        let point = values.with(&self.saved);
        let (gradients, kept) = (self.op).adjoint(&point, gradient, deferred, wanted, onto)?;
        Ok((gradients, Box::new(kept)))
    }

    fn second_adjoint<'a>(
        &'a self,
        values: Values<'a, B>,
        gradient: &Array<B>,
        kept: &Kept,
        cotangents: &[Option<Held<B>>],
    ) -> Result<(Output<B>, Deferred)> {
        let Some(kept) = kept.downcast_ref::<O::Kept>() else {
            return Err(not_its_own(self.op.name()));
        };
        let point = values.with(&self.saved);
        let (cotangent, deferred) = (self.op).second_adjoint(&point, gradient, kept, cotangents)?;
        Ok((cotangent, Box::new(deferred)))
    }
}

fn not_its_own(name: &str) -> Error {
    Error::Engine {
        what: format!("the operation `{name}` was given what another one has left"),
    }
}

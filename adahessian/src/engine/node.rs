//! An operation's part in the passes, written once for all of them.

use super::applied::{Applied, Deferred, Kept, Operation};
use super::graph;
use super::handle::Fused;
use super::op::Values;
use super::segment;
use super::slot::{Slot, collision};
use super::sweep::{self, no_third_derivative};
use super::{Array, Backend, Held, Inputs, Kernel, Output};
use crate::error::Result;
use std::sync::{Arc, Mutex};

struct Node<B: Backend> {
    operation: Box<dyn Applied<B>>,
    inputs: Vec<Arc<Slot<B>>>,
    /// The inputs' values.
    values: Vec<Option<Array<B>>>,
    output: Arc<Slot<B>>,
    value: Option<Array<B>>,
    /// Left by the second level's A, for this operation's own turn in the same pass, whose stamp it has.
    deferred: Mutex<Vec<(u64, Deferred)>>,
}

/// Runs an operation and puts it into candle's graph.
pub(crate) fn apply<B: Backend, O: Kernel<B>>(
    op: O,
    inputs: &[&Fused<B>],
    shape: &[usize],
) -> Result<Fused<B>> {
    let tracked = is_tracked(op.name(), inputs, shape)?;
    let (value, saved) = op.forward(&numbers_of(inputs)?, tracked)?;
    let operation = Operation { op, saved };
    match tracked {
        true => put(Box::new(operation), inputs, shape, value),
        false => constant(operation.op.name(), inputs, shape, value),
    }
}

/// Whether a result of this shape will be differentiated.
fn is_tracked<B: Backend>(
    name: &'static str,
    inputs: &[&Fused<B>],
    shape: &[usize],
) -> Result<bool> {
    if shape.contains(&0) {
        return Err(crate::Error::Setting {
            what: name,
            expected: "sizes that give at least one number".into(),
            got: format!("a result of shape {shape:?}"),
        });
    }
    Ok(graph::is_kept() && inputs.iter().any(|input| input.slot.tracked))
}

fn numbers_of<'a, B: Backend>(inputs: &[&'a Fused<B>]) -> Result<Inputs<'a, B>> {
    let views = inputs.iter().map(|input| input.value.view());
    Ok(Inputs {
        views: views.collect::<Result<_>>()?,
        shapes: inputs.iter().map(|input| &input.slot.shape[..]).collect(),
    })
}

fn held<B: Backend>(name: &'static str, mut value: Output<B>, shape: &[usize]) -> Result<Held<B>> {
    expect_length::<B>(name, "a value", &value.numbers, shape.iter().product())?;
    value.numbers = B::shaped(value.numbers, shape)?;
    Ok(value.into())
}

fn constant<B: Backend>(
    name: &'static str,
    inputs: &[&Fused<B>],
    shape: &[usize],
    value: Output<B>,
) -> Result<Fused<B>> {
    let value = held(name, value, shape)?;
    let input = inputs.first().ok_or_else(|| no_input(name))?;
    Ok(Fused {
        place: input.place.clone(),
        slot: Arc::new(Slot::new(shape, false)),
        value,
    })
}

fn put<B: Backend>(
    operation: Box<dyn Applied<B>>,
    inputs: &[&Fused<B>],
    shape: &[usize],
    value: Output<B>,
) -> Result<Fused<B>> {
    let value = held(operation.name(), value, shape)?;
    let output = Arc::new(Slot::new(shape, true));
    for input in inputs.iter().filter(|input| input.slot.tracked) {
        input.slot.add_consumer(operation.name());
    }
    let read = inputs.iter().enumerate();
    let node = Arc::new(Node {
        values: read
            .map(|(i, input)| operation.reads(i).then(|| input.value.keep()))
            .collect(),
        inputs: inputs.iter().map(|input| Arc::clone(&input.slot)).collect(),
        output: Arc::clone(&output),
        value: operation.reads_value().then(|| value.keep()),
        deferred: Mutex::new(Vec::new()),
        operation,
    });
    // Inputs that are not trained would only lengthen the graph.
    let place = segment::append(node, inputs.iter().copied().filter(|x| x.slot.tracked))?;
    Ok(Fused {
        place,
        slot: output,
        value,
    })
}

fn no_input(name: &str) -> crate::Error {
    crate::Error::Engine {
        what: format!("the operation `{name}` was called without an operand"),
    }
}

/// A kernel of somebody else may be mistaken; what it says it computed is looked at before it is used.
fn expect_length<B: Backend>(
    name: &'static str,
    what: &str,
    numbers: &B::Numbers,
    expected: usize,
) -> Result<()> {
    match B::length(numbers) {
        got if got == expected => Ok(()),
        got => Err(crate::Error::Engine {
            what: format!(
                "the kernel of `{name}` made {what} of {got} numbers; its shape has {expected}"
            ),
        }),
    }
}

impl<B: Backend> Node<B> {
    /// What is kept of the values of the inputs and of the output.
    fn kept_values(&self) -> Result<Values<'_, B>> {
        let inputs = self.values.iter();
        let inputs = inputs.map(|kept| kept.as_ref().map(Array::view).transpose());
        Ok(Values {
            name: self.operation.name(),
            inputs: inputs.collect::<Result<_>>()?,
            output: self.value.as_ref().map(Array::view).transpose()?,
            shapes: self.inputs.iter().map(|slot| &slot.shape[..]).collect(),
        })
    }

    /// What A left in this pass. What another pass has left stays with it.
    fn take_deferred(&self) -> Result<Vec<Deferred>> {
        let mut deferred = self.deferred.lock().unwrap_or_else(|e| e.into_inner());
        if deferred.iter().any(|(pass, _)| *pass != sweep::current()) {
            return Err(collision("second derivative"));
        }
        let deferred = std::mem::take(&mut *deferred);
        Ok(deferred.into_iter().map(|(_, left)| left).collect())
    }

    /// Whether the pass has come to it.
    fn is_due(&self) -> bool {
        let is_own = |(pass, _): &(u64, Deferred)| *pass == sweep::current();
        let deferred = self.deferred.lock().unwrap_or_else(|e| e.into_inner());
        self.output.take_reached() || deferred.iter().any(is_own)
    }

    /// Runs the operation's adjoint and adds to its inputs' gradients, for the `turn`-th time in this pass.
    fn adjoint(
        &self,
        gradient: Option<&B::Numbers>,
        deferred: Option<Deferred>,
        wanted: &[bool],
        turn: usize,
    ) -> Result<Kept> {
        let tracked = |slot: &Arc<Slot<B>>| match slot.tracked {
            true => slot.lend_gradient(),
            false => Ok(None),
        };
        let onto: Result<Vec<_>> = self.inputs.iter().map(tracked).collect();
        let mut onto = onto?;
        let values = self.kept_values()?;
        let operation = &self.operation;
        let (gradients, kept) = operation.adjoint(values, gradient, deferred, wanted, &mut onto)?;
        for (slot, left) in self.inputs.iter().zip(onto) {
            if let Some(left) = left {
                slot.give_back(left)?;
            }
        }
        let address = std::ptr::from_ref(self).addr();
        let parts = turn * self.inputs.len()..;
        for ((slot, gradient), part) in self.inputs.iter().zip(gradients).zip(parts) {
            if let (true, Some(gradient)) = (slot.tracked, gradient) {
                let name = operation.name();
                expect_length::<B>(name, "a gradient", &gradient, slot.length())?;
                let gradient = B::shaped(gradient, &slot.shape)?;
                slot.add_gradient(gradient, (address, part))?;
            }
        }
        Ok(kept)
    }
}

/// An operation's turn in a backward pass of either level.
pub(super) trait Turn: Send + Sync {
    fn name(&self) -> &'static str;

    /// Nothing where the pass has not come to it. Its adjoint, where the graph is kept.
    fn sweep(self: Arc<Self>, keep: bool) -> Result<Option<Box<dyn SecondTurn>>>;
}

impl<B: Backend> Turn for Node<B> {
    fn name(&self) -> &'static str {
        self.operation.name()
    }

    fn sweep(self: Arc<Self>, keep: bool) -> Result<Option<Box<dyn SecondTurn>>> {
        if !self.is_due() {
            return Ok(None);
        }
        let gradient = self.output.take_gradient()?;
        let mut deferred = self.take_deferred()?;
        self.output.clear_cotangent()?;
        for input in self.inputs.iter().filter(|slot| slot.tracked) {
            input.reach();
        }
        if keep && !deferred.is_empty() {
            return Err(no_third_derivative(self.operation.name()));
        }
        let wanted: Vec<bool> = self.inputs.iter().map(|slot| slot.tracked).collect();
        let first = deferred.pop();
        let mut kept = None;
        if gradient.is_some() || first.is_some() {
            kept = Some(self.adjoint(gradient.as_deref(), first, &wanted, 0)?);
        }
        // More than one only where two losses were differentiated over one graph.
        for (turn, deferred) in (1..).zip(deferred) {
            self.adjoint(None, Some(deferred), &wanted, turn)?;
        }
        Ok(match (gradient, kept) {
            (Some(gradient), Some(kept)) if keep => Some(Box::new(Adjoint {
                gradient: Array::Buffer(Arc::new(gradient)),
                kept,
                node: self,
            })),
            _ => None,
        })
    }
}

/// A.
struct Adjoint<B: Backend> {
    node: Arc<Node<B>>,
    gradient: Array<B>,
    kept: Kept,
}

/// An adjoint's turn in a second pass.
pub(super) trait SecondTurn: Send + Sync {
    fn name(&self) -> &'static str;

    /// Runs `second_adjoint`, where cotangents have come in.
    fn sweep(&self) -> Result<()>;
}

impl<B: Backend> SecondTurn for Adjoint<B> {
    fn name(&self) -> &'static str {
        self.node.operation.name()
    }

    fn sweep(&self) -> Result<()> {
        let node = &self.node;
        let cotangents = node
            .inputs
            .iter()
            .map(|slot| match slot.tracked {
                true => slot.read_cotangent(),
                false => Ok(None),
            })
            .collect::<Result<Vec<_>>>()?;
        if cotangents.iter().all(Option::is_none) {
            return Ok(());
        }
        let (operation, values) = (&node.operation, node.kept_values()?);
        let (mut cotangent, deferred) =
            operation.second_adjoint(values, &self.gradient, &self.kept, &cotangents)?;
        let length = node.output.length();
        expect_length::<B>(operation.name(), "a cotangent", &cotangent.numbers, length)?;
        cotangent.numbers = B::shaped(cotangent.numbers, &node.output.shape)?;
        node.output.set_cotangent(cotangent.into())?;
        let mut all = node.deferred.lock().unwrap_or_else(|e| e.into_inner());
        all.push((sweep::current(), deferred));
        Ok(())
    }
}

//! Steps of many variables as one: on a GPU, where a step is bound by how many operations are asked for, the
//! variables of one step's numbers are stepped by kernels made of the rule ([`traced`]), or laid end to end, and the
//! rule is computed once for all of them.

use super::bound::{self, StepBound};
use super::builder::Curvature;
use super::pass::{self, Diagonal, Later, Outcome, Pass};
use super::pending::Clipping;
use super::rule::{Rule, Step};
use super::traced;
use super::variable::{Rates, Slots};
use crate::error::Result;
use crate::numeric::{AT_ONCE, end_to_end, in_memory};
use crate::second_order::versions;
use candle_core::{DType, Tensor, TensorId, Var};

/// A variable of such a step.
pub(super) struct Member<'a> {
    pub(super) var: &'a Var,
    pub(super) slots: &'a mut Slots,
    pub(super) gradient: &'a Tensor,
    pub(super) diagonal: Option<Diagonal>,
    pub(super) step: Step,
    pub(super) bound: Option<StepBound>,
}

impl<'a> Member<'a> {
    /// Of a variable that is ready for it. The step is counted.
    pub fn new(
        curvature: &Curvature,
        var: &'a Var,
        slots: &'a mut Slots,
        (gradient, diagonal): (&'a Tensor, Option<&Tensor>),
        rates: &Rates,
    ) -> Self {
        Self {
            step: slots.begin(curvature, diagonal.is_some(), rates),
            diagonal: diagonal.map(|diagonal| slots.blocked(curvature, diagonal)),
            var,
            slots,
            gradient,
            bound: rates.bound,
        }
    }

    fn fits(&self, other: &Self) -> bool {
        self.step == other.step
            && self.bound == other.bound
            && self.diagonal.is_some() == other.diagonal.is_some()
            && self.var.dtype() == other.var.dtype()
            && self.var.device().same_device(other.var.device())
    }
}

/// Whether a variable can be a member: not on the CPU, which has a pass over memory of its own; nor where something
/// has to be read of each variable by itself, and no kernel does it for all.
pub(super) fn joins<R: Rule>(var: &Var, slots: &Slots, gradient: &Tensor) -> bool {
    let plain = matches!(var.dtype(), DType::F32 | DType::F64);
    let same = gradient.dtype() == var.dtype() && gradient.device().same_device(var.device());
    let together = !R::TRUST || traced::runs_on(var);
    plain && same && !in_memory(var) && together && slots.is_plain()
}

/// The members that fit together, in groups that are not too large.
pub(super) fn groups(members: Vec<Member<'_>>) -> Vec<Vec<Member<'_>>> {
    let mut groups: Vec<Vec<Member<'_>>> = Vec::new();
    for member in members {
        let has_room = |group: &Vec<Member<'_>>| {
            let entries: usize = group.iter().map(|member| member.var.elem_count()).sum();
            entries + member.var.elem_count() <= AT_ONCE
        };
        let mut all = groups.iter_mut();
        match all.find(|group| group[0].fits(&member) && has_room(group)) {
            Some(group) => group.push(member),
            None => groups.push(vec![member]),
        }
    }
    groups
}

/// The running quantities of a group as the last step has left them, and the variables' parts of them.
pub(super) struct Kept {
    parts: Vec<TensorId>,
    slots: Vec<Tensor>,
}

/// The part of each member of what lies end to end.
fn parts(flat: &Tensor, group: &[Member<'_>]) -> Result<Vec<Tensor>> {
    let mut start = 0;
    let part = |member: &Member<'_>| {
        let length = member.var.elem_count();
        let part = flat.narrow(0, start, length)?;
        start += length;
        Ok(part.reshape(member.var.shape())?)
    };
    group.iter().map(part).collect()
}

impl Kept {
    /// Those of a group: as they were left, or laid end to end where somebody has put others there.
    fn of(group: &[Member<'_>], kept: &[Self]) -> Result<Vec<Tensor>> {
        let ids = || group.iter().flat_map(|member| member.slots.ids());
        if let Some(kept) = kept
            .iter()
            .find(|kept| ids().eq(kept.parts.iter().copied()))
        {
            return Ok(kept.slots.clone());
        }
        let count = group[0].slots.tensors().len();
        let slot = |i: usize| end_to_end(group.iter().map(|member| &member.slots.tensors()[i]));
        (0..count).map(slot).collect()
    }
}

/// A step of a group: by kernels where there are some for it, else of candle's operations. `kept` has what the last step
/// of any group has left, the result what this one leaves.
pub(super) fn step<R: Rule>(
    rule: &R,
    clipping: Clipping,
    group: Vec<Member<'_>>,
    kept: &[Kept],
    later: &mut Later,
) -> Result<(Outcome, Vec<Kept>)> {
    if let Some(outcome) = traced::step(rule, clipping, &group, later)? {
        return Ok((outcome, Vec::new()));
    }
    // With trust every variable goes as far as its own norms say.
    let parts = match R::TRUST {
        true => group.into_iter().map(|member| vec![member]).collect(),
        false => vec![group],
    };
    let (mut outcome, mut left) = (Outcome::default(), Vec::new());
    for part in parts {
        let step = composed(rule, clipping, part, kept, later)?;
        outcome += step.0;
        left.push(step.1);
    }
    Ok((outcome, left))
}

/// A step of candle's operations.
fn composed<R: Rule>(
    rule: &R,
    clipping: Clipping,
    mut group: Vec<Member<'_>>,
    kept: &[Kept],
    later: &mut Later,
) -> Result<(Outcome, Kept)> {
    let mut outcome = Outcome::default();
    let mut slots = Kept::of(&group, kept)?;
    let value = end_to_end(group.iter().map(|member| member.var.as_tensor()))?.detach();
    let gradient = end_to_end(group.iter().map(|member| member.gradient))?;
    let fresh = group[0].diagonal.is_some();
    if fresh {
        let diagonals = group.iter().filter_map(|member| member.diagonal.as_ref());
        let averaged = diagonals.map(Diagonal::averaged);
        let averaged = averaged.collect::<Result<Vec<_>>>()?;
        let averaged = end_to_end(averaged.iter())?;
        slots = pass::observed(rule, &slots, &averaged)?;
        outcome = Outcome::of_diagonal(&averaged, later)?;
    }
    let pass = Pass {
        value: &value,
        gradient: &gradient,
        clipping,
        diagonal: None,
        step: group[0].step,
        bound: None,
    };
    let done = pass::composed(rule, &pass, &slots, fresh, later)?;
    if fresh {
        outcome.count_updated(value.elem_count());
    }
    let mut new = parts(&done.value, &group)?;
    match group[0].bound {
        Some(bound) => bound::each(bound, &parts(&value, &group)?, &mut new, later)?,
        None => {
            let change = (&done.value - &value)?.sqr()?;
            later.add(&change, |to, sum| to.change_squared += sum)?;
        }
    }
    for (member, new) in group.iter().zip(&new) {
        versions::set(member.var, new)?;
    }
    let mut by_slot = Vec::with_capacity(done.slots.len());
    for slot in &done.slots {
        by_slot.push(parts(slot, &group)?.into_iter());
    }
    for member in &mut group {
        let own = by_slot.iter_mut().filter_map(Iterator::next).collect();
        member.slots.set_tensors(own);
    }
    let kept = Kept {
        parts: group.iter().flat_map(|member| member.slots.ids()).collect(),
        slots: done.slots,
    };
    Ok((outcome, kept))
}

#[cfg(test)]
mod tests {
    use super::super::group::Resolved;
    use super::*;
    use crate::block::{Block, Blocks};
    use crate::optim::{AdaHessian, AdamW, Builder, Sgd, SophiaH, State};
    use crate::random::Stream;
    use candle_core::Device;

    const SHAPES: [&[usize]; 3] = [&[3, 4], &[5], &[2, 2, 3]];

    fn normal(name: &str, shape: &[usize]) -> Tensor {
        let stream = Stream::new(5, name, 0, 0);
        let numbers = stream.normal_tensor(shape, DType::F32, &Device::Cpu);
        numbers.unwrap()
    }

    /// Five steps, the third without a new D, after the third from a state; values, states and the last outcome.
    fn run<R: Rule>(builder: &Builder<R>, together: bool) -> (Vec<Tensor>, Vec<State>, Outcome) {
        let settings = Resolved {
            lr_scale: 1.0,
            weight_decay: 0.1,
            block: None,
            allow_unreached: false,
        };
        let (rule, curvature) = (&builder.rule, &builder.curvature);
        let var = |shape: &&[usize]| Var::from_tensor(&normal("value", shape)).unwrap();
        let vars: Vec<Var> = SHAPES.iter().map(var).collect();
        let slots = vars
            .iter()
            .map(|var| Slots::new(rule, curvature, "w", var, &settings));
        let mut slots: Vec<Slots> = slots.map(Result::unwrap).collect();
        let (mut kept, mut outcome, mut states) = (Vec::new(), Outcome::default(), Vec::new());
        for number in 0..5 {
            let clipping = Clipping {
                limit: (number > 0).then_some(1.5),
                scale: None,
            };
            let rates = Rates {
                lr: 0.05,
                weight_decay: settings.weight_decay,
                clipping,
                bound: builder.common.bound,
            };
            let given: Vec<_> = SHAPES
                .iter()
                .map(|shape| {
                    let gradient = normal(&format!("g{number}"), shape);
                    let diagonal = normal(&format!("d{number}"), shape);
                    let fresh = R::SECOND_ORDER && number != 2;
                    (gradient, fresh.then_some(diagonal))
                })
                .collect();
            let mut later = Later::default();
            outcome = Outcome::default();
            let each = vars.iter().zip(&mut slots).zip(&given);
            if together {
                let members = each.map(|((var, slots), (g, d))| {
                    Member::new(curvature, var, slots, (g, d.as_ref()), &rates)
                });
                let mut groups = groups(members.collect());
                assert_eq!(groups.len(), 1);
                let done = step(rule, clipping, groups.remove(0), &kept, &mut later).unwrap();
                outcome += done.0;
                kept = done.1;
            } else {
                for ((var, slots), (g, d)) in each {
                    let given = (Some(g), d.as_ref());
                    let done = slots.step_composed(rule, curvature, var, given, &rates, &mut later);
                    outcome += done.unwrap();
                }
            }
            later.settle(&mut outcome).unwrap();
            states = Vec::new();
            for own in &mut slots {
                let mut state = State::default();
                own.save(rule, "w", &mut state).unwrap();
                if number == 2 {
                    *own = own.restored(rule, "w", &state).unwrap();
                }
                states.push(state);
            }
        }
        let values = vars.iter().map(|var| var.as_tensor().copy().unwrap());
        (values.collect(), states, outcome)
    }

    fn numbers(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Values, where there is no bound, and running quantities to the last bit.
    fn agrees<R: Rule>(builder: Builder<R>) {
        let (together, alone) = (run(&builder, true), run(&builder, false));
        for (a, b) in together.0.iter().zip(&alone.0) {
            let bounded = builder.common.bound.is_some();
            for (a, b) in numbers(a).into_iter().zip(numbers(b)) {
                let apart = (a - b).abs();
                assert!(
                    apart == 0.0 || bounded && apart <= 1e-6,
                    "{}: {a} {b}",
                    R::NAME
                );
            }
        }
        for (a, b) in together.1.iter().zip(&alone.1) {
            assert_eq!(a.tensors.len(), b.tensors.len());
            for (name, a) in &a.tensors {
                assert_eq!(numbers(a), numbers(&b.tensors[name]), "{} {name}", R::NAME);
            }
        }
        let (a, b) = (together.2, alone.2);
        assert_eq!(
            (a.updated, a.entries, a.bounded),
            (b.updated, b.entries, b.bounded)
        );
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-6 * b.abs();
        assert!(close(a.change_squared, b.change_squared), "{a:?} {b:?}");
        assert!(close(a.abs_sum, b.abs_sum), "{a:?} {b:?}");
        assert_eq!((a.abs_max, a.below_eps), (b.abs_max, b.below_eps));
    }

    #[test]
    fn one_step_of_all_is_a_step_of_each() {
        let blocks = Blocks::matrices(Block::Chunks(2));
        agrees(AdaHessian::default().lr(0.1).blocks(blocks));
        agrees(SophiaH::default().lr(0.1));
        // Binds in some variables and steps.
        agrees(AdamW::default().lr(0.1).bound(0.05));
        agrees(AdaHessian::default().lr(0.1).bound(0.2));
        agrees(AdamW::default().lr(0.1));
        agrees(Sgd::default().lr(0.1));
    }
}

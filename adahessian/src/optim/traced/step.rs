//! The kernels of one step of many variables, and what is read of them afterwards.

use super::arrays::Arrays;
use super::launch::{LONGEST_RUN, Scratch, Sums, Work, average, run};
use super::program::{self, Fresh};
use crate::error::Result;
use crate::numeric::cuda::{self, address, type_of, written_address};
use crate::numeric::traced::assembly::Type;
use crate::optim::bound::StepBound;
use crate::optim::pass::{Diagonal, Later, Outcome};
use crate::optim::pending::Clipping;
use crate::optim::rule::{Rule, Step};
use crate::optim::together::Member;
use candle_core::{CudaDevice, Tensor};

/// Whether a variable's memory is such that kernels can be run on it.
pub(in crate::optim) fn runs_on(x: &Tensor) -> bool {
    cuda::device(x).is_some() && x.is_contiguous() && type_of(x.dtype()).is_some()
}

/// What all members of a group have in common.
struct Group<'a, R> {
    rule: &'a R,
    step: Step,
    clipping: Clipping,
    bound: Option<StepBound>,
    device: CudaDevice,
    of: Type,
}

/// A group's step. What it adds to the outcome is read later, of all groups at once. None, and nothing done, where
/// the rule or the device takes candle's operations.
pub(in crate::optim) fn step<R: Rule>(
    rule: &R,
    clipping: Clipping,
    members: &[Member<'_>],
    later: &mut Later,
) -> Result<Option<Outcome>> {
    let Some(first) = members.first() else {
        return Ok(None);
    };
    let (Some(device), Some(of)) = (cuda::device(first.var), type_of(first.var.dtype())) else {
        return Ok(None);
    };
    let contiguous = |member: &Member<'_>| {
        let mut all = member
            .slots
            .tensors()
            .iter()
            .chain([member.var.as_tensor()]);
        all.all(Tensor::is_contiguous)
    };
    if !members.iter().all(contiguous) || R::TRUST && first.diagonal.is_some() {
        return Ok(None);
    }
    let group = Group {
        rule,
        step: first.step,
        clipping,
        bound: first.bound,
        device: device.clone(),
        of,
    };
    let done = match R::TRUST {
        true => group.trusted(members, later)?,
        false => group.plain(members, later)?,
    };
    let fresh = first.diagonal.as_ref().map_or(0, |_| entries(members));
    Ok(done.then(|| Outcome {
        updated: fresh,
        entries: fresh,
        ..Outcome::default()
    }))
}

/// Whether every entry is a block of its own, and |D| is taken of each.
fn is_absolute(member: &Member<'_>) -> bool {
    let diagonal = member.diagonal.as_ref();
    let averaging = diagonal.and_then(Diagonal::averages_as);
    averaging.is_some_and(|averaging| averaging.run == 1 && averaging.absolute)
}

fn entries(members: &[Member<'_>]) -> usize {
    members.iter().map(|member| member.var.elem_count()).sum()
}

impl<R: Rule> Group<'_, R> {
    fn scratch(&self, members: &[Member<'_>]) -> Result<Scratch> {
        Scratch::new(&self.device, self.of, entries(members))
    }

    /// Room for the old values, where a bound may take something back.
    fn old(&self, members: &[Member<'_>], arrays: &mut Arrays) -> Result<Option<Scratch>> {
        let scratch = self.bound.map(|_| self.scratch(members)).transpose()?;
        if let Some(scratch) = &scratch {
            arrays.push_scratch(scratch.address(&self.device), self.of);
        }
        Ok(scratch)
    }

    /// A step of a rule without trust.
    fn plain(&self, members: &[Member<'_>], later: &mut Later) -> Result<bool> {
        let fresh = match &members[0].diagonal {
            None => Fresh::No,
            Some(_) if members.iter().all(is_absolute) => Fresh::Absolute,
            Some(_) => Fresh::Averaged,
        };
        let kept = self.bound.is_some();
        let program = program::update(self.rule, &self.step, self.clipping, fresh, kept);
        let Some(program) = program else {
            return Ok(false);
        };
        let mut arrays = Arrays::of(members, true)?;
        let averages = self.diagonals(members, fresh, &mut arrays)?;
        let old = self.old(members, &mut arrays)?;
        let sums = run(&self.device, &program, self.of, &arrays.work)?;
        arrays.used(members)?;
        drop(averages);
        let largest = program.shape.largest.map(|_| program.shape.sums.len());
        self.read_later(members, sums, old, largest, later, move |outcome, sums| {
            outcome.below_eps += sums[1];
            outcome.abs_sum += sums[2];
            if let Some(largest) = largest {
                outcome.abs_max = outcome.abs_max.max(sums[largest]);
            }
            Bounded {
                change: sums[0],
                value: sums[3],
            }
        });
        Ok(true)
    }

    /// Adds the arrays of D: as it is, or averaged into memory that is given back.
    fn diagonals(
        &self,
        members: &[Member<'_>],
        fresh: Fresh,
        arrays: &mut Arrays,
    ) -> Result<Option<Scratch>> {
        if fresh == Fresh::No {
            return Ok(None);
        }
        let mut each = Vec::with_capacity(members.len());
        for diagonal in members.iter().filter_map(|member| member.diagonal.as_ref()) {
            let (count, as_it_is) = (diagonal.tensor.elem_count(), diagonal.averages_as());
            let short = as_it_is.map(|averaging| (averaging.run.min(count), averaging.absolute));
            each.push(match short.filter(|(run, _)| *run <= LONGEST_RUN) {
                Some((run, absolute)) => (diagonal.tensor.contiguous()?, run, absolute),
                // Too long for a thread, or with a floor.
                None => (diagonal.averaged()?.contiguous()?, 1, false),
            });
        }
        let as_it_is = |(_, run, absolute): &(Tensor, usize, bool)| {
            *run == 1 && (fresh == Fresh::Absolute || !absolute)
        };
        if each.iter().all(as_it_is) {
            for ((tensor, ..), work) in each.into_iter().zip(&mut arrays.work) {
                work.arrays.push(address(&tensor)?);
                arrays.kept.push(tensor);
            }
            return Ok(None);
        }
        let scratch = self.scratch(members)?;
        arrays.push_scratch(scratch.address(&self.device), self.of);
        for absolute in [true, false] {
            let mut rows = Vec::new();
            for ((tensor, run, is_absolute), work) in each.iter().zip(&arrays.work) {
                if *is_absolute == absolute {
                    let to = work.arrays[work.arrays.len() - 1];
                    rows.push((address(tensor)?, to, work.count, *run));
                }
            }
            average(&self.device, self.of, absolute, &rows)?;
        }
        // Their use is marked with the others'.
        arrays
            .kept
            .extend(each.into_iter().map(|(tensor, ..)| tensor));
        Ok(Some(scratch))
    }

    /// A step of a rule with trust: norms of every variable first, which decide how far it goes.
    fn trusted(&self, members: &[Member<'_>], later: &mut Later) -> Result<bool> {
        let kept = self.bound.is_some();
        let first = program::directions(self.rule, &self.step, self.clipping);
        let second = program::trusted(self.rule, &self.step, kept);
        let (Some(first), Some(second)) = (first, second) else {
            return Ok(false);
        };
        let arrays = Arrays::of(members, true)?;
        let norms = run(&self.device, &first, self.of, &arrays.work)?;
        arrays.used(members)?;
        let norms = norms.read(&self.device, members.len(), None)?;
        let mut arrays = Arrays::of(members, false)?;
        for (work, norms) in arrays.work.iter_mut().zip(norms) {
            let trust = self.rule.trust(norms[0].sqrt(), norms[1].sqrt());
            work.shared = vec![self.step.lr * trust];
        }
        let old = self.old(members, &mut arrays)?;
        let sums = run(&self.device, &second, self.of, &arrays.work)?;
        arrays.used(members)?;
        self.read_later(members, sums, old, None, later, |_, sums| Bounded {
            change: sums[0],
            value: sums.get(1).copied().unwrap_or_default(),
        });
        Ok(true)
    }

    /// Leaves for later what has to wait for the device: the sums, and what the bound takes back by them.
    fn read_later(
        &self,
        members: &[Member<'_>],
        sums: Sums,
        old: Option<Scratch>,
        largest: Option<usize>,
        later: &mut Later,
        note: impl Fn(&mut Outcome, &[f64]) -> Bounded + 'static,
    ) {
        let vars: Vec<Tensor> = members
            .iter()
            .map(|member| member.var.as_detached_tensor())
            .collect();
        let (device, of, bound) = (self.device.clone(), self.of, self.bound);
        later.read(move |outcome| {
            let mut back = Vec::new();
            let mut begin = 0;
            let sums = sums.read(&device, vars.len(), largest)?;
            for (var, sums) in vars.iter().zip(sums) {
                let count = var.elem_count();
                let noted = note(outcome, &sums);
                let share = match bound {
                    Some(bound) => bound.share(noted.change, noted.value, count),
                    None => 1.0,
                };
                // Of an endless change nothing is left.
                if share > 0.0 {
                    outcome.change_squared += noted.change * share * share;
                }
                if share < 1.0 {
                    outcome.bounded += 1;
                    back.push((var, begin, share));
                }
                begin += count;
            }
            match &old {
                Some(old) if !back.is_empty() => pull_back(&device, of, old, &back),
                _ => Ok(()),
            }
        });
    }
}

/// What a bound looks at: the change and the old value, squared.
struct Bounded {
    change: f64,
    value: f64,
}

/// Leaves a share of the change of each variable, whose old values begin at this entry of `old`.
fn pull_back(
    device: &CudaDevice,
    of: Type,
    old: &Scratch,
    back: &[(&Tensor, usize, f64)],
) -> Result<()> {
    let Some(program) = program::pull_back() else {
        return Ok(());
    };
    let old = old.address(device);
    let mut work = Vec::with_capacity(back.len());
    for (var, begin, share) in back {
        work.push(Work {
            arrays: vec![written_address(var)?, old + (begin * of.bytes) as u64],
            shared: vec![*share],
            count: var.elem_count(),
        });
    }
    run(device, &program, of, &work)?;
    for (var, ..) in back {
        written_address(var)?;
    }
    Ok(())
}

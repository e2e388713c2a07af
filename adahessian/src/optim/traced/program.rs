//! What a kernel does to every entry of many variables: instructions, and where their results go.

use crate::numeric::traced::{Instruction, Recorder, Register, Symbol};
use crate::optim::number::Number;
use crate::optim::pending::Clipping;
use crate::optim::rule::{Entry, Rule, Step};

/// What stays the same from step to step: a kernel is made of it once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    pub instructions: Vec<Instruction>,
    /// How many arrays a variable has, in the order in which [`Instruction::Entry`] counts them.
    pub arrays: usize,
    /// How many numbers of its own.
    pub shared: usize,
    /// The arrays that are written to, and with what.
    pub stores: Vec<(usize, Register)>,
    /// What is summed over the entries.
    pub sums: Vec<Sum>,
    /// That of which the largest is found, which is nowhere negative.
    pub largest: Option<Register>,
}

/// What is summed over the entries, in f64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sum {
    Of(Register),
    /// The square, taken in f64: one of f32 can be beyond its range.
    OfSquare(Register),
}

/// A kernel and the constants of one step.
pub(crate) struct Program {
    pub shape: Shape,
    pub constants: Vec<f64>,
}

/// A kernel's parameters have 4 KiB, two of them addresses, one a count.
const MOST_CONSTANTS: usize = 4096 / 8 - 3;

/// A program that is being written.
#[derive(Default)]
struct Writing {
    recorder: Recorder,
    arrays: usize,
    shared: usize,
    stores: Vec<(usize, Register)>,
    sums: Vec<Sum>,
    largest: Option<Register>,
}

impl Writing {
    /// The next array's entry.
    fn array(&mut self) -> Symbol {
        self.arrays += 1;
        self.recorder.input(Instruction::Entry(self.arrays - 1))
    }

    /// The next number that a variable's entries share.
    fn shared(&mut self) -> Symbol {
        self.shared += 1;
        self.recorder.input(Instruction::Shared(self.shared - 1))
    }

    fn store(&mut self, array: usize, symbol: &Symbol) {
        self.stores.push((array, symbol.register));
    }

    fn sum(&mut self, symbol: &Symbol) {
        self.sums.push(Sum::Of(symbol.register));
    }

    fn sum_of_squares(&mut self, symbol: &Symbol) {
        self.sums.push(Sum::OfSquare(symbol.register));
    }

    /// None where something cannot be done by a kernel.
    fn done(self) -> Option<Program> {
        let tape = self.recorder.take();
        let fits = !tape.incomplete && tape.constants.len() <= MOST_CONSTANTS;
        fits.then_some(Program {
            shape: Shape {
                instructions: tape.instructions,
                arrays: self.arrays,
                shared: self.shared,
                stores: self.stores,
                sums: self.sums,
                largest: self.largest,
            },
            constants: tape.constants,
        })
    }
}

/// The gradient as [`crate::numeric::in_place::Clip`] makes it.
fn clipped(gradient: Symbol, clipping: Clipping) -> Symbol {
    use crate::optim::number::Number;
    let limited = match clipping.limit {
        Some(limit) => gradient.min(limit).max(-limit),
        None => gradient,
    };
    match clipping.scale {
        Some(scale) => limited * scale,
        None => limited,
    }
}

/// What a step's kernel is told of D.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fresh {
    /// There is no new one.
    No,
    /// It is averaged.
    Averaged,
    /// Every entry is a block of its own, of which |D| is taken.
    Absolute,
}

/// A step of a rule without trust. Arrays: θ, g, the running quantities, then D where it is fresh, then the old θ
/// where it is `kept`. Sums: the change squared, entries below eps, |D|, old θ squared; the last three are zero
/// where there is nothing of the kind.
pub(crate) fn update<R: Rule>(
    rule: &R,
    step: &Step,
    clipping: Clipping,
    fresh: Fresh,
    kept: bool,
) -> Option<Program> {
    let mut writing = Writing::default();
    let (old, gradient) = (writing.array(), writing.array());
    let mut slots: Vec<Symbol> = rule.slots().iter().map(|_| writing.array()).collect();
    let zero = writing.recorder.constant(0.0);
    let mut size = zero.clone();
    if fresh != Fresh::No {
        use crate::optim::number::Number;
        let diagonal = writing.array();
        size = diagonal.clone().abs();
        let averaged = match fresh {
            Fresh::Absolute => size.clone(),
            _ => diagonal,
        };
        rule.observe(averaged, &mut slots);
        writing.largest = Some(size.register);
    }
    let scalars = rule.scalars(step);
    let x = Entry {
        value: old.clone(),
        gradient: clipped(gradient, clipping),
        slots: &mut slots,
    };
    let new = rule.update(step, scalars, x);
    let below = match fresh {
        Fresh::No => None,
        _ => rule.below_eps(scalars, &slots),
    };
    writing.store(0, &new);
    for (number, slot) in slots.iter().enumerate() {
        writing.store(2 + number, slot);
    }
    writing.sum_of_squares(&(new - old.clone()));
    writing.sum(&below.unwrap_or_else(|| zero.clone()));
    writing.sum(&size);
    match kept {
        true => {
            let place = writing.arrays;
            writing.arrays += 1;
            writing.store(place, &old);
            writing.sum_of_squares(&old);
        }
        false => writing.sum(&zero),
    }
    writing.done()
}

/// The first of two passes of a rule with trust. Arrays: θ, g, the running quantities. Sums: θ and the direction
/// squared.
pub(crate) fn directions<R: Rule>(rule: &R, step: &Step, clipping: Clipping) -> Option<Program> {
    let mut writing = Writing::default();
    let (value, gradient) = (writing.array(), writing.array());
    let mut slots: Vec<Symbol> = rule.slots().iter().map(|_| writing.array()).collect();
    let x = Entry {
        value: value.clone(),
        gradient: clipped(gradient, clipping),
        slots: &mut slots,
    };
    let direction = rule.update(step, rule.scalars(step), x);
    for (number, slot) in slots.iter().enumerate() {
        writing.store(2 + number, slot);
    }
    writing.sum_of_squares(&value);
    writing.sum_of_squares(&direction);
    writing.done()
}

/// The second one: θ - rate · direction. Arrays: θ, the running quantities, the old θ where it is `kept`. One
/// shared number, the rate. Sums: the change squared, old θ squared.
pub(crate) fn trusted<R: Rule>(rule: &R, step: &Step, kept: bool) -> Option<Program> {
    let mut writing = Writing::default();
    let old = writing.array();
    let slots: Vec<Symbol> = rule.slots().iter().map(|_| writing.array()).collect();
    let rate = writing.shared();
    let direction = rule.direction(step, rule.scalars(step), old.clone(), &slots)?;
    let new = old.clone() - direction * rate;
    writing.store(0, &new);
    writing.sum_of_squares(&(new - old.clone()));
    if kept {
        let place = writing.arrays;
        writing.arrays += 1;
        writing.store(place, &old);
        writing.sum_of_squares(&old);
    }
    writing.done()
}

/// old + share · (new - old) in the place of new; of an endless change, whose share is 0, nothing. Arrays: new, old. One shared
/// number. Sum: what is left of the change, squared.
pub(crate) fn pull_back() -> Option<Program> {
    let mut writing = Writing::default();
    let (new, old, share) = (writing.array(), writing.array(), writing.shared());
    let most = f64::from(f32::MAX);
    let change = Number::clamp(new - old.clone(), -most, most);
    let kept = old.clone() + change * share;
    writing.store(0, &kept);
    writing.sum_of_squares(&(kept - old));
    writing.done()
}

/// Arrays: two, and their product.
pub(crate) fn products() -> Option<Program> {
    let mut writing = Writing::default();
    let (a, b) = (writing.array(), writing.array());
    let place = writing.arrays;
    writing.arrays += 1;
    writing.store(place, &(a * b));
    writing.done()
}

/// One array. Sum: its squares.
pub(crate) fn squares() -> Option<Program> {
    let mut writing = Writing::default();
    let x = writing.array();
    writing.sum_of_squares(&x);
    writing.done()
}

//! A rule written down: it is called once with symbols in place of numbers, and what it does with them becomes a
//! list of instructions, from which a device's kernel is made.
//!
//! The instructions are those of [`Lane`](crate::optim::number::Lane), one for one and in their order, so that a
//! kernel whose arithmetic rounds as the CPU's does computes the CPU's numbers to the last bit. Constants (rates,
//! decays, corrections of a bias) are none of the instructions: they change from step to step, the kernel does not.

use crate::optim::number::Number;
use std::cell::RefCell;
use std::ops::{Add, Div, Mul, Neg, Sub};
use std::rc::Rc;

/// The number of an instruction, which stands for its result.
pub(crate) type Register = usize;

/// What an instruction computes, of results of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Instruction {
    /// An entry of the k-th array.
    Entry(usize),
    /// The k-th number of the variable, which all of its entries share.
    Shared(usize),
    /// The k-th constant.
    Constant(usize),
    Add(Register, Register),
    Sub(Register, Register),
    Mul(Register, Register),
    Div(Register, Register),
    Neg(Register),
    Abs(Register),
    Sqrt(Register),
    /// `then` where `a` is below `b`, else `otherwise`, also where one of them is not a number.
    Below {
        a: Register,
        b: Register,
        then: Register,
        otherwise: Register,
    },
}

/// The instructions so far.
#[derive(Default)]
pub(crate) struct Tape {
    pub instructions: Vec<Instruction>,
    pub constants: Vec<f64>,
    /// Whether something was asked for that no instruction does.
    pub incomplete: bool,
}

/// A tape that symbols write to.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Rc<RefCell<Tape>>);

impl Recorder {
    /// A symbol of what comes from outside: [`Instruction::Entry`] or [`Instruction::Shared`].
    pub fn input(&self, instruction: Instruction) -> Symbol {
        self.symbol(instruction)
    }

    /// A symbol of a constant.
    pub fn constant(&self, value: f64) -> Symbol {
        let mut tape = self.0.borrow_mut();
        tape.constants.push(value);
        let number = tape.constants.len() - 1;
        drop(tape);
        self.symbol(Instruction::Constant(number))
    }

    fn symbol(&self, instruction: Instruction) -> Symbol {
        let mut tape = self.0.borrow_mut();
        tape.instructions.push(instruction);
        Symbol {
            register: tape.instructions.len() - 1,
            recorder: self.clone(),
        }
    }

    /// What was written down.
    pub fn take(&self) -> Tape {
        self.0.take()
    }
}

/// A number that is not known yet.
#[derive(Clone)]
pub(crate) struct Symbol {
    pub register: Register,
    recorder: Recorder,
}

impl Symbol {
    fn then(&self, instruction: Instruction) -> Self {
        self.recorder.symbol(instruction)
    }

    fn constant(&self, value: f64) -> Register {
        self.recorder.constant(value).register
    }
}

macro_rules! operators {
    ($($operator:ident $method:ident $constant:expr;)*) => {$(
        impl $operator for Symbol {
            type Output = Self;
            fn $method(self, other: Self) -> Self {
                self.then(Instruction::$operator(self.register, other.register))
            }
        }

        impl $operator<f64> for Symbol {
            type Output = Self;
            fn $method(self, constant: f64) -> Self {
                let of: fn(&Self, f64) -> Instruction = $constant;
                self.then(of(&self, constant))
            }
        }
    )*};
}

operators! {
    Add add |x, c| Instruction::Add(x.register, x.constant(c));
    Sub sub |x, c| Instruction::Sub(x.register, x.constant(c));
    Mul mul |x, c| Instruction::Mul(x.register, x.constant(c));
    Div div |x, c| Instruction::Mul(x.register, x.constant(1.0 / c));
}

impl Neg for Symbol {
    type Output = Self;
    fn neg(self) -> Self {
        self.then(Instruction::Neg(self.register))
    }
}

impl Number for Symbol {
    fn sqrt(self) -> Self {
        self.then(Instruction::Sqrt(self.register))
    }

    fn abs(self) -> Self {
        self.then(Instruction::Abs(self.register))
    }

    fn square(self) -> Self {
        self.then(Instruction::Mul(self.register, self.register))
    }

    /// A device's power is not the CPU's to the last bit, and no single instruction: such a rule is composed of
    /// candle's operations.
    fn powf(self, exponent: f64) -> Self {
        if exponent != 1.0 {
            self.recorder.0.borrow_mut().incomplete = true;
        }
        self
    }

    fn max(self, bound: f64) -> Self {
        let (x, bound) = (self.register, self.constant(bound));
        self.then(Instruction::Below {
            a: x,
            b: bound,
            then: bound,
            otherwise: x,
        })
    }

    fn min(self, bound: f64) -> Self {
        let (x, bound) = (self.register, self.constant(bound));
        self.then(Instruction::Below {
            a: bound,
            b: x,
            then: bound,
            otherwise: x,
        })
    }

    fn below(self, bound: f64) -> Self {
        let [bound, one, zero] = [bound, 1.0, 0.0].map(|c| self.constant(c));
        self.then(Instruction::Below {
            a: self.register,
            b: bound,
            then: one,
            otherwise: zero,
        })
    }
}

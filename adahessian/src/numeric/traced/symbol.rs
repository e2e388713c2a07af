//! Numbers that are not known yet.

use super::tape::{Instruction, Recorder, Register, Test};
use std::ops::{Add, Div, Mul, Neg, Sub};

/// A number that is not known yet. Arithmetic with it, by value or by reference, is written to its tape. Constants
/// are f64 and become the type of the others; `x / c` multiplies with `1 / c`, as candle does.
#[derive(Clone)]
pub(crate) struct Symbol {
    pub register: Register,
    recorder: Recorder,
}

impl Symbol {
    pub(super) fn of(register: Register, recorder: Recorder) -> Self {
        Self { register, recorder }
    }

    fn then(&self, instruction: Instruction) -> Self {
        self.recorder.symbol(instruction)
    }

    /// A constant of the same tape.
    pub fn constant(&self, value: f64) -> Self {
        self.recorder.constant(value)
    }

    /// Its tape.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    pub fn abs(&self) -> Self {
        self.then(Instruction::Abs(self.register))
    }

    pub fn sqrt(&self) -> Self {
        self.then(Instruction::Sqrt(self.register))
    }

    pub fn square(&self) -> Self {
        self.then(Instruction::Mul(self.register, self.register))
    }

    /// 1 / x
    pub fn recip(&self) -> Self {
        self.constant(1.0) / self
    }

    /// eˣ
    pub fn exp(&self) -> Self {
        self.then(Instruction::Exp(self.register))
    }

    /// tanh x
    pub fn tanh(&self) -> Self {
        self.then(Instruction::Tanh(self.register))
    }

    /// What its group shares, as a number of each entry.
    pub fn spread(&self) -> Self {
        self.then(Instruction::Spread(self.register))
    }

    /// Φ(x) of the normal distribution.
    pub fn normal(&self) -> Self {
        self.then(Instruction::Normal(self.register))
    }

    /// The sum over its group.
    pub fn sum(&self) -> Self {
        self.then(Instruction::Sum(self.register))
    }

    /// The largest of its group.
    pub fn largest(&self) -> Self {
        self.then(Instruction::Largest(self.register))
    }

    /// `then` where the test is true of this and `other`, else `otherwise`.
    pub fn choose(&self, test: Test, other: &Self, then: &Self, otherwise: &Self) -> Self {
        self.then(Instruction::Choose {
            test,
            a: self.register,
            b: other.register,
            then: then.register,
            otherwise: otherwise.register,
        })
    }
}

macro_rules! operators {
    ($($operator:ident $method:ident $constant:expr;)*) => {$(
        impl $operator<&Symbol> for &Symbol {
            type Output = Symbol;
            fn $method(self, other: &Symbol) -> Symbol {
                self.then(Instruction::$operator(self.register, other.register))
            }
        }

        impl $operator<&Symbol> for Symbol {
            type Output = Symbol;
            fn $method(self, other: &Symbol) -> Symbol {
                (&self).$method(other)
            }
        }

        impl $operator<Symbol> for &Symbol {
            type Output = Symbol;
            fn $method(self, other: Symbol) -> Symbol {
                self.$method(&other)
            }
        }

        impl $operator for Symbol {
            type Output = Symbol;
            fn $method(self, other: Symbol) -> Symbol {
                (&self).$method(&other)
            }
        }

        impl $operator<f64> for &Symbol {
            type Output = Symbol;
            fn $method(self, constant: f64) -> Symbol {
                let of: fn(&Symbol, f64) -> Symbol = $constant;
                of(self, constant)
            }
        }

        impl $operator<f64> for Symbol {
            type Output = Symbol;
            fn $method(self, constant: f64) -> Symbol {
                (&self).$method(constant)
            }
        }
    )*};
}

operators! {
    Add add |x, c| x + x.constant(c);
    Sub sub |x, c| x - x.constant(c);
    Mul mul |x, c| x * x.constant(c);
    Div div |x, c| x * x.constant(1.0 / c);
}

impl Neg for &Symbol {
    type Output = Symbol;
    fn neg(self) -> Symbol {
        self.then(Instruction::Neg(self.register))
    }
}

impl Neg for Symbol {
    type Output = Symbol;
    fn neg(self) -> Symbol {
        -&self
    }
}

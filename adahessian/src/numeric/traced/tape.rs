//! What was done with symbols, as a list of instructions.
//!
//! The instructions are those of the CPU's arithmetic, one for one and in their order, so that a kernel whose
//! operations round as the CPU's do computes the CPU's numbers to the last bit. Constants (rates, decays,
//! corrections of a bias) are none of the instructions: they change from call to call, the kernel does not.

use super::Symbol;
use std::cell::RefCell;
use std::rc::Rc;

/// The number of an instruction, which stands for its result.
pub(crate) type Register = usize;

/// What two numbers are compared by. Nothing is true of what is not a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Test {
    Below,
    AtMost,
    Equal,
}

/// What an instruction computes, of results of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Instruction {
    /// An entry of the k-th array.
    Entry(usize),
    /// The k-th of the numbers that all entries of a variable or of a group share.
    Shared(usize),
    /// The k-th of the numbers that belong to a place within a group, the same in all groups.
    Place(usize),
    /// The number of an entry's place within its group, from 0 on.
    Position,
    /// The k-th constant.
    Constant(usize),
    Add(Register, Register),
    Sub(Register, Register),
    Mul(Register, Register),
    Div(Register, Register),
    Neg(Register),
    Abs(Register),
    Sqrt(Register),
    /// eˣ.
    Exp(Register),
    /// tanh x.
    Tanh(Register),
    /// Φ(x) of the normal distribution.
    Normal(Register),
    /// What a group shares, as a number of each of its entries.
    Spread(Register),
    /// `then` where the test is true of `a` and `b`, else `otherwise`.
    Choose {
        test: Test,
        a: Register,
        b: Register,
        then: Register,
        otherwise: Register,
    },
    /// The sum over a group, which its entries share.
    Sum(Register),
    /// The largest number of a group. What is not a number is passed over.
    Largest(Register),
}

impl Instruction {
    /// The instructions whose results it takes.
    pub fn operands(self) -> impl Iterator<Item = Register> {
        let four = match self {
            Self::Entry(_)
            | Self::Shared(_)
            | Self::Place(_)
            | Self::Position
            | Self::Constant(_) => [None; 4],
            Self::Add(a, b) | Self::Sub(a, b) | Self::Mul(a, b) | Self::Div(a, b) => {
                [Some(a), Some(b), None, None]
            }
            Self::Neg(a)
            | Self::Abs(a)
            | Self::Sqrt(a)
            | Self::Exp(a)
            | Self::Tanh(a)
            | Self::Normal(a)
            | Self::Spread(a)
            | Self::Sum(a)
            | Self::Largest(a) => [Some(a), None, None, None],
            Self::Choose {
                a,
                b,
                then,
                otherwise,
                ..
            } => [a, b, then, otherwise].map(Some),
        };
        four.into_iter().flatten()
    }
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
    /// A symbol of what comes from outside: [`Instruction::Entry`], [`Instruction::Shared`],
    /// [`Instruction::Place`] or [`Instruction::Position`].
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

    pub(super) fn symbol(&self, instruction: Instruction) -> Symbol {
        let mut tape = self.0.borrow_mut();
        tape.instructions.push(instruction);
        Symbol::of(tape.instructions.len() - 1, self.clone())
    }

    /// Notes that no kernel can be made of this.
    pub fn give_up(&self) {
        self.0.borrow_mut().incomplete = true;
    }

    /// What was written down.
    pub fn take(&self) -> Tape {
        self.0.take()
    }
}

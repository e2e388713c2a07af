//! A formula by candle's operations, on whatever device its numbers are.

use super::program::Program;
use super::{Given, Sizes};
use crate::error::{Error, Result};
use crate::numeric::traced::{Instruction, Register, Test};
use candle_core::Tensor;

/// What an instruction has computed.
#[derive(Clone)]
enum Value {
    Constant(f64),
    /// [outer, groups, inner], some of them 1.
    Numbers(Tensor),
}

struct Evaluation<'a> {
    program: &'a Program,
    given: &'a Given,
    sizes: Sizes,
    values: Vec<Option<Value>>,
}

pub(super) fn run(
    program: &Program,
    given: &Given,
    sizes: Sizes,
    shape: &[usize],
) -> Result<Vec<Tensor>> {
    let count = program.shape.instructions.len();
    let mut all = Evaluation {
        program,
        given,
        sizes,
        values: vec![None; count],
    };
    let results = program.shape.results.iter().copied();
    let needed = program.shape.needed(results, |_| false);
    for register in (0..count).filter(|register| needed[*register]) {
        all.values[register] = Some(all.value(program.shape.instructions[register])?);
    }
    let levels = program.shape.levels();
    let results = program.shape.results.iter();
    let results = results.map(|result| match levels[*result].of_entry {
        true => {
            let whole = all.broadcast(*result, [sizes.outer, sizes.groups, sizes.inner])?;
            Ok(whole.reshape(shape)?)
        }
        false => Ok(all
            .broadcast(*result, [1, sizes.groups, 1])?
            .reshape(sizes.groups)?),
    });
    results.collect()
}

fn broken() -> Error {
    Error::Engine {
        what: "a formula's instruction stands before those whose results it takes".into(),
    }
}

impl Evaluation<'_> {
    fn operand(&self, register: Register) -> Result<&Value> {
        self.values[register].as_ref().ok_or_else(broken)
    }

    /// As a tensor, a constant of one number.
    fn tensor(&self, register: Register) -> Result<Tensor> {
        match self.operand(register)? {
            Value::Numbers(numbers) => Ok(numbers.clone()),
            Value::Constant(value) => {
                let like = self.given.tensors().next().ok_or_else(broken)?;
                let value = Tensor::full(*value, (1, 1, 1), like.device())?;
                Ok(value.to_dtype(like.dtype())?)
            }
        }
    }

    fn broadcast(&self, register: Register, shape: [usize; 3]) -> Result<Tensor> {
        let numbers = self.tensor(register)?;
        match numbers.dims() == shape {
            true => Ok(numbers),
            false => Ok(numbers.broadcast_as(&shape)?.contiguous()?),
        }
    }

    fn value(&self, instruction: Instruction) -> Result<Value> {
        let Sizes {
            outer,
            groups,
            inner,
        } = self.sizes;
        let numbers = match instruction {
            Instruction::Constant(k) => return Ok(Value::Constant(self.program.constants[k])),
            Instruction::Entry(k) => self.given.entries[k].reshape((outer, groups, inner))?,
            Instruction::Shared(k) => self.given.shared[k].reshape((1, groups, 1))?,
            Instruction::Place(k) => self.given.places[k].reshape((1, 1, inner))?,
            Instruction::Position => {
                let like = self.given.tensors().next().ok_or_else(broken)?;
                let all = Tensor::arange(0, inner as u32, like.device())?;
                all.to_dtype(like.dtype())?.reshape((1, 1, inner))?
            }
            Instruction::Add(a, b) => self.two(a, b, Tensor::add, Tensor::broadcast_add)?,
            Instruction::Sub(a, b) => self.two(a, b, Tensor::sub, Tensor::broadcast_sub)?,
            Instruction::Mul(a, b) => self.two(a, b, Tensor::mul, Tensor::broadcast_mul)?,
            Instruction::Div(a, b) => self.two(a, b, Tensor::div, Tensor::broadcast_div)?,
            Instruction::Neg(a) => self.tensor(a)?.neg()?,
            Instruction::Abs(a) => self.tensor(a)?.abs()?,
            Instruction::Sqrt(a) => self.tensor(a)?.sqrt()?,
            Instruction::Exp(a) => self.tensor(a)?.exp()?,
            Instruction::Tanh(a) => self.tensor(a)?.tanh()?,
            Instruction::Spread(a) => self.of_group(a)?,
            Instruction::Normal(a) => {
                let scaled = (self.tensor(a)? * std::f64::consts::FRAC_1_SQRT_2)?;
                scaled.erf()?.affine(0.5, 0.5)?
            }
            Instruction::Choose {
                test,
                a,
                b,
                then,
                otherwise,
            } => {
                let all = self.alike([a, b, then, otherwise])?;
                let [a, b, then, otherwise] = &all;
                let is = match test {
                    Test::Below => a.lt(b)?,
                    Test::AtMost => a.le(b)?,
                    Test::Equal => a.eq(b)?,
                };
                is.where_cond(then, otherwise)?
            }
            Instruction::Sum(a) => self.of_group(a)?.sum_keepdim(2)?.sum_keepdim(0)?,
            Instruction::Largest(a) => self.of_group(a)?.max_keepdim(2)?.max_keepdim(0)?,
        };
        Ok(Value::Numbers(numbers))
    }

    /// A number for each entry.
    fn of_group(&self, register: Register) -> Result<Tensor> {
        let Sizes {
            outer,
            groups,
            inner,
        } = self.sizes;
        self.broadcast(register, [outer, groups, inner])
    }

    fn two(
        &self,
        a: Register,
        b: Register,
        alike: impl Fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>,
        broadcast: impl Fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>,
    ) -> Result<Tensor> {
        let (a, b) = (self.tensor(a)?, self.tensor(b)?);
        Ok(match a.dims() == b.dims() {
            true => alike(&a, &b)?,
            false => broadcast(&a, &b)?,
        })
    }

    /// All of one shape.
    fn alike(&self, registers: [Register; 4]) -> Result<[Tensor; 4]> {
        let mut shape = [1; 3];
        for register in registers {
            for (size, own) in shape.iter_mut().zip(self.tensor(register)?.dims()) {
                *size = (*size).max(*own);
            }
        }
        let [a, b, c, d] = registers.map(|register| self.broadcast(register, shape));
        Ok([a?, b?, c?, d?])
    }
}

//! Symbols as the numbers that a rule is written in: it is called once with them, and what it does is on the tape.

use crate::numeric::traced::{Symbol, Test};
use crate::optim::number::Number;

impl Number for Symbol {
    fn sqrt(self) -> Self {
        Symbol::sqrt(&self)
    }

    fn abs(self) -> Self {
        Symbol::abs(&self)
    }

    fn square(self) -> Self {
        Symbol::square(&self)
    }

    /// A device's power is not the CPU's to the last bit, and no single instruction: such a rule is composed of
    /// candle's operations.
    fn powf(self, exponent: f64) -> Self {
        if exponent != 1.0 {
            self.recorder().give_up();
        }
        self
    }

    fn max(self, bound: f64) -> Self {
        let bound = self.constant(bound);
        self.choose(Test::Below, &bound, &bound, &self)
    }

    fn min(self, bound: f64) -> Self {
        let bound = self.constant(bound);
        bound.choose(Test::Below, &self, &bound, &self)
    }

    fn below(self, bound: f64) -> Self {
        let [bound, one, zero] = [bound, 1.0, 0.0].map(|c| self.constant(c));
        self.choose(Test::Below, &bound, &one, &zero)
    }
}

//! Instructions as text in PTX, the assembly that every CUDA driver takes. The result of instruction n is in `%xn`.
//!
//! Every operation rounds by itself (`.rn`: no product is fused with a sum), as on the CPU; eˣ, tanh and Φ in f32
//! are the CPU's polynomials, step by step. eˣ in f64 is a polynomial of its own, right to the last bit or the one
//! before; of tanh and Φ there are none in f64.

use super::{Instruction, Register, Test};
use crate::numeric::functions::{EXP, LN_2, RATIO, ROUND, TANH_NEAR};
use std::fmt::{self, Write};

/// What a kernel is called in its module.
pub(crate) const ENTRY: &str = "entry";
/// What a text begins with.
pub(crate) const HEAD: &str = ".version 7.0\n.target sm_60\n.address_size 64\n\n";

/// A type of numbers, as PTX has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Type {
    /// `f32` or `f64`.
    pub name: &'static str,
    pub bytes: usize,
}

pub(crate) const F32: Type = Type {
    name: "f32",
    bytes: 4,
};
pub(crate) const F64: Type = Type {
    name: "f64",
    bytes: 8,
};

/// What the registers are that an instruction uses beside its own.
pub(crate) fn scratch(to: &mut String, of: Type) -> fmt::Result {
    let bits = 8 * of.bytes;
    writeln!(to, "  .reg .{} %f<8>;\n  .reg .b{bits} %bits;", of.name)
}

/// Whether this type has the instruction.
pub(crate) fn has(of: Type, instruction: Instruction) -> bool {
    of == F32 || !matches!(instruction, Instruction::Tanh(_) | Instruction::Normal(_))
}

/// What an instruction does to an entry. Nothing is written of what comes from outside, and of sums.
pub(crate) fn arithmetic(
    to: &mut String,
    number: Register,
    instruction: Instruction,
    of: Type,
) -> fmt::Result {
    let name = of.name;
    let mut two = |operation: &str, a: Register, b: Register| {
        writeln!(to, "  {operation}.rn.{name} %x{number}, %x{a}, %x{b};")
    };
    match instruction {
        Instruction::Add(a, b) => two("add", a, b),
        Instruction::Sub(a, b) => two("sub", a, b),
        Instruction::Mul(a, b) => two("mul", a, b),
        Instruction::Div(a, b) => two("div", a, b),
        Instruction::Neg(a) => writeln!(to, "  neg.{name} %x{number}, %x{a};"),
        Instruction::Abs(a) => writeln!(to, "  abs.{name} %x{number}, %x{a};"),
        Instruction::Sqrt(a) => writeln!(to, "  sqrt.rn.{name} %x{number}, %x{a};"),
        Instruction::Exp(a) => Function { to, of }.exp(&format!("%x{number}"), &format!("%x{a}")),
        Instruction::Tanh(a) => Function { to, of }.tanh(number, a),
        Instruction::Normal(a) => Function { to, of }.normal(number, a),
        Instruction::Spread(a) => writeln!(to, "  mov.{name} %x{number}, %x{a};"),
        Instruction::Choose {
            test,
            a,
            b,
            then,
            otherwise,
        } => {
            let test = match test {
                Test::Below => "lt",
                Test::AtMost => "le",
                Test::Equal => "eq",
            };
            writeln!(to, "  setp.{test}.{name} %q, %x{a}, %x{b};")?;
            writeln!(to, "  selp.{name} %x{number}, %x{then}, %x{otherwise}, %q;")
        }
        Instruction::Entry(_)
        | Instruction::Shared(_)
        | Instruction::Place(_)
        | Instruction::Position
        | Instruction::Constant(_)
        | Instruction::Sum(_)
        | Instruction::Largest(_) => Ok(()),
    }
}

/// A number as PTX writes it.
pub(crate) fn literal(x: f64, of: Type) -> String {
    match of == F64 {
        true => format!("0d{:016X}", x.to_bits()),
        false => format!("0f{:08X}", (x as f32).to_bits()),
    }
}

/// What takes several of a device's instructions. Scratch registers are `%f0` to `%f7`.
struct Function<'a> {
    to: &'a mut String,
    of: Type,
}

/// What eˣ is made of in a type.
struct Exponential {
    most: f64,
    least: f64,
    /// Below it the result is 0.
    zero: f64,
    ln_2: (f64, f64),
    round: f64,
    bias: f64,
    mantissa: usize,
    coefficients: Vec<f64>,
}

impl Exponential {
    fn of(of: Type) -> Self {
        if of == F32 {
            return Self {
                most: 89.0,
                least: -88.0,
                zero: -87.0,
                ln_2: (f64::from(LN_2.0), f64::from(LN_2.1)),
                round: f64::from(ROUND),
                bias: 127.0,
                mantissa: 23,
                coefficients: EXP.map(f64::from).to_vec(),
            };
        }
        let mut factorial = 1.0;
        let coefficients = (0..14).map(|k| {
            factorial *= f64::from(k.max(1));
            1.0 / factorial
        });
        Self {
            most: 710.0,
            least: -746.0,
            zero: -745.2,
            // The first has 32 bits, so that its multiples are exact.
            ln_2: (
                f64::from_bits(0x3fe6_2e42_fee0_0000),
                1.908_214_929_270_587_7e-10,
            ),
            // 1.5 · 2⁵²
            round: 6_755_399_441_055_744.0,
            bias: 1023.0,
            mantissa: 52,
            coefficients: coefficients.collect(),
        }
    }
}

impl Function<'_> {
    fn line(&mut self, operation: &str, result: &str, operands: &[&str]) -> fmt::Result {
        let rounded = ["add", "sub", "mul", "div"].contains(&operation);
        let (name, rounds) = (self.of.name, if rounded { ".rn" } else { "" });
        let operands = operands.join(", ");
        writeln!(
            self.to,
            "  {operation}{rounds}.{name} {result}, {operands};"
        )
    }

    fn number(&self, x: f64) -> String {
        literal(x, self.of)
    }

    /// `value` where `a` compares so with `b`, else `result` as it was.
    fn replace(&mut self, result: &str, test: &str, a: &str, b: f64, value: &str) -> fmt::Result {
        let name = self.of.name;
        let b = self.number(b);
        writeln!(self.to, "  setp.{test}.{name} %q, {a}, {b};")?;
        writeln!(self.to, "  selp.{name} {result}, {value}, {result}, %q;")
    }

    /// c₀ + c₁x + c₂x² + …
    fn polynomial(&mut self, result: &str, x: &str, coefficients: &[f64]) -> fmt::Result {
        let mut highest_first = coefficients.iter().rev().map(|c| self.number(*c));
        let highest_first: Vec<String> = highest_first.by_ref().collect();
        for (power, c) in highest_first.iter().enumerate() {
            match power {
                0 => self.line("mov", result, &[c])?,
                _ => {
                    self.line("mul", result, &[result, x])?;
                    self.line("add", result, &[result, c])?;
                }
            }
        }
        Ok(())
    }

    /// The next whole number.
    fn rounded(&mut self, result: &str, round: f64) -> fmt::Result {
        let round = self.number(round);
        self.line("add", result, &[result, &round])?;
        self.line("sub", result, &[result, &round])
    }

    /// result · 2ⁿ
    fn scaled(&mut self, result: &str, n: &str, parts: &Exponential) -> fmt::Result {
        let bits = 8 * self.of.bytes;
        let shifted = self.number(parts.round + parts.bias);
        self.line("add", "%f4", &[n, &shifted])?;
        writeln!(self.to, "  mov.b{bits} %bits, %f4;")?;
        writeln!(self.to, "  shl.b{bits} %bits, %bits, {};", parts.mantissa)?;
        writeln!(self.to, "  mov.b{bits} %f4, %bits;")?;
        self.line("mul", result, &[result, "%f4"])
    }

    /// As [`exp_f32`](crate::numeric::functions::exp_f32); scratch %f0 to %f4.
    fn exp(&mut self, result: &str, x: &str) -> fmt::Result {
        let parts = Exponential::of(self.of);
        let [most, least, log2_e, half, zero] =
            [parts.most, parts.least, std::f64::consts::LOG2_E, 0.5, 0.0].map(|c| self.number(c));
        let [high, low] = [parts.ln_2.0, parts.ln_2.1].map(|c| self.number(c));
        self.line("mov", "%f0", &[x])?;
        self.replace("%f0", "gt", "%f0", parts.most, &most)?;
        self.replace("%f0", "lt", "%f0", parts.least, &least)?;
        self.line("mul", "%f1", &["%f0", &log2_e])?;
        self.rounded("%f1", parts.round)?;
        self.line("mul", "%f2", &["%f1", &high])?;
        self.line("sub", "%f0", &["%f0", "%f2"])?;
        self.line("mul", "%f2", &["%f1", &low])?;
        self.line("sub", "%f0", &["%f0", "%f2"])?;
        self.line("mul", "%f2", &["%f1", &half])?;
        self.rounded("%f2", parts.round)?;
        self.polynomial("%f3", "%f0", &parts.coefficients)?;
        self.scaled("%f3", "%f2", &parts)?;
        self.line("sub", "%f1", &["%f1", "%f2"])?;
        self.scaled("%f3", "%f1", &parts)?;
        self.replace("%f3", "lt", x, parts.zero, &zero)?;
        self.line("mov", result, &["%f3"])
    }

    /// As [`tanh_f32`](crate::numeric::functions::tanh_f32).
    fn tanh(&mut self, number: Register, x: Register) -> fmt::Result {
        let (result, x) = (format!("%x{number}"), format!("%x{x}"));
        let [one, negative] = [1.0, -2.0].map(|c| self.number(c));
        self.line("abs", "%f5", &[&x])?;
        self.line("mul", "%f6", &["%f5", &negative])?;
        self.exp("%f7", "%f6")?;
        self.line("sub", "%f6", &[&one, "%f7"])?;
        self.line("add", "%f7", &[&one, "%f7"])?;
        self.line("div", "%f6", &["%f6", "%f7"])?;
        self.line("neg", "%f7", &["%f6"])?;
        self.replace("%f6", "lt", &x, 0.0, "%f7")?;
        self.line("mul", "%f7", &[&x, &x])?;
        self.polynomial("%f4", "%f7", &TANH_NEAR.map(f64::from))?;
        self.line("mul", "%f7", &[&x, "%f7"])?;
        self.line("mul", "%f7", &["%f7", "%f4"])?;
        self.line("add", "%f7", &[&x, "%f7"])?;
        // The CPU's number is an f32, too.
        self.replace("%f6", "lt", "%f5", f64::from(0.65_f32), "%f7")?;
        self.line("mov", &result, &["%f6"])
    }

    /// As [`normal_f32`](crate::numeric::functions::normal_f32).
    fn normal(&mut self, number: Register, x: Register) -> fmt::Result {
        let (result, x) = (format!("%x{number}"), format!("%x{x}"));
        let [root, twenty, half, negative, one, two] = [
            f64::from(std::f32::consts::FRAC_1_SQRT_2),
            20.0,
            0.5,
            -0.5,
            1.0,
            2.0,
        ]
        .map(|c| self.number(c));
        self.line("mul", "%f5", &[&x, &negative])?;
        self.line("mul", "%f5", &["%f5", &x])?;
        self.exp("%f7", "%f5")?;
        self.line("abs", "%f5", &[&x])?;
        self.line("mul", "%f5", &["%f5", &root])?;
        self.replace("%f5", "gt", "%f5", 20.0, &twenty)?;
        self.line("add", "%f6", &["%f5", &two])?;
        self.line("div", "%f6", &["%f5", "%f6"])?;
        self.polynomial("%f4", "%f6", &RATIO.map(f64::from))?;
        self.line("mul", "%f6", &["%f5", &two])?;
        self.line("add", "%f6", &["%f6", &one])?;
        self.line("div", "%f4", &["%f4", "%f6"])?;
        self.line("mul", "%f7", &["%f7", &half])?;
        self.line("mul", "%f7", &["%f7", "%f4"])?;
        self.line("sub", "%f6", &[&one, "%f7"])?;
        self.replace("%f6", "lt", &x, 0.0, "%f7")?;
        self.line("mov", &result, &["%f6"])
    }
}

/// What no device in software tells: whether NVIDIA's assembler takes the texts, for old and new devices. It is
/// `ptxas` of a toolkit on the path; without one the test says so, and fails where `REQUIRE_PTXAS` is set.
#[cfg(test)]
pub(crate) fn assembled(texts: &[String]) {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let folder = format!("adahessian-ptx-{}-{call}", std::process::id());
    let folder = std::env::temp_dir().join(folder);
    std::fs::create_dir_all(&folder).unwrap();
    let (from, to) = (folder.join("kernel.ptx"), folder.join("kernel.cubin"));
    for text in texts {
        std::fs::write(&from, text).unwrap();
        for device in ["sm_75", "sm_90", "sm_100"] {
            let mut ptxas = std::process::Command::new("ptxas");
            let ptxas = ptxas.arg(format!("-arch={device}")).arg("-o").arg(&to);
            match ptxas.arg(&from).output() {
                Ok(done) => {
                    let said = String::from_utf8_lossy(&done.stderr);
                    assert!(done.status.success(), "{device}: {said}\n{text}");
                }
                Err(error) if std::env::var_os("REQUIRE_PTXAS").is_some() => {
                    panic!("no ptxas on the path: {error}")
                }
                Err(error) => {
                    println!("skipped, no ptxas on the path: {error}");
                    return std::fs::remove_dir_all(&folder).unwrap();
                }
            }
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

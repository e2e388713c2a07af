//! What an operation's derivatives are worth: measured against differences of its values alone.

use adahessian::{Hessian, NamedVars, VarVec, backward_detached};
use candle_core::{DType, Device, Result, Tensor, Var};
use testing::twins::random;

/// An operation as a model calls it, on variables of these shapes.
pub struct Row {
    /// How it is called, as the page shows it.
    pub call: &'static str,
    pub shapes: &'static [&'static [usize]],
    pub dtype: DType,
    /// Whether its arguments are above 0.5: a logarithm, a root.
    pub positive: bool,
    /// Whether it is a loss, which nothing comes after.
    pub last: bool,
    pub op: fn(&[Tensor]) -> Result<Tensor>,
    /// What to use in its place, where it is not right.
    pub instead: &'static str,
}

/// A row in f64.
pub const fn row(
    call: &'static str,
    shapes: &'static [&'static [usize]],
    op: fn(&[Tensor]) -> Result<Tensor>,
) -> Row {
    Row {
        call,
        shapes,
        dtype: DType::F64,
        positive: false,
        last: false,
        op,
        instead: "",
    }
}

impl Row {
    pub const fn positive(self) -> Self {
        Self {
            positive: true,
            ..self
        }
    }

    pub const fn last(self) -> Self {
        Self { last: true, ..self }
    }

    pub const fn f32(self) -> Self {
        Self {
            dtype: DType::F32,
            ..self
        }
    }

    pub const fn instead(self, instead: &'static str) -> Self {
        Self { instead, ..self }
    }
}

/// What became of one level of derivatives.
#[derive(Clone, Debug, PartialEq)]
pub enum Level {
    /// To the digits that the differences have.
    Right,
    /// To about so many digits.
    Digits(u32),
    /// No gradient, and no error either, though the value depends on the variable.
    Cut,
    /// Another number.
    Wrong,
    /// An error.
    Fails,
    /// There is no lower level to differentiate.
    Open,
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Level::Right => write!(f, "right"),
            Level::Digits(digits) => write!(f, "right to {digits} digits"),
            Level::Cut => write!(f, "**cut off, silently**"),
            Level::Wrong => write!(f, "**wrong, silently**"),
            Level::Fails => write!(f, "error"),
            Level::Open => write!(f, "-"),
        }
    }
}

impl Level {
    pub fn is_right(&self) -> bool {
        matches!(self, Level::Right)
    }

    /// From the largest relative error and what the differences can tell.
    fn of(error: f64, finest: f64) -> Self {
        match error {
            error if error <= finest => Level::Right,
            error if error <= 1e-4 => Level::Digits(-error.log10().ceil() as u32),
            _ => Level::Wrong,
        }
    }
}

/// The two levels of a row, and what candle said where one failed.
pub struct Measured {
    pub first: Level,
    pub second: Level,
    pub said: Option<String>,
}

/// Step lengths, and errors that count as none: what rounding leaves of the differences.
struct Precision {
    near: f64,
    far: f64,
    first: f64,
    second: f64,
}

impl Row {
    fn precision(&self) -> Precision {
        match self.dtype {
            DType::F64 => Precision {
                near: 2e-3,
                far: 4e-3,
                first: 2e-8,
                second: 2e-5,
            },
            _ => Precision {
                near: 0.05,
                far: 0.05,
                first: 2e-3,
                second: 3e-2,
            },
        }
    }

    /// The values of all variables, one after the other.
    fn start(&self) -> anyhow::Result<Vec<f64>> {
        let mut all = Vec::new();
        for (index, shape) in self.shapes.iter().enumerate() {
            let values = random(&format!("{} {index}", self.call), shape)?;
            let values = values.flatten_all()?.to_vec1::<f64>()?;
            // No entry of one variable equals one of another, either.
            let shift = 0.031 * index as f64;
            all.extend(apart(&values).into_iter().map(|x| match self.positive {
                true => 0.5 + x.abs() + shift,
                false => x + shift,
            }));
        }
        Ok(all)
    }

    fn vars(&self, values: &[f64]) -> anyhow::Result<NamedVars> {
        let (mut vars, mut at) = (Vec::new(), 0);
        for (index, shape) in self.shapes.iter().enumerate() {
            let count: usize = shape.iter().product();
            let tensor = Tensor::from_slice(&values[at..at + count], *shape, &Device::Cpu)?;
            at += count;
            vars.push((
                format!("{index}"),
                Var::from_tensor(&tensor.to_dtype(self.dtype)?)?,
            ));
        }
        Ok(NamedVars::new(vars)?)
    }

    /// A loss that is not linear in what the operation gives, unless that is the loss.
    fn loss(&self, vars: &NamedVars) -> Result<Tensor> {
        let inputs: Vec<Tensor> = vars.iter().map(|(_, v)| v.as_tensor().clone()).collect();
        let y = (self.op)(&inputs)?;
        if self.last {
            return y.sum_all();
        }
        let weights = random("weights", y.dims()).map_err(candle_core::Error::wrap)?;
        (y.sin()? * weights.to_dtype(y.dtype())?)?.sum_all()
    }

    fn value(&self, values: &[f64]) -> anyhow::Result<f64> {
        let loss = self.loss(&self.vars(values)?)?;
        Ok(loss.to_dtype(DType::F64)?.to_scalar()?)
    }

    /// ∇L by differences of the loss, of fourth order.
    fn gradient(&self, values: &[f64], step: f64) -> anyhow::Result<Vec<f64>> {
        let slope = |index: usize| {
            let at = |shift: f64| {
                let mut moved = values.to_vec();
                moved[index] += shift;
                self.value(&moved)
            };
            let near = at(step)? - at(-step)?;
            let far = at(2.0 * step)? - at(-2.0 * step)?;
            Ok((8.0 * near - far) / (12.0 * step))
        };
        (0..values.len()).map(slope).collect()
    }

    /// Hz by differences of that gradient.
    fn product(&self, values: &[f64], z: &[f64]) -> anyhow::Result<Vec<f64>> {
        let Precision { near, far, .. } = self.precision();
        let at = |shift: f64| {
            let moved: Vec<f64> = values.iter().zip(z).map(|(x, z)| x + shift * z).collect();
            self.gradient(&moved, near)
        };
        let (a, b, c, d) = (at(far)?, at(-far)?, at(2.0 * far)?, at(-2.0 * far)?);
        let product = |i: usize| (8.0 * (a[i] - b[i]) - (c[i] - d[i])) / (12.0 * far);
        Ok((0..values.len()).map(product).collect())
    }

    pub fn measure(&self) -> anyhow::Result<Measured> {
        let values = self.start()?;
        let precision = self.precision();
        let vars = self.vars(&values)?;
        if let Err(error) = self.loss(&vars) {
            return Ok(Measured {
                first: Level::Fails,
                second: Level::Open,
                said: error.to_string().lines().next().map(String::from),
            });
        }
        let expected = self.gradient(&values, precision.near)?;
        let fails = |level: Level, error: adahessian::Error| {
            let (first, second) = match level {
                Level::Fails => (Level::Fails, Level::Open),
                first => (first, Level::Fails),
            };
            Ok(Measured {
                first,
                second,
                said: Some(error.to_string()),
            })
        };
        let grads = match backward_detached(&self.loss(&vars)?) {
            Ok(grads) => grads,
            Err(error) => return fails(Level::Fails, error),
        };
        let gradients = vars.iter().map(|(_, var)| grads.get(var).cloned());
        let first = compare(&vars, gradients.collect(), &expected, precision.first)?;
        let z: Vec<f64> = (0..values.len())
            .map(|i| 1.0 + 0.3 * (i as f64 * 1.7).sin())
            .collect();
        let product = Hessian::of(&self.loss(&vars)?, &vars).and_then(|hessian| {
            use adahessian::LinearOperator;
            hessian.apply(&self.vector(&vars, &z)?)
        });
        let product = match product {
            Ok(product) => product,
            Err(error) => return fails(first, error),
        };
        let expected = self.product(&values, &z)?;
        let product = product.tensors().iter().cloned().map(Some).collect();
        let second = match (
            &first,
            compare(&vars, product, &expected, precision.second)?,
        ) {
            // What has no gradient has a product of zero.
            (Level::Cut, Level::Wrong) => Level::Cut,
            (_, second) => second,
        };
        Ok(Measured {
            first,
            second,
            said: None,
        })
    }

    fn vector(&self, vars: &NamedVars, z: &[f64]) -> adahessian::Result<VarVec> {
        let mut at = 0;
        let parts = vars.iter().map(|(_, var)| {
            let part = &z[at..at + var.elem_count()];
            at += var.elem_count();
            Ok(Tensor::from_slice(part, var.dims(), &Device::Cpu)?.to_dtype(self.dtype)?)
        });
        let parts = parts.collect::<adahessian::Result<_>>()?;
        VarVec::new(vars, parts)
    }
}

/// Numbers in the order of these, evenly apart and none at 0, so that no difference crosses a kink.
fn apart(values: &[f64]) -> Vec<f64> {
    let middle = values.len() as f64 / 2.0;
    let rank = |x: &f64| values.iter().filter(|y| *y < x).count() as f64;
    values
        .iter()
        .map(|x| 0.13 * (rank(x) - middle.floor() + 0.37))
        .collect()
}

/// The worst level over the variables.
fn compare(
    vars: &NamedVars,
    got: Vec<Option<Tensor>>,
    expected: &[f64],
    finest: f64,
) -> anyhow::Result<Level> {
    let largest = expected.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    let (mut at, mut worst, mut cut) = (0, 0f64, false);
    for ((_, var), got) in vars.iter().zip(got) {
        let expected = &expected[at..at + var.elem_count()];
        at += var.elem_count();
        let scale = expected.iter().fold(largest * 1e-2, |m, x| m.max(x.abs()));
        let Some(got) = got else {
            cut |= expected.iter().any(|x| x.abs() > finest * largest.max(1.0));
            continue;
        };
        let got = got.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        // Where nothing is expected, what counts is whether nothing came.
        let scale = if scale == 0.0 { 1.0 } else { scale };
        for (got, expected) in got.iter().zip(expected) {
            let error = (got - expected).abs() / scale;
            worst = if error.is_nan() {
                f64::INFINITY
            } else {
                worst.max(error)
            };
        }
    }
    Ok(match cut {
        true => Level::Cut,
        false => Level::of(worst, finest),
    })
}

//! Which entries of a variable share one averaged curvature.

use crate::error::{Error, Result};
use crate::kind::{Kind, Kinds};
use crate::numeric::widened;
use crate::vars::NamedVars;
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The blocks of one variable. All entries of a block get the mean over the block, as in Eq. 10
/// of the AdaHessian paper: the variance of the estimate falls with the size of the block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Block {
    /// Every entry for itself: no averaging.
    #[default]
    Single,
    /// All entries along the last `n` dimensions: `Trailing(2)` is a convolution kernel [out, in,
    /// height, width] averaged over its 3x3 or 7x7 window.
    Trailing(usize),
    /// Runs of `n` consecutive entries in row-major order over the whole variable. A last run that
    /// is shorter is averaged over its own length.
    Chunks(usize),
    /// All entries that share the first index: the weights into one output of a linear layer.
    Rows,
    /// All entries of the variable.
    Whole,
}

impl Block {
    /// Checks that the block makes sense for a variable of this shape.
    ///
    /// # Errors
    /// [`Error::Variable`] naming the variable: `Trailing(n)` of more dimensions than there are, or
    /// a length of zero.
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        let expected = match self {
            Block::Trailing(n) if *n > shape.len() => {
                format!("at least {n} dimensions for the block {self}")
            }
            Block::Chunks(0) => "a block of at least 1 entry".into(),
            _ => return Ok(()),
        };
        Err(Error::Variable {
            name: name.into(),
            expected,
            got: format!("shape {shape:?}, block {self}"),
        })
    }

    /// How many consecutive entries, in row-major order, share one mean; the last run of a variable
    /// can be shorter.
    pub(crate) fn run(&self, shape: &[usize]) -> usize {
        match *self {
            Block::Single => 1,
            Block::Trailing(n) => shape[shape.len().saturating_sub(n)..].iter().product(),
            Block::Chunks(n) => n,
            Block::Rows => shape.get(1..).unwrap_or_default().iter().product(),
            Block::Whole => shape.iter().product(),
        }
    }

    /// The tensor with every entry replaced by the mean of its block. Same shape and type; the means of half precision
    /// are taken in f32.
    ///
    /// # Errors
    /// [`Error::Variable`] if the block does not fit the tensor's shape, as [`Block::check`].
    pub fn average(&self, tensor: &Tensor) -> Result<Tensor> {
        self.check("tensor", tensor.dims())?;
        let count = tensor.elem_count();
        let shape = tensor.dims();
        let run = self.run(shape);
        if run <= 1 || count == 0 {
            return Ok(tensor.clone());
        }
        let flat = widened(&tensor.flatten_all()?)?;
        let whole = count - count % run;
        let mut parts = Vec::with_capacity(2);
        if whole > 0 {
            parts.push(mean_of_runs(&flat.narrow(0, 0, whole)?, run)?);
        }
        if whole < count {
            parts.push(mean_of_runs(
                &flat.narrow(0, whole, count - whole)?,
                count - whole,
            )?);
        }
        let means = Tensor::cat(&parts, 0)?.reshape(shape)?;
        Ok(means.to_dtype(tensor.dtype())?)
    }
}

fn mean_of_runs(flat: &Tensor, run: usize) -> Result<Tensor> {
    let runs = flat.reshape(((), run))?;
    Ok(runs
        .mean_keepdim(1)?
        .broadcast_as(runs.shape())?
        .flatten_all()?)
}

/// `single`, `trailing:2`, `chunks:4`, `rows`, `whole`; a bare number n means `chunks:n`.
impl FromStr for Block {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::Setting {
            what: "block",
            expected: "single, trailing:N, chunks:N, rows, whole, or a number of entries".into(),
            got: format!("`{text}`"),
        };
        let number = |n: &str| n.parse::<usize>().map_err(|_| wrong());
        match text.split_once(':') {
            Some(("trailing", n)) => Ok(Block::Trailing(number(n)?)),
            Some(("chunks", n)) => Ok(Block::Chunks(number(n)?)),
            Some(_) => Err(wrong()),
            None => match text {
                "single" | "1" => Ok(Block::Single),
                "rows" => Ok(Block::Rows),
                "whole" => Ok(Block::Whole),
                n => Ok(Block::Chunks(number(n)?)),
            },
        }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Block::Single => write!(f, "single"),
            Block::Trailing(n) => write!(f, "trailing:{n}"),
            Block::Chunks(n) => write!(f, "chunks:{n}"),
            Block::Rows => write!(f, "rows"),
            Block::Whole => write!(f, "whole"),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Base {
    #[default]
    Single,
    Spatial,
    Matrices(Block),
}

/// The blocks of a whole model: by what its layers say of their variables or else by shape, and rules by
/// name that take precedence.
///
/// ```
/// use adahessian::{Block, Blocks};
/// let blocks = Blocks::matrices(Block::Chunks(4)).rule("embeddings.weight", Block::Rows);
/// assert_eq!(blocks.resolve("layer.0.query.weight", &[8, 8])?, Block::Chunks(4));
/// assert_eq!(blocks.resolve("word_embeddings.weight", &[30, 8])?, Block::Rows);
/// assert_eq!(blocks.resolve("layer.0.query.bias", &[8])?, Block::Single);
/// # Ok::<(), adahessian::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Blocks {
    base: Base,
    /// Those of variables of which the layers have said the kind.
    known: Arc<BTreeMap<String, Block>>,
    rules: Vec<(String, Block)>,
}

impl Blocks {
    /// No averaging anywhere.
    pub fn single() -> Self {
        Self::default()
    }

    /// Convolution kernels (three or more dimensions) averaged over the dimensions after the first
    /// two, everything else single: the rule of the paper's image experiments.
    pub fn spatial() -> Self {
        Self {
            base: Base::Spatial,
            ..Self::default()
        }
    }

    /// This block for every variable of two or more dimensions, single for biases and norms: the
    /// rule of the paper's language experiments.
    pub fn matrices(block: Block) -> Self {
        Self {
            base: Base::Matrices(block),
            ..Self::default()
        }
    }

    /// The block that `size` gives for what each variable is to its layer. Variables that no layer has
    /// spoken of are single.
    pub fn by_kind(kinds: &Kinds, size: impl Fn(Kind) -> Block) -> Self {
        let known = kinds.iter().map(|(name, kind)| (name.into(), size(kind)));
        Self {
            known: Arc::new(known.collect()),
            ..Self::default()
        }
    }

    /// A block for all variables whose name ends with `suffix` (or matches it, where it contains a
    /// `*`). The last rule that matches wins; an optimizer that asks for curvature refuses one that matches none of
    /// the variables that it is given.
    pub fn rule(mut self, suffix: impl Into<String>, block: Block) -> Self {
        self.rules.push((suffix.into(), block));
        self
    }

    /// Refuses a rule that matches none of the variables: with a misspelled one they would go without their blocks, and
    /// without a word.
    pub(crate) fn expect_used(&self, vars: &NamedVars) -> Result<()> {
        let matches = |suffix: &str| vars.names().any(|name| name_matches(suffix, name));
        match self.rules.iter().find(|(suffix, _)| !matches(suffix)) {
            Some((suffix, _)) => Err(no_match("pattern of a rule for blocks", suffix, vars)),
            None => Ok(()),
        }
    }

    /// The block of one variable.
    ///
    /// # Errors
    /// [`Error::Variable`] if the block does not fit the variable's shape.
    pub fn resolve(&self, name: &str, shape: &[usize]) -> Result<Block> {
        let by_name = self.rules.iter().rev().find(|(s, _)| name_matches(s, name));
        let block = match (by_name.map(|(_, b)| b).or(self.known.get(name)), self.base) {
            (Some(block), _) => *block,
            (None, Base::Spatial) if shape.len() > 2 => Block::Trailing(shape.len() - 2),
            (None, Base::Matrices(block)) if shape.len() > 1 => block,
            _ => Block::Single,
        };
        block.check(name, shape)?;
        Ok(block)
    }
}

/// A pattern that matches none of the variables.
pub(crate) fn no_match(what: &'static str, pattern: &str, vars: &NamedVars) -> Error {
    let first = vars.names().next();
    Error::Setting {
        what,
        expected: format!(
            "the end of a variable's name, or a pattern with `*` of all of it; there are {} variables, as {}",
            vars.len(),
            first.map_or("none".into(), |name| format!("`{name}`")),
        ),
        got: format!("`{pattern}`, which matches none"),
    }
}

/// Whether `name` ends with the pattern, or, where the pattern contains `*`, matches it as a whole
/// with `*` for any run of characters.
pub(crate) fn name_matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return name.ends_with(pattern);
    };
    let Some(mut name) = name.strip_prefix(head) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let tail = parts.pop().unwrap_or_default();
    for part in parts {
        match name.find(part) {
            Some(at) => name = &name[at + part.len()..],
            None => return false,
        }
    }
    name.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn average(block: Block, values: &[f64], shape: &[usize]) -> Vec<f64> {
        let tensor = Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
        let mean = block.average(&tensor).unwrap();
        assert_eq!(mean.dims(), shape);
        mean.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn every_kind_on_a_small_matrix() {
        let x = [1., 2., 3., 4., 5., 6.];
        assert_eq!(average(Block::Single, &x, &[2, 3]), x);
        assert_eq!(
            average(Block::Trailing(1), &x, &[2, 3]),
            [2., 2., 2., 5., 5., 5.]
        );
        assert_eq!(average(Block::Rows, &x, &[2, 3]), [2., 2., 2., 5., 5., 5.]);
        assert_eq!(
            average(Block::Rows, &x, &[3, 1, 2]),
            [1.5, 1.5, 3.5, 3.5, 5.5, 5.5]
        );
        assert_eq!(average(Block::Rows, &x, &[6]), x);
        assert_eq!(average(Block::Whole, &x, &[2, 3]), [3.5; 6]);
        assert_eq!(
            average(Block::Chunks(4), &x, &[2, 3]),
            [2.5, 2.5, 2.5, 2.5, 5.5, 5.5]
        );
        assert_eq!(average(Block::Chunks(9), &x, &[2, 3]), [3.5; 6]);
        assert_eq!(average(Block::Trailing(2), &x, &[1, 1, 1, 3, 2]), [3.5; 6]);
        assert_eq!(average(Block::Whole, &[7.0], &[]), [7.0]);
    }

    /// In its own type a sum of bf16 stands still at 256.
    #[test]
    fn half_precision_is_averaged_in_f32_and_blocks_have_to_fit() {
        for dtype in [DType::BF16, DType::F16] {
            let many = Tensor::full(100f32, 1024, &Device::Cpu).unwrap();
            let many = many.to_dtype(dtype).unwrap();
            let means = Block::Whole.average(&many).unwrap();
            assert_eq!(means.dtype(), dtype);
            let means: Vec<f32> = means.to_dtype(DType::F32).unwrap().to_vec1().unwrap();
            assert_eq!(means, [100.0; 1024]);
        }
        let matrix = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
        for block in [Block::Chunks(0), Block::Trailing(3)] {
            let error = block.average(&matrix).unwrap_err().to_string();
            assert!(error.contains(&block.to_string()), "{error}");
        }
    }

    #[test]
    fn the_last_rule_that_matches_wins_and_errors_name_the_variable() {
        let blocks = Blocks::spatial()
            .rule("weight", Block::Whole)
            .rule("fc.*ht", Block::Single);
        assert_eq!(blocks.resolve("fc.weight", &[2, 2]).unwrap(), Block::Single);
        assert_eq!(
            blocks.resolve("conv.weight", &[2, 2]).unwrap(),
            Block::Whole
        );
        assert_eq!(
            blocks.resolve("kernel", &[2, 2, 3, 3, 3]).unwrap(),
            Block::Trailing(3)
        );
        let error = Blocks::single()
            .rule("bias", Block::Trailing(3))
            .resolve("fc.bias", &[4]);
        assert!(error.unwrap_err().to_string().contains("`fc.bias`"));
        assert!(
            Blocks::single()
                .rule("b", Block::Chunks(0))
                .resolve("b", &[4])
                .is_err()
        );
    }

    #[test]
    fn text_there_and_back() {
        for text in ["single", "trailing:2", "chunks:4", "rows", "whole"] {
            assert_eq!(text.parse::<Block>().unwrap().to_string(), text);
        }
        assert_eq!("32".parse::<Block>().unwrap(), Block::Chunks(32));
        assert!("chunks:x".parse::<Block>().is_err());
    }
}

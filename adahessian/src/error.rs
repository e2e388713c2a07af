//! What can go wrong: which variable, what was expected, what was found, and the way out.

use std::path::PathBuf;

/// The result of everything fallible in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Every error of this crate. It converts into [`candle_core::Error`], so `?` works in functions
/// that return candle's result, too.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// candle refused an operation.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),

    /// The gradients were not made by [`crate::backward`], so they carry no graph to
    /// differentiate a second time. candle would return a wrong number here, not an error.
    #[error(
        "these gradients carry no graph, a Hessian-vector product of them would be silently wrong: \
         make them with adahessian::backward(&loss), or call backward_step(&loss)"
    )]
    NoGraph,

    /// A step that needs a curvature was given gradients alone.
    #[error(
        "this step needs a curvature, and only gradients were accumulated: call accumulate, or accumulate_curvature \
         beside accumulate_gradient, with what adahessian::backward(&loss) made, or backward_step(&loss)"
    )]
    NoCurvature,

    /// A gradient that [`crate::backward`] has not made, and that carries no graph, in a store of its.
    #[error(
        "the gradient of `{name}` was changed after adahessian::backward made it and carries no graph any more \
         (GradStore::extend cuts sums): call accumulate with each store, then apply, or differentiate the sum of \
         the losses; to clip gradients use the optimizer's clip_norm"
    )]
    CutGradient {
        /// The variable's name.
        name: String,
    },

    /// A variable was changed between the first and the second backward pass.
    #[error(
        "{name} was changed after these gradients were made: their Hessian would mix old values with new ones. \
         Step several optimizers as one (Composite), or compute the loss and its gradients again for each"
    )]
    Changed {
        /// The variable, as far as it is known.
        name: String,
    },

    /// candle failed inside a backward pass.
    #[error("the backward pass of {op} failed ({what}): {remedy}")]
    Backward {
        /// The operation, as far as it is known.
        op: String,
        /// What candle said.
        what: String,
        /// What to use instead.
        remedy: String,
    },

    /// candle did not keep the graph of a gradient although it was asked to.
    #[error(
        "this build of candle cuts the graph of a gradient: d²/dx² exp(2x) at x = 0.5 should be {expected}, \
         got {got}; use candle 0.11.1 or a version that this crate was tested with"
    )]
    GraphCut {
        /// The exact second derivative.
        expected: f64,
        /// What two backward passes gave.
        got: f64,
    },

    /// A backward pass panicked inside candle, or its thread could not be started.
    #[error("the backward worker {what}; the variables are unchanged")]
    Worker {
        /// What happened to it.
        what: String,
    },

    /// A fused operation was used in a way that it cannot serve.
    #[error("{what}")]
    Engine {
        /// What happened and what to do.
        what: String,
    },

    /// A loss that is not one number.
    #[error(
        "the loss must have exactly one element, got shape {got:?}: reduce it first, for example with mean_all()"
    )]
    NotScalar {
        /// The shape found.
        got: Vec<usize>,
    },

    /// A name that is not among the variables.
    #[error("no variable is called `{name}`; there are {count}, for example {example:?}")]
    UnknownVariable {
        /// The name asked for.
        name: String,
        /// How many variables there are.
        count: usize,
        /// One of them.
        example: Option<String>,
    },

    /// Two variables of one name.
    #[error("two variables are called `{name}`: give every variable a name of its own")]
    DuplicateVariable {
        /// The name.
        name: String,
    },

    /// One variable under two names.
    #[error(
        "`{first}` and `{second}` are one variable: it would be changed twice a step; leave one name out"
    )]
    SharedVariable {
        /// One of its names.
        first: String,
        /// Another.
        second: String,
    },

    /// A vector, a state or a block that does not fit its variable.
    #[error("variable `{name}`: expected {expected}, got {got}")]
    Variable {
        /// The variable's name.
        name: String,
        /// What would fit.
        expected: String,
        /// What was given.
        got: String,
    },

    /// A setting outside its range.
    #[error("{what}: expected {expected}, got {got}")]
    Setting {
        /// The setting's name.
        what: &'static str,
        /// The allowed values.
        expected: String,
        /// The value given.
        got: String,
    },

    /// Too many steps in a row with a gradient or a Hessian that is not finite.
    #[error(
        "{skipped} steps in a row were skipped because the {what} of `{name}` is not finite \
         (last at step {step}): lower the learning rate, clip the gradient, or look for a division by zero in the loss"
    )]
    NonFinite {
        /// `gradient` or `Hessian-vector product`.
        what: &'static str,
        /// The first variable, by name, where it shows.
        name: String,
        /// The step of the last skip, counted from 0.
        step: u64,
        /// How many in a row.
        skipped: u32,
    },

    /// A saved optimizer state that does not belong to this optimizer or these variables.
    #[error("optimizer state: {what}: expected {expected}, got {got}")]
    State {
        /// The entry.
        what: String,
        /// What this optimizer needs.
        expected: String,
        /// What the state holds.
        got: String,
    },

    /// A file that cannot be read or written as what it should be.
    #[error("{path}: {what}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },

    /// Parts of a [`crate::Composite`] that do not cover the variables and tables exactly once.
    #[error(
        "the optimizer's parts do not cover the variables exactly once: in no part {uncovered:?}, in two {twice:?}"
    )]
    Coverage {
        /// Variables or tables that no part owns.
        uncovered: Vec<String>,
        /// Variables or tables that two parts own.
        twice: Vec<String>,
    },

    /// A participant of a training with several left before a step was complete.
    #[error(
        "participant {rank} of this training is gone: it failed, or was dropped, before all had brought their gradients"
    )]
    Participant {
        /// Its rank, counted from 0.
        rank: usize,
    },

    /// A check of a derivative failed.
    #[error(
        "{what} of `{name}` differs from finite differences: relative error {error:.3e} where {tolerance:.1e} is allowed"
    )]
    Check {
        /// `gradient` or `Hessian-vector product`.
        what: &'static str,
        /// The worst variable.
        name: String,
        /// Its relative error.
        error: f64,
        /// The tolerance given.
        tolerance: f64,
    },

    /// Variables that the loss does not reach, as far as candle's graph goes.
    #[error("no gradient reaches {} of {of} variables: {names:?}. {hint}", names.len())]
    NotReached {
        /// All of their names.
        names: Vec<String>,
        /// How many variables there are.
        of: usize,
        /// What it may come from, and what to do.
        hint: String,
    },

    /// A program whose derivatives are not those of its loss.
    #[error("the program's derivatives are not those of its loss: {findings}")]
    Audit {
        /// Every finding, with the variables' names.
        findings: String,
    },
}

impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(error) => error,
            other => candle_core::Error::wrap(other),
        }
    }
}

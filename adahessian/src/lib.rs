#![doc = include_str!("../../README.md")]

pub mod block;
pub mod check;
pub mod curvature;
pub mod error;
pub mod ops;
pub mod optim;
pub mod random;
pub mod schedule;
pub mod second_order;
pub mod sparse;
pub mod vars;

pub use block::{Block, Blocks};
pub use curvature::LinearOperator;
pub use curvature::finite_difference::FiniteDifference;
pub use curvature::hessian::Hessian;
pub use curvature::hutchinson::{Estimate, Hutchinson, Probe};
pub use curvature::mean::Mean;
pub use error::{Error, Result};
pub use optim::{
    AdaHessian, Adagrad, Adam, AdamW, Average, Builder, Common, Composite, Curvature, Delay, Entry,
    Group, Lamb, Number, Optim, Optimizer, Reducer, RmsProp, Rule, Sgd, SophiaH, State, Step,
    StepInfo, optimizer_by_name,
};
pub use schedule::Schedule;
pub use second_order::{backward, backward_detached, init};
pub use sparse::{SparseOptimizer, SparseRule, SparseTable};
pub use vars::{NamedVars, VarVec};

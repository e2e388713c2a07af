#![doc = include_str!("../README.md")]

mod block;
pub mod check;
pub mod cuda;
mod curvature;
pub mod engine;
mod error;
mod files;
mod kind;
pub mod nn;
pub mod numeric;
pub mod ops;
mod optim;
pub mod random;
mod schedule;
mod second_order;
pub mod sparse;
mod tables;
mod vars;

pub use block::{Block, Blocks};
pub use curvature::LinearOperator;
pub use curvature::finite_difference::FiniteDifference;
pub use curvature::hessian::Hessian;
pub use curvature::hutchinson::{Estimate, Hutchinson, Probe};
pub use curvature::mean::Mean;
pub use engine::{with_graph, without_graph};
pub use error::{Error, Result};
pub use files::save_tensors;
pub use kind::{Kind, Kinds};
pub use numeric::empty_cache;
pub use optim::reducer::{Reducer, RowSums, Sums, ThreadGroup, ThreadReducer};
pub use optim::{
    AdaHessian, Adagrad, Adam, AdamW, Average, Builder, Common, Composite, Curvature,
    CurvatureInfo, Delay, Entry, Group, Lamb, NotFinite, Number, Optim, Optimizer, RULES, Reach,
    RmsProp, Rule, Rules, Sgd, SophiaH, State, Step, StepBound, StepInfo, Unseen, correction,
    optimizer_by_name,
};
pub use schedule::Schedule;
pub use second_order::{backward, backward_detached, has_graph, init, release};
pub use vars::{NamedVars, VarVec};

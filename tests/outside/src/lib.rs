//! What somebody else may write with this library: an operation, a rule and a model.

mod ada_belief;
mod glu;
mod model;

pub use ada_belief::AdaBelief;
pub use glu::glu;
pub use model::Gated;

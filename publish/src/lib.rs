//! Pushes a folder that a run has exported, a model in the Hub's layout, to the Hugging Face Hub: one commit, made by
//! the Hub's own client.

mod error;
mod folder;
mod hub;

pub use error::{Error, Result};
pub use folder::{File, Folder};
pub use hub::{Hub, Push, Pushed};

//! The functions, by what they read.

pub mod checkpoints;
pub mod clicks;
pub mod configs;
pub mod conll;
pub mod folders;
pub mod glue;
pub mod masked;
pub mod models;
pub mod pictures;
pub mod text;
pub mod translation;
pub mod words;

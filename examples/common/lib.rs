//! What the examples share: settings from flags and files, the device, the start of a program.

pub mod choose;
pub mod program;
pub mod settings;
pub mod table;
pub mod vision;

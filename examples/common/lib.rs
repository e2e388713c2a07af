//! What the examples share: settings from flags and files, the device, the start of a program, the
//! folders of runs and what they left there.

pub mod choose;
pub mod folders;
pub mod layers;
pub mod plots;
pub mod program;
pub mod report;
pub mod results;
pub mod settings;
pub mod table;
pub mod vision;
pub mod watch;

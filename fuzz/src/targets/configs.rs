//! Configurations in TOML.

use trainers::TrainConfig;

/// The trainer's configuration.
pub fn train_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(config) = toml::from_str::<TrainConfig>(text) else {
        return;
    };
    config.check().ok();
    for step in [0, 1, 7, u64::MAX] {
        config.schedule.factor(step, 10);
    }
    let written = toml::to_string(&config).expect("what was read can be written");
    assert!(toml::from_str::<TrainConfig>(&written).is_ok(), "{written}");
}

/// A run's configuration, `config.toml` of a run's folder and of `--config`.
///
/// The programs' settings are being made anew. Until they have a function for it that can be called from
/// here, this reads a TOML table, as their layers do first; it becomes that function.
pub fn run_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(table) = toml::from_str::<toml::Table>(text) {
        let written = toml::to_string(&table).expect("what was read can be written");
        assert!(toml::from_str::<toml::Table>(&written).is_ok(), "{written}");
    }
}

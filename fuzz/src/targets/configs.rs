//! Configurations in TOML.

use common::layers::Asked;
use common::vision::VisionArgs;
use trainers::TrainConfig;

/// The trainer's configuration.
pub fn train_config(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else {
        return false;
    };
    let Ok(config) = toml::from_str::<TrainConfig>(text) else {
        return false;
    };
    let checked = config.check().is_ok();
    for step in [0, 1, 7, u64::MAX] {
        config.schedule.factor(step, 10);
    }
    let written = toml::to_string(&config).expect("what was read can be written");
    assert!(toml::from_str::<TrainConfig>(&written).is_ok(), "{written}");
    checked
}

/// The settings of a program, from `--config` and from the `config.toml` of a run's folder.
pub fn run_config(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else {
        return false;
    };
    let Ok(table) = common::layers::parse(text) else {
        return false;
    };
    let Ok(asked) = Asked::<VisionArgs>::of(&table, "config.toml") else {
        return false;
    };
    let written = asked.text().expect("what was read can be written");
    let again = common::layers::parse(&written).expect("what was written can be read");
    let again = Asked::<VisionArgs>::of(&again, "config.toml").expect("and means something");
    assert_eq!(again.given, asked.given);
    true
}

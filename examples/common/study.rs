//! The tables of the AdaHessian paper (Yao et al. 2021), and one that it has not, as comparisons that every program can
//! make.

use crate::layers::{Asked, Own};
use anyhow::{Result, bail};
use toml::Value;

/// A comparison with a name.
pub struct Study {
    /// What it is asked for with.
    pub name: &'static str,
    /// The optimizers, where none are named.
    pub optimizers: &'static str,
    /// What is swept besides them.
    pub sweeps: &'static [&'static str],
}

/// Seeds, where none are named.
const SEEDS: &str = "0,1,2";

/// All of them, with the paper's values where it has some.
pub const STUDIES: [Study; 5] = [
    // Table 2.
    Study {
        name: "optimizers",
        optimizers: "adahessian,adamw,adam,sgd",
        sweeps: &[],
    },
    // Table 6.
    Study {
        name: "rates",
        optimizers: "adahessian,adamw,sgd",
        sweeps: &["lr-scale=0.5,1,2,3,4,5,6,10"],
    },
    // Table 7, and what its blocks end in.
    Study {
        name: "blocks",
        optimizers: "adahessian",
        sweeps: &["block-size=single,2,4,8,16,32,64,128,rows,whole"],
    },
    // Table 8.
    Study {
        name: "delays",
        optimizers: "adahessian",
        sweeps: &["hessian-every=1,2,3,4,5"],
    },
    // How little curvature does: a part of the batch, on some of the steps.
    Study {
        name: "curvature",
        optimizers: "adahessian",
        sweeps: &[
            "curvature-fraction=0.125,0.25,0.5,1",
            "hessian-every=1,2,5,10",
        ],
    },
];

/// Their names, for the flag.
pub const NAMES: [&str; 5] = ["optimizers", "rates", "blocks", "delays", "curvature"];

/// What is asked for with a study's axes in it; what was named besides goes before its own.
///
/// # Errors
/// If a flag is swept that the study sweeps.
pub fn applied<A: Own>(mut asked: Asked<A>) -> Result<Asked<A>> {
    let name = asked.invocation.study.clone();
    let Some(study) = STUDIES
        .iter()
        .find(|study| Some(study.name) == name.as_deref())
    else {
        return Ok(asked);
    };
    let mut given = asked.given.clone();
    for (setting, values) in [("optimizer", study.optimizers), ("seed", SEEDS)] {
        if !given.contains_key(setting) {
            given.insert(setting.into(), Value::String(values.into()));
        }
    }
    for (place, sweep) in study.sweeps.iter().enumerate() {
        let flag = sweep.split('=').next().unwrap_or_default();
        if asked.has(&flag.replace('-', "_")) {
            bail!("--{flag}: --study {} varies it; leave it out", study.name);
        }
        asked.invocation.sweep.insert(place, sweep.to_string());
    }
    asked.with_given(&given)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Settings;
    use clap::{Args, Command};
    use serde::{Deserialize, Serialize};

    #[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct None {}

    fn asked(line: &str) -> Result<Asked<None>> {
        let command = crate::layers::augment::<None>(Command::new("program"));
        let words = std::iter::once("program").chain(line.split_whitespace());
        applied(Asked::read(&command.try_get_matches_from(words)?)?)
    }

    #[test]
    fn a_study_is_optimizers_seeds_and_a_sweep() {
        for (study, name) in STUDIES.iter().zip(NAMES) {
            assert_eq!(study.name, name);
            let asked = asked(&format!("--study {name}")).unwrap();
            let Settings {
                optimizer,
                training,
                ..
            } = &asked.settings;
            assert_eq!(
                (optimizer.optimizer.as_str(), training.seed.as_str()),
                (study.optimizers, SEEDS)
            );
            assert_eq!(asked.invocation.sweep, study.sweeps);
        }
        let own = asked("--study rates --optimizer lamb --seed 7 --sweep bound=0,1").unwrap();
        assert_eq!(own.settings.optimizer.optimizer, "lamb");
        assert_eq!(own.settings.training.seed, "7");
        assert_eq!(own.invocation.sweep.len(), 2);
        let text = own.text().unwrap();
        assert!(
            text.contains("lr-scale=0.5") && text.contains("bound=0,1"),
            "{text}"
        );
        let error = asked("--study delays --hessian-every 3").unwrap_err();
        assert!(error.to_string().contains("--hessian-every"), "{error}");
    }
}

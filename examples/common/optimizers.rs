//! The optimizer that the settings ask for, and the rates that work where nothing was asked for.

use crate::flags::{LoopArgs, OptimizerArgs, first_steps, two_betas};
use crate::grid::Cell;
use crate::layers::Own;
use crate::plateau;
use adahessian::sparse::{Accumulator, SparseRule};
use adahessian::{
    Average, Blocks, NamedVars, Optim, Rules, Schedule, StepBound, Unseen, optimizer_by_name,
};
use anyhow::{Context, Result, bail};

/// What is trained decides the scale of a good learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A pretrained transformer.
    Pretrained,
    /// A transformer with fresh weights.
    Scratch,
    /// A residual network.
    Residual,
    /// The dense layers of a click predictor.
    Clicks,
    /// A translator.
    Translation,
    /// A language model.
    Language,
    /// A pretrained transformer of a few million parameters.
    Mini,
}

/// The learning rates of an optimizer.
struct Rates {
    optimizer: &'static str,
    /// By [`Family`], in its order.
    lr: [f64; 7],
    /// The weight decay of transformers.
    weight_decay: f64,
}

const fn rates(optimizer: &'static str, lr: [f64; 7], weight_decay: f64) -> Rates {
    Rates {
        optimizer,
        lr,
        weight_decay,
    }
}

/// Residual networks, clicks and translators have the paper's rates. A language model's are, of AdaHessian and AdamW, the best of a
/// third of the paper's, itself and three times it after an epoch of Penn Treebank, of SGD the largest that never ran away there;
/// those of the shipped model the best of five and four on its sample (AdaHessian, AdamW).
const RATES: [Rates; 8] = [
    rates(
        "adahessian",
        [1e-2, 0.1, 0.15, 0.043, 0.047, 0.6, 3e-3],
        1e-4,
    ),
    rates("adamw", [5e-5, 2e-3, 1e-2, 1e-3, 1.5e-3, 3e-3, 1e-4], 0.01),
    rates("adam", [5e-5, 2e-3, 1e-3, 1e-3, 1.5e-3, 1e-3, 1e-4], 0.0),
    rates("sgd", [1e-2, 5e-2, 0.1, 0.1, 0.1, 0.3, 5e-2], 0.0),
    rates("rmsprop", [2e-5, 5e-4, 1e-3, 1e-3, 5e-4, 5e-4, 5e-4], 0.0),
    rates("adagrad", [1e-3, 1e-2, 1e-2, 0.01, 1e-2, 1e-2, 1e-2], 0.0),
    rates("lamb", [1e-3, 5e-3, 1e-2, 1e-3, 2e-3, 5e-3, 5e-3], 0.01),
    rates("sophiah", [3e-5, 6e-4, 1e-3, 1e-3, 6e-4, 6e-4, 6e-4], 0.1),
];

fn rates_of(optimizer: &str) -> Result<&'static Rates> {
    let found = RATES.iter().find(|rates| rates.optimizer == optimizer);
    found.with_context(|| {
        let names = RATES.map(|rates| rates.optimizer).join(", ");
        format!("--optimizer {optimizer}: expected one of {names}")
    })
}

/// Checks an optimizer's name.
///
/// # Errors
/// With the list of names.
pub fn check(optimizer: &str) -> Result<()> {
    rates_of(optimizer).map(drop)
}

/// What a rule has otherwise than AdaHessian, whose the flags' own defaults are: Sophia-H takes the curvature with its
/// sign, of each entry, on every tenth step (Liu et al. 2023).
pub fn own_defaults(args: &mut OptimizerArgs) {
    if args.optimizer == "sophiah" {
        args.average = "signed".into();
        args.block_size = "single".into();
        args.hessian_every = 10;
    }
}

/// The learning rate that works for this optimizer.
///
/// # Errors
/// With the list of names for an unknown one.
pub fn default_lr(optimizer: &str, family: Family) -> Result<f64> {
    Ok(rates_of(optimizer)?.lr[family as usize])
}

/// The bound of a step, for all optimizers alike; 0 for none, where no bound was found to do more good than harm.
pub fn default_bound(family: Family) -> f64 {
    match family {
        Family::Scratch | Family::Mini => 0.01,
        Family::Clicks => 0.02,
        Family::Pretrained | Family::Residual | Family::Translation | Family::Language => 0.0,
    }
}

/// The schedule of transformers, for all optimizers alike.
pub fn default_schedule(family: Family) -> &'static str {
    match family {
        Family::Scratch | Family::Mini => "warmup:0.1+linear",
        _ => "linear",
    }
}

/// The weight decay of transformers.
///
/// # Errors
/// With the list of names for an unknown one.
pub fn default_decay(optimizer: &str) -> Result<f64> {
    Ok(rates_of(optimizer)?.weight_decay)
}

/// What an optimizer needs to know besides its flags.
pub struct Place {
    /// The seed of probes.
    pub seed: u64,
    /// For settings in epochs.
    pub steps_per_epoch: u64,
    /// The sum of the schedule's factors over the run, for `--travel`; 0 where nobody asks for it.
    pub factors: f64,
    /// The blocks that the model's layers have of themselves.
    pub blocks: Blocks,
    /// The rules' own settings, where they are not the usual ones.
    pub rules: Rules,
}

impl Place {
    /// That of a run, with the rules' usual settings.
    ///
    /// # Errors
    /// For a schedule that is none.
    pub fn of<A: Own>(cell: &Cell<A>, steps_per_epoch: u64, blocks: Blocks) -> Result<Self> {
        let settings = &cell.settings;
        Ok(Self {
            seed: cell.seed,
            steps_per_epoch,
            // A run that is to end by its patience may be of a million epochs: their steps are not gone through in vain.
            factors: match settings.optimizer.travel > 0.0 {
                true => factors(&settings.training, steps_per_epoch)?,
                false => 0.0,
            },
            blocks,
            rules: Rules::default(),
        })
    }
}

/// The sum of the schedule's factors over a run, at its full rate as long as no evaluation lowers it.
fn factors(training: &LoopArgs, steps_per_epoch: u64) -> Result<f64> {
    let steps = steps_per_epoch.saturating_mul(training.epochs as u64);
    let steps = steps.min(training.max_steps.unwrap_or(u64::MAX));
    let schedule: Schedule = plateau::parts(&training.schedule)?.0.parse()?;
    Ok(schedule.sum(steps))
}

/// The stricter of `--bound` and `--travel`.
fn bound(args: &OptimizerArgs, factors: f64) -> Option<StepBound> {
    let step = (args.bound > 0.0).then(|| StepBound::new(args.bound));
    let run = (args.travel > 0.0 && factors > 0.0).then(|| StepBound::of_run(args.travel, factors));
    let both = [step, run].into_iter().flatten();
    both.min_by(|a, b| a.relative.total_cmp(&b.relative))
}

/// Makes the optimizer.
///
/// # Errors
/// For an unknown name or a setting out of range.
pub fn build(args: &OptimizerArgs, place: Place, vars: &NamedVars) -> Result<Box<dyn Optim>> {
    rates_of(&args.optimizer)?;
    let blocks = match args.block_size.as_str() {
        "own" | "spatial" => place.blocks,
        text => Blocks::matrices(
            text.parse()
                .with_context(|| format!("--block-size {text}"))?,
        ),
    };
    let first = first_steps(&args.hessian_first, place.steps_per_epoch);
    let first = first.map_err(|e| anyhow::anyhow!("--hessian-first {e}"))?;
    let rules = set(place.rules, args)?;
    let optimizer = optimizer_by_name(&args.optimizer, &rules, vars, |common, curvature| {
        (common.lr, common.weight_decay) = (args.rate(), args.weight_decay);
        common.clip_norm = args.clip_norm;
        common.bound = bound(args, place.factors);
        curvature.blocks = blocks;
        curvature.average = match args.average.as_str() {
            "signed" => Average::Signed,
            _ => Average::Absolute,
        };
        curvature.every = args.hessian_every;
        curvature.always_first = first;
        curvature.samples = args.samples;
        curvature.floor = args.hessian_floor;
        curvature.seed = place.seed;
    });
    Ok(optimizer?)
}

/// The rules with what the flags say of them.
fn set(mut rules: Rules, args: &OptimizerArgs) -> Result<Rules> {
    let betas = two_betas(&args.betas).map_err(|e| anyhow::anyhow!("--betas {e}"))?;
    rules.adahessian.eps = args.eps;
    rules.adahessian.hessian_power = args.hessian_power;
    rules.adahessian.betas = betas;
    rules.adahessian.unseen = match args.unseen.as_str() {
        "wait" => Unseen::Wait,
        "divide" => Unseen::Divide,
        // Of the rest of the batch there are gradients without a curvature.
        _ if args.curvature_fraction < 1.0 => Unseen::Wait,
        _ => Unseen::Auto,
    };
    (rules.adamw.betas, rules.adam.betas, rules.lamb.betas) = (betas, betas, betas);
    Ok(rules)
}

/// What [`table_rule`] knows.
pub const TABLE_RULES: [&str; 3] = ["adagrad", "adagrad-rows", "sgd"];

/// What sparse tables are stepped with, by name: one of [`TABLE_RULES`].
///
/// # Errors
/// With the list of names.
pub fn table_rule(name: &str) -> Result<SparseRule> {
    Ok(match name {
        "adagrad" => SparseRule::adagrad(),
        "adagrad-rows" => SparseRule::Adagrad {
            accumulator: Accumulator::Rows,
            eps: 1e-10,
        },
        "sgd" => SparseRule::Sgd,
        _ => bail!("--table-optimizer {name}: expected one of {TABLE_RULES:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};
    use clap::{Args, FromArgMatches};

    fn vars() -> NamedVars {
        let x = Var::new(&[1f32, 2.0], &Device::Cpu).unwrap();
        NamedVars::new([("x".to_string(), x)]).unwrap()
    }

    fn args(optimizer: &str) -> OptimizerArgs {
        let lr = default_lr(optimizer, Family::Clicks).unwrap_or(1.0);
        OptimizerArgs::new(optimizer, lr).unwrap()
    }

    fn place() -> Place {
        Place {
            seed: 0,
            steps_per_epoch: 10,
            factors: 20.0,
            blocks: Blocks::single(),
            rules: Rules::default(),
        }
    }

    #[test]
    fn every_rule_of_the_library_has_rates_and_is_made_by_its_name() {
        for rule in adahessian::RULES {
            let made = build(&args(rule), place(), &vars()).unwrap();
            assert_eq!(made.state().unwrap().meta["kind"], *rule);
            assert_eq!(made.lr(), default_lr(rule, Family::Clicks).unwrap());
        }
        assert_eq!(RATES.len(), adahessian::RULES.len());
        assert_eq!(default_lr("adahessian", Family::Pretrained).unwrap(), 1e-2);
        assert_eq!(default_lr("adahessian", Family::Scratch).unwrap(), 0.1);
        assert_eq!(default_lr("sgd", Family::Residual).unwrap(), 0.1);
        assert_eq!(default_decay("adamw").unwrap(), 0.01);
    }

    #[test]
    fn the_stricter_bound_is_in_force() {
        let mut given = args("adamw");
        let of = |given: &OptimizerArgs| bound(given, 20.0).map(|bound| bound.relative);
        assert_eq!(of(&given), None);
        given.travel = 0.1;
        assert_eq!(of(&given), Some(0.005));
        given.bound = 0.01;
        assert_eq!(of(&given), Some(0.005));
        given.travel = 1.0;
        assert_eq!(of(&given), Some(0.01));
        // A run of no steps, which others refuse.
        assert_eq!(bound(&given, 0.0), Some(StepBound::new(0.01)));
    }

    #[test]
    fn a_runs_factors_are_those_of_its_steps() {
        let matches = LoopArgs::augment_args(clap::Command::new("loop"));
        let matches = matches.get_matches_from(["loop", "--epochs", "3", "--schedule", "linear"]);
        let mut training = LoopArgs::from_arg_matches(&matches).unwrap();
        let of = |training: &LoopArgs| factors(training, 2).unwrap();
        assert_eq!(of(&training), Schedule::Linear.sum(6));
        training.max_steps = Some(4);
        assert_eq!(of(&training), Schedule::Linear.sum(4));
        training.schedule = "warmup:2+plateau".into();
        assert_eq!(of(&training), 3.5);
    }

    #[test]
    fn betas_are_those_of_every_rule_with_two_averages() {
        let mut given = args("adamw");
        given.betas = "0.8,0.95".into();
        let rules = set(Rules::default(), &given).unwrap();
        let betas = [
            rules.adahessian.betas,
            rules.adamw.betas,
            rules.adam.betas,
            rules.lamb.betas,
        ];
        assert_eq!(betas, [(0.8, 0.95); 4]);
        // Sophia-H's are its own.
        assert_eq!(rules.sophiah.betas, Rules::default().sophiah.betas);
    }

    #[test]
    fn sophia_is_sophia() {
        let mut given = args("sophiah");
        own_defaults(&mut given);
        assert_eq!(
            (given.average.as_str(), given.hessian_every),
            ("signed", 10)
        );
        let mut other = args("adahessian");
        own_defaults(&mut other);
        assert_eq!(other, args("adahessian"));
    }

    #[test]
    fn unknown_names_are_refused_with_the_list_of_names() {
        let errors = [
            default_lr("sdg", Family::Scratch).unwrap_err(),
            default_decay("sdg").unwrap_err(),
            build(&args("sdg"), place(), &vars()).map(drop).unwrap_err(),
        ];
        for error in errors {
            let text = error.to_string();
            assert!(text.contains("--optimizer sdg"), "{text}");
            for rates in RATES {
                assert!(text.contains(rates.optimizer), "{text}");
            }
        }
    }
}

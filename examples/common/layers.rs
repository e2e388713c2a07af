//! Settings in layers: flags over a file over the program's defaults.
//!
//! Whatever its source, a setting is an argument of the command line and is checked as one: those of a file
//! come first, the flags after them, and of two of one name the last one counts.

use crate::flags::{Invocation, Settings};
use anyhow::{Context, Result, bail};
use clap::builder::StyledStr;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::path::Path;
use toml::{Table, Value};

/// A program's own flags.
pub trait Own: Args + Clone + Serialize + DeserializeOwned {}

impl<A: Args + Clone + Serialize + DeserializeOwned> Own for A {}

/// What a command line asks for: settings that were given, and the flags' own defaults for the others.
#[derive(Clone, Debug)]
pub struct Asked<A: Args> {
    /// All settings.
    pub settings: Settings<A>,
    /// Those that were given, by name.
    pub given: Table,
    /// Those that were given with the flag's own default, where no file says such a thing: they go before what lies below,
    /// too.
    at_default: Table,
    /// The flags that are no settings.
    pub invocation: Invocation,
}

/// A command with the flags of a program.
fn command<A: Args>(name: &'static str) -> Command {
    augment::<A>(Command::new(name))
}

/// Adds the flags of a program, which keeps what it says of itself: clap would have it say what is said of the flags.
pub fn augment<A: Args>(command: Command) -> Command {
    let about = command.get_about().cloned();
    let long_about = command.get_long_about().cloned();
    let command = Settings::<A>::augment_args(command);
    let command = Invocation::augment_args(command).args_override_self(true);
    let with = |command: Command, about, set: fn(Command, StyledStr) -> Command| match about {
        Some(about) => set(command, about),
        None => command,
    };
    let command = with(command, about, Command::about);
    with(command, long_about, Command::long_about)
}

impl<A: Own> Asked<A> {
    /// What the flags say.
    ///
    /// # Errors
    /// If the matches are not those of a command with [`augment`]ed flags.
    pub fn read(matches: &ArgMatches) -> Result<Self> {
        let settings = Settings::<A>::from_arg_matches(matches)?;
        let mut given = table(&settings)?;
        let named = |name: &str| matches.value_source(name) == Some(ValueSource::CommandLine);
        given.retain(|name, _| named(name));
        let flags = Settings::<A>::augment_args(Command::new("settings"));
        let flags = flags.get_arguments().map(|flag| flag.get_id().as_str());
        let unsaid = flags.filter(|name| named(name) && !given.contains_key(*name));
        let at_default = unsaid.map(|name| (name.to_string(), raw(matches, name)));
        let at_default = at_default.collect();
        Ok(Self {
            settings,
            given,
            at_default,
            invocation: Invocation::from_arg_matches(matches)?,
        })
    }

    /// What a table of settings says; `origin` is where it comes from.
    ///
    /// # Errors
    /// With the origin, for a name that is no flag's and for a value that the flag does not take.
    pub fn of(given: &Table, origin: &str) -> Result<Self> {
        let arguments = arguments(given).with_context(|| origin.to_string())?;
        let all = std::iter::once(OsString::from("settings")).chain(arguments);
        match command::<A>("settings").try_get_matches_from(all) {
            Ok(matches) => Self::read(&matches)?.settings_only(origin),
            Err(error) => {
                let text = error.render().to_string();
                let text = text.trim_start_matches("error: ");
                bail!("{origin}: {}", text.split("\n\n").next().unwrap_or(text));
            }
        }
    }

    /// Refuses what has its place on the command line alone.
    fn settings_only(self, origin: &str) -> Result<Self> {
        let invocation = &self.invocation;
        let others = [
            ("config", invocation.config.is_some()),
            ("out", invocation.out.is_some()),
            ("resume", invocation.resume.is_some()),
            ("study", invocation.study.is_some()),
            ("dry_run", invocation.dry_run),
            ("find_lr", invocation.find_lr.is_some()),
        ];
        match others.iter().find(|(_, is_there)| *is_there) {
            Some((name, _)) => bail!("{origin}: `{name}` is a flag and no setting: take it out"),
            None => Ok(self),
        }
    }

    /// These, over those that `below` gives.
    ///
    /// # Errors
    /// As [`Asked::of`].
    pub fn over(self, below: &Table, origin: &str) -> Result<Self> {
        let below = Self::of(below, origin)?;
        let (mut given, mut at_default) = (below.given, below.at_default);
        given.retain(|name, _| !self.at_default.contains_key(name));
        at_default.retain(|name, _| !self.given.contains_key(name));
        given.extend(self.given);
        at_default.extend(self.at_default);
        let both = Self::of(&given, origin)?;
        let mut invocation = self.invocation;
        if invocation.sweep.is_empty() {
            invocation.sweep = below.invocation.sweep;
        }
        invocation.halving |= below.invocation.halving;
        Ok(Self {
            invocation,
            at_default,
            ..both
        })
    }

    /// These with other settings given; what was said of flags that are no settings stays.
    ///
    /// # Errors
    /// As [`Asked::of`].
    pub fn with_given(self, given: &Table) -> Result<Self> {
        let asked = Self::of(given, "settings")?;
        Ok(Self {
            invocation: self.invocation,
            at_default: self.at_default,
            ..asked
        })
    }

    /// Whether a setting was given.
    pub fn has(&self, name: &str) -> bool {
        self.given.contains_key(name) || self.at_default.contains_key(name)
    }

    /// All that was given, as it would be written down.
    pub fn all_given(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.given.iter().chain(&self.at_default)
    }

    /// Whether a setting was given as the default that is written down nowhere.
    pub fn is_at_default(&self, name: &str) -> bool {
        self.at_default.contains_key(name)
    }

    /// All settings, with `defaults` for those that were not given.
    ///
    /// # Errors
    /// If they cannot be written as a table.
    pub fn resolved(&self, defaults: &Settings<A>) -> Result<Settings<A>> {
        let mut all = table(defaults)?;
        all.extend(self.given.clone());
        Ok(all.try_into()?)
    }

    /// What was given as the text of a TOML file, with the sweeps.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn text(&self) -> Result<String> {
        let mut all = self.given.clone();
        if !self.invocation.sweep.is_empty() {
            let sweeps = self.invocation.sweep.iter().cloned().map(Value::String);
            all.insert("sweep".into(), Value::Array(sweeps.collect()));
        }
        if self.invocation.halving {
            all.insert("halving".into(), Value::Boolean(true));
        }
        if let Some(steps) = self.invocation.find_lr {
            all.insert("find_lr".into(), Value::Integer(steps as i64));
        }
        Ok(toml::to_string(&all)?)
    }
}

/// What was typed for a flag.
fn raw(matches: &ArgMatches, name: &str) -> Value {
    let typed = matches.get_raw(name).into_iter().flatten();
    let typed = typed.map(|text| text.to_string_lossy().into_owned());
    Value::String(typed.collect::<Vec<_>>().join(","))
}

/// Settings as a table.
///
/// # Errors
/// If they cannot be written as one.
pub fn table<A: Own>(settings: &Settings<A>) -> Result<Table> {
    Ok(Table::try_from(settings)?)
}

/// Larger files are no settings.
const LARGEST: u64 = 1 << 20;

/// The table in a TOML file.
///
/// # Errors
/// With file and line for what cannot be read.
pub fn read(path: &Path) -> Result<Table> {
    let place = || path.display().to_string();
    let length = std::fs::metadata(path).with_context(place)?.len();
    if length > LARGEST {
        bail!(
            "{}: {length} bytes; expected settings, at most 1 MiB",
            place()
        );
    }
    parse(&std::fs::read_to_string(path).with_context(place)?).with_context(place)
}

/// The table in the text of a TOML file.
///
/// # Errors
/// With the line for what cannot be read.
pub fn parse(text: &str) -> Result<Table> {
    Ok(text.trim_start_matches('\u{feff}').parse()?)
}

/// The settings of a run that was begun, which are all written down: `travel`, which older versions had not, was not in
/// force where it is not there.
///
/// # Errors
/// As [`parse`].
pub fn of_run(text: &str) -> Result<Table> {
    let mut table = parse(text)?;
    let travel = table.entry("travel".to_string());
    travel.or_insert(Value::Float(0.0));
    Ok(table)
}

/// The same of a run or of a comparison, whose settings are those that were given: what they lack are defaults.
///
/// # Errors
/// As [`parse`].
pub fn of_folder<A: Own>(text: &str) -> Result<Table> {
    let table = parse(text)?;
    match table.clone().try_into::<Settings<A>>() {
        Ok(_) => of_run(text),
        Err(_) => Ok(table),
    }
}

/// The arguments that say the same.
///
/// # Errors
/// For a value that no flag takes.
pub fn arguments(given: &Table) -> Result<Vec<OsString>> {
    let mut all = Vec::new();
    for (name, value) in given {
        let flag = format!("--{}", name.replace('_', "-"));
        let mut add = |value: &Value| {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => value.to_string(),
                other => bail!("{name}: expected a text, a number or a truth value, got {other}"),
            };
            all.push(OsString::from(match (name.as_str(), value) {
                // A flag without a value.
                ("halving", Value::Boolean(true)) => flag.clone(),
                _ => format!("{flag}={text}"),
            }));
            Ok(())
        };
        match value {
            // A flag that is given several times, and one that is a list.
            Value::Array(values) if name == "sweep" => values.iter().try_for_each(add)?,
            Value::Array(values) => {
                let parts = values.iter().map(|value| match value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                });
                add(&Value::String(parts.collect::<Vec<_>>().join(",")))?;
            }
            value => add(value)?,
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct None {}

    fn asked(line: &str) -> Asked<None> {
        let words = std::iter::once("program").chain(line.split_whitespace());
        Asked::read(&command::<None>("program").get_matches_from(words)).unwrap()
    }

    /// Of settings that are written down only where they are others than the default.
    #[test]
    fn a_flag_with_its_default_goes_before_a_file() {
        let file = parse("keep = \"models\"\nunseen = \"divide\"\nepochs = 2\n").unwrap();
        let over = |line: &str| asked(line).over(&file, "file").unwrap();
        let of_file = over("");
        assert_eq!(of_file.settings.run.keep, "models");
        assert_eq!(of_file.settings.optimizer.unseen, "divide");
        let flags = over("--keep all --unseen auto");
        assert_eq!(flags.settings.run.keep, "all");
        assert_eq!(flags.settings.optimizer.unseen, "auto");
        assert_eq!(flags.settings.training.epochs, 2);
        assert!(flags.has("keep") && flags.is_at_default("keep") && !of_file.is_at_default("keep"));

        // A third layer is below both, and a value above goes before a default below.
        let run = parse("keep = \"figures\"\nunseen = \"wait\"\n").unwrap();
        let all = flags.over(&run, "run").unwrap();
        assert_eq!(all.settings.run.keep, "all");
        assert_eq!(all.settings.optimizer.unseen, "auto");
        let file = parse("keep = \"all\"\nunseen = \"auto\"\n").unwrap();
        let all = asked("--keep models").over(&file, "file").unwrap();
        let all = all.over(&run, "run").unwrap();
        assert_eq!(all.settings.run.keep, "models");
        assert_eq!(all.settings.optimizer.unseen, "auto");
    }

    /// A version that had no `--travel` wrote all other settings of a run, and of a comparison those that were given.
    #[test]
    fn what_an_older_version_had_not_was_not_in_force() {
        let matches = command::<None>("program").get_matches_from(["program", "--travel=0.06"]);
        let asked = Asked::<None>::read(&matches).unwrap();
        let run = table(&asked.settings).unwrap();
        assert_eq!(run["travel"], Value::Float(0.06));
        let text = toml::to_string(&run).unwrap();
        assert_eq!(of_run(&text).unwrap(), run);
        assert_eq!(of_folder::<None>(&text).unwrap(), run);

        let mut older = run.clone();
        older.remove("travel");
        let text = toml::to_string(&older).unwrap();
        let mut none = run;
        none.insert("travel".into(), Value::Float(0.0));
        assert_eq!(of_run(&text).unwrap(), none);
        assert_eq!(of_folder::<None>(&text).unwrap(), none);

        let comparison = "bound = 0.01\nepochs = 2\nsweep = [\"lr-scale=1,2\"]\n";
        let given = of_folder::<None>(comparison).unwrap();
        assert_eq!(given, parse(comparison).unwrap());
    }
}

//! The command line.

use std::path::PathBuf;

/// What is asked for.
pub struct Arguments {
    targets: Vec<String>,
    /// Inputs a target, the seeds among them.
    pub inputs: u64,
    /// Seconds a target.
    pub seconds: u64,
    /// Of the mutations.
    pub seed: u64,
    /// One input only.
    pub only: Option<u64>,
    /// A file in the place of inputs.
    pub file: Option<PathBuf>,
    /// Whether this is the process of a target.
    pub child: bool,
}

impl Arguments {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self {
            targets: Vec::new(),
            inputs: 10_000,
            seconds: 10,
            seed: 1,
            only: None,
            file: None,
            child: false,
        };
        while let Some(word) = words.next() {
            let mut number = || {
                let value = words.next().ok_or(format!("{word} needs a value"))?;
                value.parse().map_err(|e| format!("{word} {value}: {e}"))
            };
            match word.as_str() {
                "--inputs" => arguments.inputs = number()?,
                "--seconds" => arguments.seconds = number()?,
                "--seed" => arguments.seed = number()?,
                "--only" => arguments.only = Some(number()?),
                "--child" => arguments.child = true,
                "--file" => {
                    let file = words.next().ok_or("--file needs a path")?;
                    arguments.file = Some(file.into());
                }
                name if !name.starts_with('-') => arguments.targets.push(word),
                _ => return Err(format!("{word} is no option")),
            }
        }
        arguments.child |= arguments.only.is_some();
        Ok(arguments)
    }

    pub fn wants(&self, target: &str) -> bool {
        self.targets.is_empty() || self.targets.iter().any(|name| name == target)
    }

    /// The same for the process of one target.
    pub fn of_child(&self, target: &str) -> Vec<String> {
        let numbers = [
            ("--inputs", self.inputs),
            ("--seconds", self.seconds),
            ("--seed", self.seed),
        ];
        let mut words = vec![target.to_string(), "--child".to_string()];
        words.extend(
            numbers
                .iter()
                .flat_map(|(name, n)| [name.to_string(), n.to_string()]),
        );
        words
    }
}

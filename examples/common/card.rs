//! A model card: what a model is, how good it was found to be, and how it was made, as the Hub shows it.

use crate::table::number;
use toml::{Table, Value};
use trainers::Evaluated;

/// What only the program knows of its models.
#[derive(Clone, Debug, Default)]
pub struct Card {
    /// What it is, in a sentence without its end: `SqueezeBERT, fine-tuned on GLUE's RTE`.
    pub what: String,
    /// What the Hub offers to do with it: `text-classification`, say. Those that transformers can open have one.
    pub pipeline: Option<&'static str>,
    /// The model on the Hub that it began as.
    pub base: Option<String>,
    /// Data sets of the Hub that it was trained on.
    pub datasets: Vec<&'static str>,
    /// What its scores are on; the validation data where this is empty.
    pub judged_on: &'static str,
}

/// Settings that say where something lay, or how fast it went, and nothing of the model.
const LEFT_OUT: [&str; 10] = [
    "data",
    "data_mark",
    "threads",
    "device",
    "prefetch",
    "log_every",
    "eval_every",
    "checkpoint_every",
    "audit",
    "keep",
];

/// The card of what was evaluated, made by `program` with `settings`.
///
/// It says nothing of when and where, so that a run that was interrupted has the card of one that was not.
pub fn text(
    card: &Card,
    label: &str,
    program: &str,
    evaluated: &Evaluated,
    settings: &Table,
) -> String {
    let mut text = header(card, evaluated);
    text += &format!("# {label}\n\n");
    if !card.what.is_empty() {
        text += &format!("{}.\n\n", card.what);
    }
    let judged_on = match card.judged_on {
        "" => "validation data",
        images => images,
    };
    text += &format!(
        "On the {judged_on}, after step {}:\n\n| score | |\n|---|---|\n",
        evaluated.step
    );
    for (name, value) in evaluated.scores.iter() {
        text += &format!("| {name} | {} |\n", number(value, 4));
    }
    // By its form: whether it is there depends on where the program was started.
    let is_base = |text: &str| {
        card.base
            .as_ref()
            .is_some_and(|base| text.starts_with(base))
    };
    let is_place = |value: &Value| {
        let text = value.as_str().unwrap_or_default();
        text.contains(['/', '\\']) && !is_base(text)
    };
    let mut settings = settings.clone();
    settings.retain(|name, _| !LEFT_OUT.contains(&name));
    let places = settings.iter().filter(|(_, value)| is_place(value));
    let places: Vec<String> = places.map(|(name, _)| name.clone()).collect();
    settings.retain(|name, _| !places.iter().any(|place| place == name));
    // Where the model lay that it began as is nobody's else, but that there was one is.
    let flags = places
        .iter()
        .map(|name| format!(" and `--{}`", name.replace('_', "-")));
    let flags: String = flags.collect();
    text += &format!(
        "\nMade by `{program} --config FILE`, the file being these lines, on what lies where it is asked for \
         with `--data`{flags}:\n\n```toml\n{settings}```\n\n\
         One run with one seed; nothing was tried on other data, or looked into for bias. Before it is published it \
         needs a `license` above: that of its data and of the model that it began as.\n"
    );
    text
}

/// The lines that the Hub reads.
fn header(card: &Card, evaluated: &Evaluated) -> String {
    let mut lines = vec!["---".to_string()];
    if let Some(pipeline) = card.pipeline {
        lines.extend([
            "library_name: transformers".into(),
            format!("pipeline_tag: {pipeline}"),
        ]);
    }
    if let Some(base) = &card.base {
        lines.push(format!("base_model: {base}"));
    }
    let mut list = |head: &str, entries: &[&str]| {
        if !entries.is_empty() {
            lines.push(format!("{head}:"));
            lines.extend(entries.iter().map(|entry| format!("- {entry}")));
        }
    };
    list("datasets", &card.datasets);
    // Our names, and the Hub's.
    let metrics = [
        ("accuracy", "accuracy"),
        ("f1", "f1"),
        ("matthews", "matthews_correlation"),
        ("pearson", "pearson"),
        ("spearman", "spearmanr"),
    ];
    let metrics = metrics
        .into_iter()
        .filter(|(name, _)| evaluated.scores.get(name).is_some());
    let metrics: Vec<_> = metrics.map(|(_, hub)| hub).collect();
    list("metrics", &metrics);
    list("tags", &["adahessian", "candle"]);
    lines.push("---\n\n".into());
    lines.join("\n")
}

/// An id of the Hub, `OWNER/NAME` with or without `@REVISION`, where this is none of a folder here.
pub fn hub_id(model: &str) -> Option<String> {
    let id = model.split('@').next().unwrap_or_default();
    let parts: Vec<&str> = id.split('/').collect();
    let plain = |part: &&str| !part.is_empty() && !part.starts_with('.');
    let is_id = matches!(parts.len(), 1 | 2) && parts.iter().all(plain);
    (is_id && !std::path::Path::new(model).exists()).then(|| id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use trainers::Scores;

    #[test]
    fn a_card_has_what_the_hub_reads_and_no_paths() {
        let card = Card {
            what: "SqueezeBERT, fine-tuned on GLUE's RTE".into(),
            pipeline: Some("text-classification"),
            base: hub_id("squeezebert/squeezebert-uncased@main"),
            datasets: vec!["nyu-mll/glue"],
            judged_on: "",
        };
        let evaluated = Evaluated {
            step: 40,
            scores: Scores::new("accuracy", 0.75)
                .with("loss", 0.5)
                .with("spearman", 0.5),
        };
        let here = env!("CARGO_MANIFEST_DIR");
        let settings = format!(
            "task = \"rte\"\nlr = 0.01\ndata = \"elsewhere\"\nmodel = \"{here}\"\nthreads = 2\n"
        );
        let settings: Table = settings.parse().unwrap();
        let text = text(
            &card,
            "rte adahessian seed 0",
            "glue",
            &evaluated,
            &settings,
        );
        let (head, body) = text.split_once("---\n\n# rte adahessian seed 0\n").unwrap();
        assert_eq!(
            head,
            "---\nlibrary_name: transformers\npipeline_tag: text-classification\n\
             base_model: squeezebert/squeezebert-uncased\ndatasets:\n- nyu-mll/glue\nmetrics:\n- accuracy\n- spearmanr\ntags:\n- \
             adahessian\n- candle\n"
        );
        for piece in [
            "RTE.",
            "step 40",
            "| accuracy | 0.7500 |",
            "lr = 0.01",
            "task = \"rte\"",
            "with `--data` and `--model`:",
        ] {
            assert!(body.contains(piece), "{piece}: {body}");
        }
        for piece in [here, "elsewhere", "threads"] {
            assert!(!text.contains(piece), "{piece}: {text}");
        }
    }

    #[test]
    fn folders_are_no_ids() {
        assert_eq!(
            hub_id("bert-base-uncased"),
            Some("bert-base-uncased".into())
        );
        for folder in [
            env!("CARGO_MANIFEST_DIR"),
            "./minilm",
            "/models/minilm",
            "a/b/c",
            "",
        ] {
            assert_eq!(hub_id(folder), None, "{folder}");
        }
    }
}

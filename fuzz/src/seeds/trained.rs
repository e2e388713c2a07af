//! Models and checkpoints of a few numbers.

use std::io::{Cursor, Read};
use std::path::Path;

use adahessian::State;
use models::{MaskedLanguageModel, Model, SequenceClassifier, Start, bert, squeezebert};
use trainers::Progress;
use trainers::checkpoint::{Checkpoints, Content};
use zip::ZipArchive;

use super::{Seed, with};
use crate::targets::checkpoints::manifest_of;
use crate::{Scratch, join};

fn small() -> bert::Config {
    bert::Config {
        vocab_size: 4,
        hidden_size: 4,
        num_hidden_layers: 1,
        num_attention_heads: 1,
        intermediate_size: 4,
        max_position_embeddings: 3,
        ..bert::Config::tiny()
    }
}

fn files<const N: usize>(scratch: &Scratch, folder: &str, names: [&str; N]) -> [Vec<u8>; N] {
    let folder = scratch.path().join(folder);
    names.map(|name| std::fs::read(folder.join(name)).expect("a file that was saved"))
}

/// Folders of models, and a checkpoint.
pub(super) fn folders() -> Vec<Seed> {
    let scratch = Scratch::new();
    let start = Start::default();
    let architecture = small().architecture().expect("a small BERT");
    let model = SequenceClassifier::new(&architecture, 2, &start).expect("a small classifier");
    model.save(&scratch.path().join("bert")).expect("a folder");
    let masked = MaskedLanguageModel::new(&architecture, &start).expect("a small language model");
    masked
        .save(&scratch.path().join("masked"))
        .expect("a folder");
    let squeezed = squeezebert::Config {
        vocab_size: 4,
        hidden_size: 4,
        embedding_size: 4,
        num_hidden_layers: 1,
        num_attention_heads: 1,
        intermediate_size: 4,
        max_position_embeddings: 3,
        ..squeezebert::Config::tiny()
    };
    let squeezed = squeezed.architecture().expect("a small SqueezeBERT");
    let squeezed = SequenceClassifier::new(&squeezed, 2, &start).expect("a small classifier");
    squeezed
        .save(&scratch.path().join("squeezebert"))
        .expect("a folder");
    let mut seeds = Vec::new();
    for name in ["bert", "masked", "squeezebert"] {
        let [config, weights] = files(&scratch, name, ["config.json", "model.safetensors"]);
        seeds.push((
            "safetensors_config",
            name.to_string(),
            join(&[&config, &weights]),
        ));
    }
    seeds.extend(checkpoint(&scratch, &model));
    seeds.extend(torch_files());
    seeds
}

/// A model that PyTorch wrote, and its pickle alone.
fn torch_files() -> [Seed; 2] {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/huggingface/pytorch_bin");
    let read = |name: &str| std::fs::read(folder.join(name)).expect("a reference of the tests");
    let (config, archive) = (read("config.json"), read("pytorch_model.bin"));
    let mut whole = ZipArchive::new(Cursor::new(&archive)).expect("an archive");
    let mut pickle = Vec::new();
    let entry = whole.by_name("pytorch_model/data.pkl");
    let read = entry.expect("a pickle").read_to_end(&mut pickle);
    read.expect("a whole pickle");
    // As long as the longest storage.
    let behind = join(&[&pickle, &[0; 640]]);
    let seed = |name: &str, made: u8, rest: &[u8]| {
        let input = with(&[made], &join(&[&config, rest]));
        ("torch_file", name.to_string(), input)
    };
    [seed("whole", 0, &archive), seed("made", 1, &behind)]
}

fn checkpoint(scratch: &Scratch, model: &SequenceClassifier) -> Vec<Seed> {
    let mut state = State::default();
    state.put("steps", 7);
    let content = Content {
        vars: &model.vars(),
        tables: &[],
        optimizer: &state,
        progress: &Progress::default(),
        config: "epochs = 1\n",
    };
    let saved = Checkpoints::new(scratch.path().join("run")).save(content);
    saved.expect("a checkpoint");
    let names = [
        "config.toml",
        "model.safetensors",
        "optim.safetensors",
        "manifest",
    ];
    let [config, model, optimizer, manifest] = files(scratch, "run/step-00000000", names);
    assert_eq!(
        manifest_of(&[&config, &model, &optimizer]),
        manifest,
        "the same manifest"
    );
    let all = join(&[&config, &model, &optimizer, &manifest]);
    // What is behind the checksums is what most inputs should reach.
    let behind = join(&[&config, &optimizer, &optimizer, b""]);
    vec![
        ("checkpoint_manifest", "whole".to_string(), with(&[0], &all)),
        ("checkpoint_manifest", "made".to_string(), with(&[1], &all)),
        (
            "checkpoint_manifest",
            "behind".to_string(),
            with(&[1], &behind),
        ),
    ]
}

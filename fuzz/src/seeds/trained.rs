//! Models and checkpoints of a few numbers.

use std::io::{Cursor, Read};
use std::path::Path;

use adahessian::{State, sparse};
use datasets::image::Augment;
use models::{
    LanguageModel, MaskedLanguageModel, Model, ResNet, SequenceClassifier, Start, Transformer,
    bert, language_model, resnet, squeezebert, transformer,
};
use trainers::Progress;
use trainers::checkpoint::{Checkpoints, Content};
use zip::ZipArchive;

use super::{Seed, with};
use crate::targets::checkpoints::manifest_of;
use crate::targets::folders::table;
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
    seeds.extend(other_models(&scratch, &start));
    seeds.extend(torch_files());
    seeds
}

/// A residual network, a translator, a language model, what is done to pictures, and a table.
fn other_models(scratch: &Scratch, start: &Start) -> Vec<Seed> {
    let resnet = resnet::Config {
        stages: vec![1, 1],
        width: 2,
        classes: 2,
        ..resnet::Config::cifar(8).expect("a small network")
    };
    let translator = transformer::Config {
        vocab_size: 4,
        d_model: 4,
        encoder_layers: 1,
        decoder_layers: 1,
        attention_heads: 1,
        ffn_dim: 4,
        ..transformer::Config::tiny()
    };
    let teller = language_model::Config {
        vocab_size: 6,
        d_model: 4,
        num_layers: 1,
        rank: 2,
        ffn_dim: 4,
        window: 3,
        cutoffs: vec![4],
        ..language_model::Config::tiny()
    };
    let at = |name: &str| scratch.path().join(name);
    let network = ResNet::new(&resnet, start).expect("a small network");
    network.save(&at("resnet")).expect("a folder");
    let network = Transformer::new(&translator, start).expect("a small translator");
    network.save(&at("translator")).expect("a folder");
    let network = LanguageModel::new(&teller, start).expect("a small language model");
    network.save(&at("teller")).expect("a folder");
    let seed = |name: &str, kind: u8, parts: &[&[u8]]| {
        (
            "model_folder",
            name.to_string(),
            with(&[kind], &join(parts)),
        )
    };
    let mut seeds = Vec::new();
    for (name, kind) in [("resnet", 0), ("translator", 1), ("teller", 2)] {
        let [config, weights] = files(scratch, name, ["config.json", "model.safetensors"]);
        seeds.push(seed(name, kind, &[&config, &weights]));
    }
    let pictures = Augment::cifar_test();
    pictures.save(scratch.path()).expect("room for settings");
    let [pictures] = files(scratch, ".", ["preprocessor_config.json"]);
    seeds.push(seed("pictures", 3, &[&pictures, b""]));
    sparse::save(&[table()], &at("tables.safetensors")).expect("room for a table");
    let [tables] = files(scratch, ".", ["tables.safetensors"]);
    seeds.push(seed("tables", 4, &[b"", &tables]));
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

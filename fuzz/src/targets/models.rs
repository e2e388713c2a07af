//! A model's folder: config.json and model.safetensors, or pytorch_model.bin.

use std::io::{Cursor, Write};

use models::{Start, auto};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::{Scratch, parts, settings};

/// Storages of an archive that is made here.
const STORAGES: usize = 24;

/// The two files.
pub fn safetensors_config(data: &[u8]) -> bool {
    let [config, weights] = parts(data);
    let scratch = Scratch::new();
    scratch.put("config.json", config);
    scratch.put("model.safetensors", weights);
    let start = Start::default();
    let sequences = auto::sequence_classifier(scratch.path(), None, &start);
    if let Ok((model, _)) = &sequences {
        assert!(model.labels() > 0, "a classifier without classes");
    }
    let tokens = auto::token_classifier(scratch.path(), None, &start);
    let masked = auto::masked_language_model(scratch.path(), &start);
    sequences.is_ok() || tokens.is_ok() || masked.is_ok()
}

/// Whether the archive is made right here (1), and the two files. One that is made here is a pickle and what each
/// storage holds: what is behind the archive's own table is looked at, too.
pub fn torch_file(data: &[u8]) -> bool {
    let ([made], rest) = settings(data);
    let [config, rest] = parts(rest);
    let scratch = Scratch::new();
    scratch.put("config.json", config);
    match made & 1 {
        0 => scratch.put("pytorch_model.bin", rest),
        _ => {
            let [pickle, storage] = parts(rest);
            scratch.put("pytorch_model.bin", &archive(pickle, storage))
        }
    };
    auto::sequence_classifier(scratch.path(), None, &Start::default()).is_ok()
}

/// As PyTorch writes it: nothing is packed.
fn archive(pickle: &[u8], storage: &[u8]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut put = |name: String, bytes: &[u8]| {
        let begun = writer.start_file(name, stored);
        begun.expect("a file in memory");
        writer.write_all(bytes).expect("memory takes everything");
    };
    put("pytorch_model/data.pkl".into(), pickle);
    (0..STORAGES).for_each(|number| put(format!("pytorch_model/data/{number}"), storage));
    let whole = writer.finish();
    whole.expect("an archive in memory").into_inner()
}

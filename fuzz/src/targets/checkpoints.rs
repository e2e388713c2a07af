//! Checkpoints: a manifest and the files that it lists.

use trainers::checkpoint;

use crate::{Scratch, parts, settings};

const FILES: [&str; 3] = ["config.toml", "model.safetensors", "optim.safetensors"];

/// Whether the manifest fits (1), the three files, the manifest. One that fits is made here: what is behind
/// a checksum is looked at, too.
pub fn checkpoint_manifest(data: &[u8]) -> bool {
    let ([fits], rest) = settings(data);
    let [config, model, optimizer, manifest] = parts(rest);
    let files = [config, model, optimizer];
    let scratch = Scratch::new();
    for (name, bytes) in FILES.iter().zip(files) {
        scratch.put(&format!("step-00000001/{name}"), bytes);
    }
    let made = manifest_of(&files);
    let manifest = if fits & 1 == 0 { manifest } else { &made };
    scratch.put("step-00000001/manifest", manifest);
    let loaded = checkpoint::load(&scratch.path().join("step-00000001"));
    loaded.is_ok_and(|loaded| {
        let mut tensors = loaded.model.values();
        assert!(tensors.all(|tensor| tensor.layout().is_contiguous()));
        true
    })
}

/// A manifest of these files, as the trainer writes it.
pub fn manifest_of(files: &[&[u8]; 3]) -> Vec<u8> {
    let mut text = "adahessian checkpoint 1\n".to_string();
    for (name, bytes) in FILES.iter().zip(files) {
        text += &format!("{:08x} {} {name}\n", crc32fast::hash(bytes), bytes.len());
    }
    let sum = crc32fast::hash(text.as_bytes());
    format!("{text}crc32 {sum:08x}\n").into_bytes()
}

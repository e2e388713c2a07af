//! Pictures with a trained network's answers.

use crate::program::{Program, folder};
use image::{Rgb, RgbImage};
use std::fs;
use std::path::Path;

/// Class folders of pictures of 32 x 32 pixels: stripes one way, stripes the other, and both under noise, so that a small
/// network is wrong about some.
fn pictures(at: &Path, of_each: u32) {
    for (class, name) in ["across", "upright"].iter().enumerate() {
        let folder = at.join(name);
        fs::create_dir_all(&folder).unwrap();
        for number in 0..of_each {
            picture(class, number, 32)
                .save(folder.join(format!("{number:03}.png")))
                .unwrap();
        }
    }
}

fn picture(class: usize, number: u32, size: u32) -> RgbImage {
    RgbImage::from_fn(size, size, |x, y| {
        let place = if class == 0 { y } else { x } + number;
        let noise = (x * 7919 + y * 104_729 + number * 1_299_709) % 211;
        let stripe = 40 * (place / 4 % 2);
        let value = (stripe + noise) as u8;
        Rgb([value, value, 255 - value])
    })
}

/// The last evaluation's accuracy, of 1, and loss.
fn scores(run: &Path) -> [f64; 2] {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let last = text.lines().rfind(|line| line.contains("\"evaluation\""));
    let line: serde_json::Value = serde_json::from_str(last.unwrap()).unwrap();
    ["accuracy", "loss"].map(|name| line["scores"][name].as_f64().unwrap())
}

#[test]
fn a_network_answers_as_in_its_evaluation() {
    let out = folder();
    let (data, run) = (out.path().join("data"), out.path().join("run"));
    pictures(&data.join("train"), 24);
    pictures(&data.join("val"), 10);
    let flags = "--model resnet8 --width 4 --image-size 32 --epochs 1 --batch-size 8 --optimizer sgd --lr 0.02 --data";
    Program::new("imagenet", flags)
        .path(&data)
        .argument("--out")
        .path(&run)
        .succeeds();

    let classes = ["across", "upright"];
    let (mut right, mut loss) = (0, 0.0);
    let asked = Program::new("classify", "--top 9 --batch-size 7").path(&run);
    let val = data.join("val");
    let said = asked
        .path(&val.join(classes[0]))
        .path(&val.join(classes[1]))
        .succeeds();
    assert_eq!(said.lines().count(), 20);
    for (index, line) in said.lines().enumerate() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [first, p, second, q, path] = fields[..] else {
            panic!("{line}");
        };
        let class = classes[index / 10];
        assert!(path.contains(class), "{line}");
        assert!(first != second && classes.contains(&first) && classes.contains(&second));
        let [p, q] = [p, q].map(|p| p.parse::<f64>().unwrap());
        assert!(p >= q && (p + q - 1.0).abs() < 2e-4, "{line}");
        right += usize::from(first == class);
        loss -= if first == class { p.ln() } else { q.ln() } / 20.0;
    }
    let [accuracy, evaluated] = scores(&run);
    assert!(
        (accuracy - right as f64 / 20.0).abs() < 1e-9,
        "{accuracy}, {right} of 20"
    );
    // Four digits of each probability.
    assert!((evaluated - loss).abs() < 2e-4, "{evaluated}, {loss}");

    // Of another size, and into a file.
    let (large, answer) = (out.path().join("large.png"), out.path().join("answer.tsv"));
    picture(0, 3, 75).save(&large).unwrap();
    let into = || {
        Program::new("classify", "--out")
            .path(&answer)
            .path(&run.join("model"))
    };
    into().path(&large).succeeds();
    let line = fs::read_to_string(&answer).unwrap();
    assert_eq!(line.trim_end().split('\t').count(), 3, "{line}");
    assert!(into().path(&large).fails().contains("is there already"));

    let refused = |run: &Path, picture: &Path, said: &str| {
        let error = Program::new("classify", "").path(run).path(picture).fails();
        assert!(
            error.contains(said) && !error.contains("panicked"),
            "{error}"
        );
    };
    let broken = out.path().join("broken.jpg");
    fs::write(&broken, "no picture").unwrap();
    refused(&run, &broken, "broken.jpg");
    // The others have their answers.
    let some = out.path().join("some.tsv");
    let asked = Program::new("classify", "--out").path(&some).path(&run);
    let error = asked.path(&large).path(&broken).path(&large).fails();
    assert!(
        error.contains("broken.jpg") && error.contains("1 of 3"),
        "{error}"
    );
    let lines = fs::read_to_string(&some).unwrap();
    assert_eq!(lines.matches("large.png\n").count(), 2, "{lines}");
    refused(&run, &out.path().join("absent.png"), "absent.png");
    refused(&run, &data, "no .jpg");
    refused(out.path(), &large, "neither a run nor a model");
    fs::remove_file(run.join("model/preprocessor_config.json")).unwrap();
    refused(&run, &large, "preprocessor_config.json");
}

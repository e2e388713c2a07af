//! What callbacks write: nothing twice after a crash, checksums that fit, pictures without fonts.

use adahessian::CurvatureInfo;
use adahessian::StepInfo;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs;
use std::path::Path;
use testing::assert_says;
use trainers::callbacks::{
    Curve, Curves, JsonLines, ProgressBar, StatusLines, SummaryFile, TensorBoard, crc32c, draw,
    masked_crc32c,
};
use trainers::{
    Callback, EvalReport, Evaluated, LastCurvature, Outcome, Scores, StartReport, StepReport,
    Summary,
};

fn start(resumed_at: Option<u64>) -> StartReport {
    StartReport {
        total_steps: 10,
        epochs: 1,
        resumed_at,
        owed: false,
        seed: 1,
    }
}

/// With a Hessian on every second step.
fn step(step: u64) -> StepReport {
    let newest = CurvatureInfo {
        mean_abs: 0.5,
        max_abs: 2.0,
        below_eps: 0.25,
    };
    let curvature = (step % 2 == 1).then_some(newest);
    StepReport {
        step,
        total_steps: 10,
        epoch: 0,
        loss: 1.0 / step as f64,
        info: StepInfo {
            step: step - 1,
            lr: 0.1,
            gradient_norm: 3.0,
            update_norm: 0.2,
            curvature,
            bounded: step as usize - 1,
            ..Default::default()
        },
        curvature: Some(LastCurvature {
            step: step - (step + 1) % 2,
            info: newest,
        }),
        seconds: 0.01,
        skipped_total: 0,
        logged: step != 3,
    }
}

fn evaluation(step: u64) -> EvalReport {
    let scores = Scores::new("f1", step as f64 / 10.0).with("loss", 0.7);
    EvalReport {
        step,
        epoch: 0,
        scores,
        is_best: true,
        plateau_factor: 1.0,
        seconds: 0.1,
    }
}

fn summary() -> Summary {
    let evaluated = Evaluated {
        step: 8,
        scores: Scores::new("f1", 0.8),
    };
    Summary {
        outcome: Outcome::Completed,
        steps: 10,
        epochs: 1,
        last: Some(Evaluated {
            step: 10,
            scores: Scores::new("f1", 0.75),
        }),
        best: Some(evaluated),
        skipped: 0,
        elapsed_seconds: 2.0,
        seconds_per_step: Some(0.01),
        seed: 7,
    }
}

/// Steps 1 to 7 with evaluations at 2, 4 and 6; then a crash, and on from the checkpoint of step 4.
fn crash_and_resume<C: Callback>(
    make: impl Fn() -> C,
    crash: impl Fn() -> Result<()>,
) -> Result<()> {
    let take = |callback: &mut C, steps: std::ops::RangeInclusive<u64>| -> Result<()> {
        for number in steps {
            callback.on_step(&step(number))?;
            if number % 2 == 0 {
                callback.on_evaluation(&evaluation(number))?;
            }
        }
        Ok(())
    };
    let mut first = make();
    first.on_start(&start(None))?;
    take(&mut first, 1..=7)?;
    drop(first);
    crash()?;
    let mut second = make();
    second.on_start(&start(Some(4)))?;
    take(&mut second, 5..=10)?;
    Ok(second.on_end(&summary())?)
}

fn append(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut content = fs::read(path)?;
    content.extend(bytes);
    Ok(fs::write(path, content)?)
}

#[test]
fn json_lines_appear_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("metrics.jsonl");
    // The crash left half a line.
    crash_and_resume(
        || JsonLines::new(&path),
        || append(&path, br#"{"kind":"step","st"#),
    )?;
    let text = fs::read_to_string(&path)?;
    let lines: Vec<Value> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let of_kind = |kind: &str| -> Vec<u64> {
        lines
            .iter()
            .filter(|l| l["kind"] == kind)
            .filter_map(|l| l["step"].as_u64())
            .collect()
    };
    assert_eq!(of_kind("step"), [1, 2, 4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(of_kind("evaluation"), [2, 4, 6, 8, 10]);
    assert_eq!(lines[0]["curvature_max"], 2.0);
    assert_eq!(lines[0].get("curvature_step"), None);
    // The step before it had one.
    assert_eq!(lines[1]["curvature_max"], 2.0);
    assert_eq!(lines[1]["curvature_step"], 1);
    assert_eq!(lines[2]["scores"]["f1"], 0.2);
    assert_eq!(lines[2]["main"], "f1");
    Ok(())
}

#[test]
fn a_spoilt_line_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("metrics.jsonl");
    fs::write(
        &path,
        "{\"kind\":\"step\",\"step\":1,\"loss\":0.5}\nnonsense\n",
    )?;
    assert_says(
        JsonLines::new(&path).on_start(&start(Some(9))),
        &["metrics.jsonl", "line 2"],
    );
    assert_says(Curve::read(&path, "a"), &["metrics.jsonl", "line 2"]);
    assert_says(
        Curve::read(&folder.path().join("none"), "a"),
        &["none", "cannot read"],
    );
    Ok(())
}

/// CRC-32C bit by bit: an oracle apart from the library's table.
fn slow_crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg())
        })
    })
}

#[test]
fn checksums_of_the_standard() {
    // RFC 3720, section B.4.
    assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
    assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
    assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46DD_794E);
    assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    assert_eq!(
        masked_crc32c(b"abc"),
        slow_crc32c(b"abc")
            .rotate_right(15)
            .wrapping_add(0xA282_EAD8)
    );
}

#[derive(Debug, Default, PartialEq)]
struct Event {
    wall_time: f64,
    step: u64,
    version: String,
    values: Vec<(String, f32)>,
}

/// Reads a protobuf message into (field, value) pairs; fixed and varint values as u64.
fn fields(mut message: &[u8]) -> Result<Vec<(u64, u64, Vec<u8>)>> {
    fn varint(from: &mut &[u8]) -> Result<u64> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let (byte, rest) = from.split_first().context("a byte")?;
            *from = rest;
            value |= u64::from(byte & 127) << shift;
            if *byte < 128 {
                return Ok(value);
            }
        }
        bail!("a varint of more than ten bytes")
    }
    let mut found = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let (value, length) = match key & 7 {
            0 => (varint(&mut message)?, 0),
            1 => (0, 8),
            2 => (0, varint(&mut message)? as usize),
            5 => (0, 4),
            other => bail!("wire type {other}"),
        };
        let (bytes, rest) = message
            .split_at_checked(length)
            .context("the field's bytes")?;
        message = rest;
        found.push((key >> 3, value, bytes.to_vec()));
    }
    Ok(found)
}

fn decode(message: &[u8]) -> Result<Event> {
    let mut event = Event::default();
    for (field, value, bytes) in fields(message)? {
        match field {
            1 => event.wall_time = f64::from_le_bytes(bytes.as_slice().try_into()?),
            2 => event.step = value,
            3 => event.version = String::from_utf8(bytes)?,
            5 => {
                for (_, _, value) in fields(&bytes)? {
                    let parts = fields(&value)?;
                    let tag = String::from_utf8(parts[0].2.clone())?;
                    event
                        .values
                        .push((tag, f32::from_le_bytes(parts[1].2.as_slice().try_into()?)));
                }
            }
            other => bail!("field {other}"),
        }
    }
    Ok(event)
}

fn events(mut file: &[u8]) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    while !file.is_empty() {
        let length = u64::from_le_bytes(file[..8].try_into()?) as usize;
        let crc =
            |at: usize| -> Result<u32> { Ok(u32::from_le_bytes(file[at..at + 4].try_into()?)) };
        let message = &file[12..12 + length];
        for (stored, bytes) in [(crc(8)?, &file[..8]), (crc(12 + length)?, message)] {
            assert_eq!(
                stored,
                slow_crc32c(bytes)
                    .rotate_right(15)
                    .wrapping_add(0xA282_EAD8)
            );
        }
        events.push(decode(message)?);
        file = &file[16 + length..];
    }
    Ok(events)
}

#[test]
fn event_files_are_what_tensorboard_reads() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let only = || -> Result<std::path::PathBuf> {
        let files: Vec<_> = fs::read_dir(folder.path())?.collect::<std::io::Result<_>>()?;
        assert_eq!(files.len(), 1, "one file for the whole run");
        Ok(files[0].path())
    };
    // The crash left half a record.
    crash_and_resume(
        || TensorBoard::new(folder.path()),
        || append(&only()?, &[24, 0, 0, 0, 0, 0, 0, 0, 1]),
    )?;
    assert!(only()?.to_string_lossy().contains("tfevents"));
    let events = events(&fs::read(only()?)?)?;
    assert_eq!(events[0].version, "brain.Event:2");
    assert!(events.iter().all(|e| e.wall_time > 1.5e9));
    let series = |tag: &str| -> Vec<(u64, f32)> {
        let values = events
            .iter()
            .flat_map(|e| e.values.iter().map(|(t, v)| (t, (e.step, *v))));
        values.filter(|(t, _)| *t == tag).map(|(_, v)| v).collect()
    };
    let losses: Vec<_> = [1, 2, 4, 5, 6, 7, 8, 9, 10]
        .map(|s| (s, (1.0 / s as f64) as f32))
        .into();
    assert_eq!(series("train/loss"), losses);
    assert_eq!(
        series("eval/f1"),
        [(2, 0.2), (4, 0.4), (6, 0.6), (8, 0.8), (10, 1.0)]
    );
    let all: Vec<_> = losses.iter().map(|(step, _)| *step).collect();
    assert_eq!(
        series("train/curvature_max"),
        all.iter().map(|step| (*step, 2.0)).collect::<Vec<_>>()
    );
    assert_eq!(
        series("train/bounded"),
        all.iter()
            .map(|step| (*step, *step as f32 - 1.0))
            .collect::<Vec<_>>()
    );
    // For a look with TensorBoard's own reader.
    if let Some(keep) = std::env::var_os("ADAHESSIAN_KEEP_EVENTS") {
        fs::copy(only()?, Path::new(&keep).join("events.out.tfevents.1.test"))?;
    }
    Ok(())
}

#[test]
fn an_evaluation_that_is_made_again_stands_in_the_events_once() -> Result<()> {
    for (owed, expected) in [(true, 1), (false, 2)] {
        let folder = tempfile::tempdir()?;
        let mut first = TensorBoard::new(folder.path());
        first.on_start(&start(None))?;
        first.on_step(&step(1))?;
        first.on_step(&step(2))?;
        first.on_evaluation(&evaluation(2))?;
        let mut second = TensorBoard::new(folder.path());
        let resumed = StartReport {
            owed,
            ..start(Some(2))
        };
        second.on_start(&resumed)?;
        second.on_evaluation(&evaluation(2))?;
        second.on_step(&step(4))?;
        let file = fs::read_dir(folder.path())?.next().context("a file")??;
        let found = events(&fs::read(file.path())?)?;
        let of = |tag: &str| {
            let values = found.iter().flat_map(|e| &e.values);
            values.filter(|(t, _)| t == tag).count()
        };
        assert_eq!((of("eval/f1"), of("train/loss")), (expected, 3));
    }
    Ok(())
}

#[test]
fn curves_of_two_runs_in_one_picture() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (picture, metrics) = (
        folder.path().join("curves.svg"),
        folder.path().join("metrics.jsonl"),
    );
    crash_and_resume(|| JsonLines::new(&metrics), || Ok(()))?;
    let mut other = Curve::read(&metrics, "AdamW <b> & co")?;
    assert_eq!((other.losses.len(), other.metric.as_str()), (9, "f1"));
    assert_eq!(other.evaluations[0], (2, 0.2));
    other.losses.iter_mut().for_each(|(_, loss)| *loss += 0.3);
    let mut curves = Curves::new(&picture, &metrics, "AdaHessian").compare(other);
    curves.on_evaluation(&evaluation(10))?;
    let text = fs::read_to_string(&picture)?;
    assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
    for piece in [
        "AdaHessian",
        "AdamW &lt;b&gt; &amp; co",
        "training loss",
        "f1",
        "step",
        "<polyline",
    ] {
        assert!(text.contains(piece), "{piece} is not in the picture");
    }
    assert_eq!(
        text.matches("fill=\"none\" opacity=\"1\" stroke=\"#1F77B4\"")
            .count(),
        4,
        "two curves, two keys"
    );
    curves.on_end(&summary())?;
    // Nothing to draw, one point only, and no extent: still pictures.
    let flat = Curve {
        losses: vec![(1, 2.0), (2, 2.0)],
        evaluations: vec![(1, 0.5)],
        ..Curve::default()
    };
    for curves in [vec![], vec![Curve::default()], vec![flat]] {
        draw(&picture, &curves)?;
        assert!(fs::read_to_string(&picture)?.contains("training loss"));
    }
    Ok(())
}

#[test]
fn summary_file() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("summary.json");
    SummaryFile::new(&path)
        .version("candle-core", "0.11.1")
        .on_end(&summary())?;
    let file: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    assert_eq!(file["outcome"], "completed");
    assert_eq!(file["final"]["scores"]["f1"], 0.75);
    assert_eq!(
        (&file["best"]["step"], &file["best"]["main"]),
        (&8.into(), &"f1".into())
    );
    assert_eq!(file["seed"], 7);
    assert_eq!(file["versions"]["candle-core"], "0.11.1");
    if cfg!(target_os = "linux") {
        assert!(file["peak_memory_mib"].as_f64().context("a number")? > 1.0);
    }
    Ok(())
}

#[test]
fn the_bar_takes_everything() -> Result<()> {
    crash_and_resume(ProgressBar::new, || Ok(()))
}

#[test]
fn the_bar_shows_rate_loss_and_score() -> Result<()> {
    let bar = indicatif::ProgressBar::hidden();
    let mut shown = ProgressBar::on(bar.clone());
    shown.on_start(&start(Some(1)))?;
    shown.on_step(&step(2))?;
    assert_eq!(bar.message(), "loss 0.5000 lr 1.00e-1 100 steps/s");
    shown.on_evaluation(&evaluation(2))?;
    let late = StepReport {
        seconds: 40.0,
        skipped_total: 3,
        loss: f64::NAN,
        ..step(3)
    };
    shown.on_step(&late)?;
    let expected = "loss 0.5000 f1 0.2000 lr 1.00e-1 0.498 steps/s (3 skipped)";
    assert_eq!(bar.message(), expected);
    assert_eq!((bar.position(), bar.length()), (3, Some(10)));
    Ok(())
}

/// A writer that others can read, and one that never works.
#[derive(Clone, Default)]
struct Paper(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Paper {
    /// What was written since the last time.
    fn lines(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        let text = String::from_utf8(bytes).unwrap();
        text.lines().map(str::to_string).collect()
    }
}

#[test]
fn lines_tell_the_state_now_and_then() -> Result<()> {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;
    let (paper, time) = (Paper::default(), Arc::new(AtomicU64::new(5)));
    let clock = {
        let time = time.clone();
        move || Duration::from_secs(time.load(Ordering::SeqCst))
    };
    let set = |seconds| time.store(seconds, Ordering::SeqCst);
    let mut lines = StatusLines::new(Box::new(paper.clone())).clock(clock);
    lines.on_start(&start(Some(2)))?;
    assert_eq!(paper.lines(), ["10 steps, 1 epoch, going on behind step 2"]);
    // Half a minute has not passed yet.
    set(34);
    lines.on_step(&step(3))?;
    assert!(paper.lines().is_empty());
    // Two steps of this process took 40 s: six more take two minutes.
    set(45);
    lines.on_step(&step(4))?;
    let line = "step 4/10 epoch 1 loss 0.3292 lr 1.00e-1 0.010 s/step 2:00 left";
    assert_eq!(paper.lines(), [line]);
    // No word about an evaluation right behind a line, but about its result.
    lines.before_evaluation(4)?;
    assert!(paper.lines().is_empty());
    set(50);
    lines.on_evaluation(&evaluation(4))?;
    let line = "step 4/10 evaluated in 0.1 s: f1 0.4000 loss 0.7000, the best so far";
    assert_eq!(paper.lines(), [line]);
    set(3655);
    lines.on_step(&step(6))?;
    lines.on_step(&step(7))?;
    set(3656);
    lines.before_evaluation(7)?;
    let shown = paper.lines();
    assert_eq!(shown.len(), 2, "{shown:?}");
    assert!(shown[0].contains("f1 0.4000 lr"), "{shown:?}");
    assert!(shown[0].ends_with("1:00:50 left"), "{shown:?}");
    assert!(shown[1].starts_with("step 7/10") && shown[1].ends_with(", evaluating"));
    lines.on_end(&summary())?;
    let line = "completed at step 10/10 after 0:02, best f1 0.8000 at step 8";
    assert_eq!(paper.lines(), [line]);
    Ok(())
}

#[test]
fn lines_have_their_run_s_name_and_end_no_run() -> Result<()> {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("full"))
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Err(std::io::Error::other("full"))
        }
    }
    let every = std::time::Duration::ZERO;
    let paper = Paper::default();
    let lines = || StatusLines::new(Box::new(paper.clone())).every(every);
    crash_and_resume(|| lines().label("sst2 adamw"), || Ok(()))?;
    let shown = paper.lines();
    assert!(shown.iter().all(|line| line.starts_with("sst2 adamw: ")));
    assert!(shown.iter().filter(|line| line.contains(" left")).count() >= 13);
    crash_and_resume(|| StatusLines::new(Box::new(Full)), || Ok(()))
}

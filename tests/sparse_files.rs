//! Tables in files: one that was not filled to its end is never taken for a table.

use adahessian::sparse::SparseTable;
use anyhow::{Result, bail};
use candle_core::{Device, Tensor};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use testing::{assert_close, assert_says};

const SHAPE: [usize; 2] = [4096, 2];
const BYTES: u64 = 4096 * 2 * 4;
const FOLDER: &str = "ADAHESSIAN_TABLE_FOLDER";

fn value(row: usize, numbers: &mut [f64]) {
    numbers.copy_from_slice(&[row as f64 + 1.0, -(row as f64) - 0.5]);
}

fn filled(path: &Path) -> Result<SparseTable> {
    Ok(SparseTable::mapped("t", SHAPE, path, value)?)
}

fn expect_whole(table: &SparseTable) -> Result<()> {
    let rows = (0..SHAPE[0]).flat_map(|row| [row as f32 + 1.0, -(row as f32) - 0.5]);
    let expected = Tensor::from_iter(rows, &Device::Cpu)?.reshape(&SHAPE)?;
    assert_close("table", &table.to_tensor()?, &expected, 0.0)
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let names = folder.read_dir()?;
    let names = names.map(|e| Ok(e?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

#[test]
fn what_a_killed_process_left_is_filled_anew() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("t.f32");
    let partial = folder.path().join(".t.f32.partial");
    for left in [BYTES as usize, 100, 3 * BYTES as usize] {
        std::fs::write(&partial, vec![7; left])?;
        expect_whole(&filled(&path)?)?;
        assert_eq!(names(folder.path())?, ["t.f32"]);
        assert_eq!(path.metadata()?.len(), BYTES);
        std::fs::remove_file(&path)?;
    }
    Ok(())
}

/// A full disk is an error before the numbers are written to memory, where it would end the process.
#[cfg(target_os = "linux")]
#[test]
fn a_table_has_its_place_on_the_disk_before_it_is_filled() -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir()?;
    let probe = folder.path().join("zeros");
    std::fs::write(&probe, vec![0; BYTES as usize])?;
    if probe.metadata()?.blocks() * 512 < BYTES {
        println!("skipped: this file system has no blocks for zeros, or not at once");
        return Ok(());
    }
    let path = folder.path().join("t.f32");
    let least = Mutex::new(u64::MAX);
    let table = SparseTable::mapped("t", SHAPE, &path, |row, numbers| {
        let partial = folder.path().join(".t.f32.partial");
        let taken = partial.metadata().map_or(0, |m| m.blocks() * 512);
        let mut least = least.lock().unwrap();
        *least = taken.min(*least);
        value(row, numbers);
    })?;
    expect_whole(&table)?;
    let least = least.into_inner()?;
    anyhow::ensure!(least >= BYTES, "{least} bytes of {BYTES}");
    Ok(())
}

#[test]
fn numbers_that_panic_make_no_table() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("t.f32");
    let outcome = std::panic::catch_unwind(|| {
        let fails = |row: usize, numbers: &mut [f64]| match row == 2000 {
            true => panic!("the caller's own panic"),
            false => value(row, numbers),
        };
        SparseTable::mapped("t", SHAPE, &path, fails).map(drop)
    });
    assert!(outcome.is_err());
    assert!(!path.exists(), "half a table");
    expect_whole(&filled(&path)?)?;
    assert_eq!(names(folder.path())?, ["t.f32"]);
    // It is there, and taken as it is.
    expect_whole(&SparseTable::mapped("t", SHAPE, &path, |_, x| x.fill(9.0))?)
}

#[test]
fn a_table_that_another_one_fills_is_refused_by_name() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("t.f32");
    let second = Mutex::new(None);
    let table = SparseTable::mapped("t", SHAPE, &path, |row, numbers| {
        if row == 5 {
            let outcome = SparseTable::mapped("t", SHAPE, &path, value).map(drop);
            *second.lock().unwrap() = Some(outcome);
        }
        value(row, numbers);
    })?;
    expect_whole(&table)?;
    let Some(outcome) = second.into_inner()? else {
        bail!("row 5 was not filled");
    };
    assert_says(outcome, &["t.f32", "is being filled"]);
    drop(table);
    expect_whole(&filled(&path)?)
}

/// Not a test by itself: the process that is killed.
#[test]
fn child() -> Result<()> {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return Ok(());
    };
    let slowly = |row: usize, numbers: &mut [f64]| {
        std::thread::sleep(Duration::from_millis(5));
        value(row, numbers);
    };
    SparseTable::mapped("t", SHAPE, &Path::new(&folder).join("t.f32"), slowly)?;
    Ok(())
}

#[test]
fn a_process_that_is_killed_at_work_leaves_no_table() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("t.f32");
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exact", "sparse_files::child", "--test-threads=1"]);
    command.env(FOLDER, folder.path()).stdout(Stdio::null());
    let mut child = command.spawn()?;
    let began = Instant::now();
    // It has made its file, and is at work.
    while names(folder.path())?.is_empty() {
        if began.elapsed() > Duration::from_secs(60) {
            child.kill()?;
            bail!("the child makes no file");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(Duration::from_millis(50));
    assert!(child.try_wait()?.is_none(), "the child has ended by itself");
    child.kill()?; // SIGKILL
    child.wait()?;
    assert!(!path.exists(), "half a table");
    expect_whole(&filled(&path)?)
}

//! The list of a checkpoint's files with their lengths and checksums.
//!
//! ```text
//! adahessian checkpoint 1
//! 1c291ca3 310 config.toml
//! 8bd69e52 8364 model.safetensors
//! e0f5a77b 25200 optim.safetensors
//! crc32 5a3c96ee
//! ```
//!
//! The last line is the checksum of the lines above it. CRC-32 finds every change of up to 32
//! neighbouring bits, and with the lengths every cut.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

pub(super) const NAME: &str = "manifest";
const FORMAT: &str = "adahessian checkpoint ";
const VERSION: &str = "1";

/// A file that is not what was written, and why.
#[derive(Debug)]
pub(super) struct Damage {
    pub file: String,
    pub reason: String,
}

impl Damage {
    pub fn new(file: &str, reason: impl ToString) -> Self {
        Self {
            file: file.into(),
            reason: reason.to_string(),
        }
    }
}

struct Entry {
    crc: u32,
    length: u64,
    name: String,
}

/// The manifest of one checkpoint.
pub(super) struct Manifest {
    entries: Vec<Entry>,
}

impl Manifest {
    /// Describes files that were just written, and brings them to the disk.
    pub fn of(folder: &Path, names: &[&str]) -> Result<Self> {
        let entries = names.iter().map(|name| entry(folder, name));
        Ok(Self {
            entries: entries.collect::<Result<_>>()?,
        })
    }

    /// Writes the manifest into the folder and brings it to the disk.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(NAME);
        let error = || Error::io("cannot write the manifest", &path);
        let mut file = File::create(&path).map_err(error())?;
        file.write_all(self.text().as_bytes()).map_err(error())?;
        file.sync_all().map_err(error())
    }

    fn text(&self) -> String {
        let mut text = format!("{FORMAT}{VERSION}\n");
        for entry in &self.entries {
            text += &format!("{:08x} {} {}\n", entry.crc, entry.length, entry.name);
        }
        let last = last_line(crc32fast::hash(text.as_bytes()));
        text + &last
    }

    /// Reads and checks the manifest.
    pub fn read(folder: &Path) -> std::result::Result<Self, Damage> {
        let damage = |reason: &str| Damage::new(NAME, reason);
        let bytes = read_file(folder, NAME)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| damage("is not text"))?;
        let cut = || damage("is cut short or changed (its own checksum does not fit)");
        let body = text
            .strip_suffix('\n')
            .and_then(|t| t.rfind('\n'))
            .ok_or_else(cut)?;
        let (body, last) = text.split_at(body + 1);
        if last != last_line(crc32fast::hash(body.as_bytes())) {
            return Err(cut());
        }
        let mut lines = body.lines();
        let version = lines.next().and_then(|line| line.strip_prefix(FORMAT));
        if version != Some(VERSION) {
            let got = version.unwrap_or("none");
            let reason = format!("has format version {got}, this program reads version {VERSION}");
            return Err(damage(&reason));
        }
        let entries: Option<Vec<Entry>> = lines.map(parse_entry).collect();
        let entries =
            entries.ok_or_else(|| damage("has a line that is not `crc32 length name`"))?;
        Ok(Self { entries })
    }

    /// Reads a file and checks it.
    pub fn file(&self, folder: &Path, name: &str) -> std::result::Result<Vec<u8>, Damage> {
        let wanted = self.entry(name)?;
        let bytes = read_file(folder, name)?;
        wanted.compare(crc32fast::hash(&bytes), bytes.len() as u64)?;
        Ok(bytes)
    }

    /// Checks all files, piece by piece.
    pub fn check(&self, folder: &Path) -> std::result::Result<(), Damage> {
        let mut names = self.entries.iter().map(|entry| entry.name.as_str());
        names.try_for_each(|name| self.check_file(folder, name))
    }

    /// Checks a file without having it in memory.
    pub fn check_file(&self, folder: &Path, name: &str) -> std::result::Result<(), Damage> {
        let wanted = self.entry(name)?;
        let file = File::open(folder.join(name));
        let summed = file.and_then(|mut file| sum_up(&mut file));
        let (crc, length) = summed.map_err(|e| unreadable(name, e))?;
        wanted.compare(crc, length)
    }

    /// Whether it lists a file of this name.
    pub fn lists(&self, name: &str) -> bool {
        self.entry(name).is_ok()
    }

    fn entry(&self, name: &str) -> std::result::Result<&Entry, Damage> {
        let entry = self.entries.iter().find(|entry| entry.name == name);
        entry.ok_or_else(|| Damage::new(NAME, format!("does not list {name}")))
    }

    /// The checksum of a file.
    pub fn crc(&self, name: &str) -> Option<u32> {
        self.entry(name).ok().map(|entry| entry.crc)
    }
}

impl Entry {
    /// Whether a file is what was written.
    fn compare(&self, crc: u32, length: u64) -> std::result::Result<(), Damage> {
        let reason = match (length == self.length, crc == self.crc) {
            (true, true) => return Ok(()),
            (false, _) => format!("expected {} bytes, got {length}", self.length),
            (true, false) => format!("expected the checksum {:08x}, got {crc:08x}", self.crc),
        };
        Err(Damage::new(&self.name, reason))
    }
}

fn last_line(crc: u32) -> String {
    format!("crc32 {crc:08x}\n")
}

fn parse_entry(line: &str) -> Option<Entry> {
    let mut words = line.splitn(3, ' ');
    Some(Entry {
        crc: u32::from_str_radix(words.next()?, 16).ok()?,
        length: words.next()?.parse().ok()?,
        name: words.next()?.into(),
    })
}

fn read_file(folder: &Path, name: &str) -> std::result::Result<Vec<u8>, Damage> {
    fs::read(folder.join(name)).map_err(|e| unreadable(name, e))
}

fn unreadable(name: &str, error: std::io::Error) -> Damage {
    Damage::new(name, format!("cannot be read: {error}"))
}

/// Describes a file that was just written, and brings it to the disk.
fn entry(folder: &Path, name: &str) -> Result<Entry> {
    let path = folder.join(name);
    let error = || Error::io("cannot write the file", &path);
    // Some systems ask for the right to write of who brings a file to the disk.
    let writes = cfg!(not(unix));
    let file = File::options().read(true).write(writes).open(&path);
    let mut file = file.map_err(error())?;
    let (crc, length) = sum_up(&mut file).map_err(error())?;
    file.sync_all().map_err(error())?;
    Ok(Entry {
        crc,
        length,
        name: name.into(),
    })
}

/// Checksum and length of a file, piece by piece, so that a large one is not in memory.
fn sum_up(file: &mut File) -> std::io::Result<(u32, u64)> {
    let (mut hasher, mut length) = (crc32fast::Hasher::new(), 0);
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok((hasher.finalize(), length)),
            n => {
                hasher.update(&piece[..n]);
                length += n as u64;
            }
        }
    }
}

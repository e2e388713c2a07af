//! One file by HTTP, into the cache.
//!
//! The addresses are the Hub's, the layout of the cache is hf-hub's and Python's. The requests are this crate's own: hf-hub
//! 0.5 follows a redirect to another host with the access token, and takes names of files from the server's answers as they
//! are. `tests/hub.rs` has a server that asks for both.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use hf_hub::{Cache, CacheRepo, Repo};
use ureq::http::Uri;
use ureq::{Agent, Body, http::Response};

/// A server that sends us in a circle ends here.
const REDIRECTS: usize = 10;
/// How often another process's download of the same file is looked at, and how many times while it does not get on.
const LOOKS: (Duration, usize) = (Duration::from_millis(200), 25);

/// Why there is no file.
#[derive(Debug)]
pub(super) enum Failure {
    /// No server answered, or one hung up.
    Unreachable(String),
    /// The server's status, and its name for the reason, where it has one.
    Refused { status: u16, code: String },
    /// An answer that is none of a Hub's.
    Answer(String),
    /// The file system's reason; what has come so far is kept.
    Io(io::Error),
    /// The connection ended before the file did; what has come so far is kept.
    Broken(io::Error),
    /// Another process is at it.
    Locked,
    /// Another number of bytes came than was announced.
    Size { expected: u64, got: u64 },
    /// Nothing came for as long as was to be waited.
    Silent,
}

/// What is told of a transfer while it goes on.
pub(super) trait Watch {
    /// So many bytes of so many are there.
    fn at(&mut self, bytes: u64, of: u64);
    /// Something was heard of the server.
    fn heard(&mut self);
}

/// Where a file is asked for, and where it goes.
pub(super) struct Request {
    pub endpoint: String,
    pub token: Option<String>,
    pub cache: PathBuf,
    pub repo: Repo,
    /// The folder of the file's address, below the endpoint.
    pub address: String,
    pub file: String,
}

/// What the server says of a file before it sends it.
struct Announced {
    /// Where its bytes are.
    url: String,
    /// The name of its content in the cache.
    etag: String,
    commit: String,
    size: u64,
}

/// What is received is sent to the disk in portions: all of several GB at the end would take longer than anybody waits.
const FLUSHED: u64 = 256 << 20;

impl Request {
    /// The file's place in the cache, where it is now.
    pub fn fetch(&self, watch: &mut dyn Watch) -> Result<PathBuf, Failure> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("adahessian-datasets/", env!("CARGO_PKG_VERSION")));
        let agent = config.build().into();
        let announced = self.announced(&agent)?;
        watch.heard();
        let cache = Cache::new(self.cache.clone()).repo(self.repo.clone());
        let folder = self.cache.join(self.repo.folder_name());
        let blob = folder.join("blobs").join(&announced.etag);
        if is_whole(&blob, &announced) {
            watch.at(announced.size, announced.size);
        } else {
            self.download(&agent, &announced, &blob, watch)?;
        }
        let path = publish(&cache, &announced, &blob, &self.file).map_err(Failure::Io)?;
        let note = folder.join("refs").join(self.repo.revision());
        refer(&note, &announced.commit).map_err(Failure::Io)?;
        Ok(path)
    }

    /// Asks for the first byte: a server that answers with all of them is not listened to.
    fn announced(&self, agent: &Agent) -> Result<Announced, Failure> {
        let mut url = format!("{}/{}/{}", self.endpoint, self.address, self.file);
        let (mut etag, mut commit) = (None, None);
        for _ in 0..REDIRECTS {
            let response = self.ask(agent, &url, "bytes=0-0")?;
            // What a file is, the Hub says, and not the host that has its bytes.
            if self.is_own(&url) {
                etag = header(&response, "x-linked-etag").or_else(|| header(&response, "etag"));
                commit = header(&response, "x-repo-commit").or(commit);
            }
            if response.status().is_redirection() {
                let to = header(&response, "location");
                let to = to.ok_or_else(|| answer("a redirect without `location`"))?;
                url = resolved(&url, &to)?;
                continue;
            }
            // An empty file has no first byte.
            let is_empty = response.status() == 416 && size(&response).is_ok_and(|size| size == 0);
            if !response.status().is_success() && !is_empty {
                return Err(Failure::Refused {
                    status: response.status().as_u16(),
                    code: header(&response, "x-error-code").unwrap_or_default(),
                });
            }
            return Ok(Announced {
                url,
                etag: named("etag", etag)?,
                commit: named("x-repo-commit", commit)?,
                size: size(&response)?,
            });
        }
        Err(answer("redirects without an end"))
    }

    /// The token is for the Hub alone: its files lie with others, who would get to know it.
    fn ask(&self, agent: &Agent, url: &str, range: &str) -> Result<Response<Body>, Failure> {
        let mut request = agent.get(url).header("Range", range);
        if let Some(token) = self.token.as_ref().filter(|_| self.is_own(url)) {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        request
            .call()
            .map_err(|e| Failure::Unreachable(e.to_string()))
    }

    /// Whether an address is the endpoint's: scheme, host and port.
    fn is_own(&self, url: &str) -> bool {
        let origin = |url: &str| {
            let url: Uri = url.parse().ok()?;
            let (scheme, authority) = (url.scheme_str()?.to_lowercase(), url.authority()?);
            let port = authority.port_u16().or(match scheme.as_str() {
                "http" => Some(80),
                "https" => Some(443),
                _ => None,
            });
            Some((scheme, authority.host().to_lowercase(), port))
        };
        let own = origin(&self.endpoint);
        own.is_some() && own == origin(url)
    }

    /// Goes on where an earlier download ended.
    fn download(
        &self,
        agent: &Agent,
        announced: &Announced,
        blob: &Path,
        watch: &mut dyn Watch,
    ) -> Result<(), Failure> {
        let folder = blob.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(Failure::Io)?;
        let part = with_ending(blob, ".part");
        let _held = lock(&with_ending(blob, ".lock"), &part, watch)?;
        if is_whole(blob, announced) {
            // The process that was waited for has brought it.
            return Ok(());
        }
        let file = OpenOptions::new().create(true).append(true).open(&part);
        let mut file = file.map_err(Failure::Io)?;
        let there = file.metadata().map_err(Failure::Io)?.len();
        let mut bytes = match there <= announced.size {
            true => there,
            false => restart(&file)?,
        };
        if bytes < announced.size {
            let response = self.ask(agent, &announced.url, &format!("bytes={bytes}-"))?;
            match response.status().as_u16() {
                206 => {}
                200 => bytes = restart(&file)?,
                status => {
                    let code = header(&response, "x-error-code").unwrap_or_default();
                    return Err(Failure::Refused { status, code });
                }
            }
            let mut body = response.into_body().into_reader();
            let mut buffer = vec![0; 1 << 16];
            loop {
                watch.at(bytes, announced.size);
                let count = match body.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(e) => return Err(Failure::Broken(e)),
                };
                file.write_all(&buffer[..count]).map_err(Failure::Io)?;
                let before = bytes / FLUSHED;
                bytes += count as u64;
                if bytes / FLUSHED != before {
                    file.sync_data().map_err(Failure::Io)?;
                }
            }
        }
        // Where there are no locks, another process may have written to it.
        let got = file.metadata().map_err(Failure::Io)?.len();
        if got != announced.size {
            fs::remove_file(&part).map_err(Failure::Io)?;
            return Err(Failure::Size {
                expected: announced.size,
                got,
            });
        }
        file.sync_all().map_err(Failure::Io)?;
        fs::rename(&part, blob).map_err(Failure::Io)
    }
}

fn restart(file: &File) -> Result<u64, Failure> {
    file.set_len(0).map_err(Failure::Io)?;
    Ok(0)
}

/// Whether a content is there, and not a part of it.
fn is_whole(blob: &Path, announced: &Announced) -> bool {
    fs::metadata(blob).is_ok_and(|blob| blob.len() == announced.size)
}

/// Notes the commit of a revision, at once: of a note that is cut off nobody could tell which files are there.
fn refer(note: &Path, commit: &str) -> io::Result<()> {
    let is_noted = || fs::read_to_string(note).is_ok_and(|text| text.trim() == commit);
    if is_noted() {
        return Ok(());
    }
    fs::create_dir_all(note.parent().unwrap_or(Path::new(".")))?;
    let partial = with_ending(note, &format!(".{}.partial", own_name()));
    fs::write(&partial, commit)?;
    fs::rename(&partial, note).or_else(|error| {
        let _ = fs::remove_file(&partial);
        match is_noted() {
            true => Ok(()),
            false => Err(error),
        }
    })
}

/// Names the content after the file, of its commit.
fn publish(
    cache: &CacheRepo,
    announced: &Announced,
    blob: &Path,
    file: &str,
) -> io::Result<PathBuf> {
    let pointer = cache.pointer_path(&announced.commit).join(file);
    fs::create_dir_all(pointer.parent().unwrap_or(Path::new(".")))?;
    if !pointer.is_file() {
        link(blob, &pointer, file)?;
    }
    Ok(pointer)
}

/// A link from `snapshots/COMMIT/FILE` to `blobs/ETAG`, so that the cache can be moved; where there are none, the content.
fn link(blob: &Path, pointer: &Path, file: &str) -> io::Result<()> {
    let up = "../".repeat(2 + file.matches('/').count());
    let name = blob.file_name().unwrap_or_default();
    let target = Path::new(&up).join("blobs").join(name);
    // Beside its place first: another process's link, or one that leads nowhere, is replaced at once.
    let partial = with_ending(pointer, &format!(".{}.partial", own_name()));
    match symbolic_link(&target, &partial) {
        Ok(()) => fs::rename(&partial, pointer).inspect_err(|_| {
            let _ = fs::remove_file(&partial);
        }),
        Err(_) => fs::rename(blob, pointer),
    }
}

/// Of no other thread, nor of a process that has this one's number elsewhere.
fn own_name() -> String {
    static NAMES: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    format!(
        "{}-{}-{}",
        std::process::id(),
        NAMES.fetch_add(1, Ordering::Relaxed),
        since.unwrap_or_default().as_nanos()
    )
}

#[cfg(unix)]
fn symbolic_link(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symbolic_link(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symbolic_link(_target: &Path, _link: &Path) -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

/// Held until it is dropped, or the process dies. Another process that holds it is waited for as long as `part` grows.
fn lock(path: &Path, part: &Path, watch: &mut dyn Watch) -> Result<File, Failure> {
    let options = OpenOptions::new().create(true).append(true).open(path);
    let file = options.map_err(Failure::Io)?;
    let (mut there, mut looks) = (None, 0);
    while looks < LOOKS.1 {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {
                std::thread::sleep(LOOKS.0);
                let now = fs::metadata(part).map(|part| part.len()).ok();
                looks += 1;
                if now != there {
                    (there, looks) = (now, 0);
                    watch.heard();
                }
            }
            Err(TryLockError::Error(e)) if has_no_locks(&e) => return Ok(file),
            Err(TryLockError::Error(e)) => return Err(Failure::Io(e)),
        }
    }
    Err(Failure::Locked)
}

/// Whether a lock was refused because the file system has none: of those on a network some say it so (ENOLCK).
fn has_no_locks(error: &io::Error) -> bool {
    const NO_LOCKS: i32 = if cfg!(any(target_os = "linux", target_os = "android")) {
        37
    } else {
        77 // macOS and the BSDs
    };
    let said = cfg!(unix) && error.raw_os_error() == Some(NO_LOCKS);
    said || error.kind() == io::ErrorKind::Unsupported
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

fn header(response: &Response<Body>, name: &str) -> Option<String> {
    let value = response.headers().get(name)?.to_str().ok()?;
    Some(value.trim().to_string())
}

/// A name that becomes part of a path: it must not lead anywhere.
fn named(name: &str, value: Option<String>) -> Result<String, Failure> {
    let value = value.ok_or_else(|| answer(&format!("no `{name}`")))?;
    let plain = value.trim_start_matches("W/").replace('"', "");
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_name = (1..=200).contains(&plain.len()) && plain.chars().all(allowed);
    match is_name && !plain.starts_with('.') {
        true => Ok(plain),
        false => Err(answer(&format!("{name}: {value:?}, which is no name"))),
    }
}

/// The whole file's length: behind the slash of `bytes 0-0/12`, or all that is sent.
fn size(response: &Response<Body>) -> Result<u64, Failure> {
    let text = match response.status().as_u16() {
        206 | 416 => header(response, "content-range")
            .and_then(|range| Some(range.rsplit_once('/')?.1.to_string())),
        _ => header(response, "content-length"),
    };
    let size = text.as_deref().and_then(|text| text.parse().ok());
    size.ok_or_else(|| answer("no length"))
}

/// Where a redirect leads.
fn resolved(from: &str, to: &str) -> Result<String, Failure> {
    let wrong = || answer(&format!("a redirect to {to:?}"));
    let target: Uri = to.parse().map_err(|_| wrong())?;
    if target.host().is_some() {
        let web = matches!(target.scheme_str(), Some("http" | "https"));
        return web.then(|| to.to_string()).ok_or_else(wrong);
    }
    let base: Uri = from.parse().map_err(|_| wrong())?;
    match (base.scheme_str(), base.authority(), to.starts_with('/')) {
        (Some(scheme), Some(authority), true) => Ok(format!("{scheme}://{authority}{to}")),
        _ => Err(wrong()),
    }
}

fn answer(what: &str) -> Failure {
    Failure::Answer(what.into())
}

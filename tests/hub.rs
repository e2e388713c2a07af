//! The Hub's client against a small server on the loopback interface.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use datasets::glue::{GlueTask, Label, Split, load_hub};
use datasets::hub::checkpoint_folder;
use datasets::{Error, Hub, RepoKind, TextEncoder};
use tempfile::TempDir;
use testing::assert_says;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The patience of a client whose server is silent.
const SHORT: Duration = Duration::from_millis(500);
/// No test may wait for a request longer than this.
const PATIENCE: Duration = Duration::from_secs(20);

/// How the server treats a file.
#[derive(Clone, Copy, PartialEq)]
enum Conduct {
    /// Sends it.
    Good,
    /// Announces more bytes than it has.
    Boasts,
    /// Hangs up in the middle, if the transfer starts at the beginning.
    HangsUp,
    /// Sends it to those with the token `secret` only.
    Private,
    /// Says nothing at all.
    Silent,
    /// Says nothing after the first half, if the transfer starts at the beginning.
    Stalls,
    /// Says that its content is called as a file outside of the cache.
    Leads(&'static str),
    /// Says that another host has it.
    Elsewhere(&'static str),
    /// Has nothing.
    Empty,
    /// Is not there, or nobody may know of the repository.
    Missing(&'static str),
}

/// Answers `requests` requests in the manner of the Hub, then gives back what was asked.
struct Server {
    endpoint: String,
    thread: JoinHandle<Vec<String>>,
}

impl Server {
    fn start(files: &[(&str, &[u8], Conduct)], requests: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        listener.set_nonblocking(true).unwrap();
        let files: HashMap<String, (Vec<u8>, Conduct)> = files
            .iter()
            .map(|(path, bytes, conduct)| (path.to_string(), (bytes.to_vec(), *conduct)))
            .collect();
        let thread = std::thread::spawn(move || {
            let mut log = Vec::new();
            let start = Instant::now();
            while log.len() < requests && start.elapsed() < PATIENCE {
                match listener.accept() {
                    Ok((stream, _)) => log.push(answer(stream, &files)),
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
            log
        });
        Self { endpoint, thread }
    }

    /// The paths asked for, in order; all expected requests must have come.
    fn finish(self, requests: usize) -> Vec<String> {
        let log = self.thread.join().unwrap();
        assert_eq!(log.len(), requests, "{log:?}");
        log
    }
}

/// Serves one request and gives its path and range.
fn answer(mut stream: TcpStream, files: &HashMap<String, (Vec<u8>, Conduct)>) -> String {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let request = lines.next().unwrap().unwrap();
    let path = request.split(' ').nth(1).unwrap().to_string();
    let (mut range, mut token) = (String::new(), false);
    for line in lines
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
    {
        let line = line.to_lowercase();
        if let Some(value) = line.strip_prefix("range: bytes=") {
            range = value.to_string();
        }
        token |= line == "authorization: bearer secret";
    }
    let log = format!("{path} {range}");
    let log = match token {
        true => format!("{log} with the token"),
        false => log,
    };
    let (bytes, conduct) = match files.get(&path) {
        Some((bytes, conduct)) => (bytes.as_slice(), conduct),
        None => (b"".as_slice(), &Conduct::Missing("EntryNotFound")),
    };
    if let Conduct::Missing(code) = conduct {
        write!(
            stream,
            "HTTP/1.1 404 Not Found\r\nX-Error-Code: {code}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        return log;
    }
    if let Conduct::Elsewhere(url) = conduct {
        write!(
            stream,
            "HTTP/1.1 302 Found\r\nLocation: {url}\r\nX-Linked-Etag: \"linked\"\r\nX-Repo-Commit: {COMMIT}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        return log;
    }
    if *conduct == Conduct::Empty {
        write!(
            stream,
            "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */0\r\nETag: \"empty\"\r\nX-Repo-Commit: {COMMIT}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        return log;
    }
    let etag = match conduct {
        Conduct::Leads(name) => name.to_string(),
        _ => format!("{:x}", bytes.len()),
    };
    if *conduct == Conduct::Silent {
        wait_for_the_end(&stream);
        return log;
    }
    if *conduct == Conduct::Private && !token {
        write!(
            stream,
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        return log;
    }
    let (from, to) = range.split_once('-').unwrap();
    let from: usize = from.parse().unwrap();
    let to = to.parse().map_or(bytes.len(), |last: usize| last + 1);
    let boast = if *conduct == Conduct::Boasts { 7 } else { 0 };
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{}\r\n\
         ETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\nConnection: close\r\n\r\n",
        to - from,
        to - 1,
        bytes.len() + boast,
    )
    .unwrap();
    let stops = matches!(conduct, Conduct::HangsUp | Conduct::Stalls) && from == 0 && to > 1;
    let end = if stops { to / 2 } else { to };
    stream.write_all(&bytes[from..end]).unwrap();
    if stops && *conduct == Conduct::Stalls {
        wait_for_the_end(&stream);
    }
    log
}

/// Longer than the client has patience.
fn wait_for_the_end(stream: &TcpStream) {
    std::thread::sleep(4 * SHORT);
    stream.shutdown(std::net::Shutdown::Both).ok();
}

fn hub(cache: &Path, endpoint: &str) -> Hub {
    Hub {
        endpoint: endpoint.to_string(),
        ..Hub::new(cache)
    }
}

/// An address where nobody listens.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn files_are_fetched_once_and_then_read_offline() {
    let parquet = crate::glue_data::sst2_parquet(
        &[(b"a warm film", 1), (b"dull", 0)],
        parquet::basic::Compression::SNAPPY,
    );
    let dataset = "/datasets/nyu-mll/glue/resolve/main/sst2/train-00000-of-00001.parquet";
    let model = "/tiny/bert/resolve/main/config.json";
    let pinned = format!("/tiny/bert/resolve/{COMMIT}/onnx/model.bin");
    let server = Server::start(
        &[
            (model, b"{\"hidden_size\": 8}", Conduct::Good),
            (dataset, &parquet, Conduct::Good),
            (&pinned, b"weights", Conduct::Good),
        ],
        6,
    );
    let cache = TempDir::new().unwrap();
    let online = hub(cache.path(), &server.endpoint);
    let get = |hub: &Hub| hub.get(RepoKind::Model, "tiny/bert", None, "config.json");
    let get_pinned =
        |hub: &Hub| hub.get(RepoKind::Model, "tiny/bert", Some(COMMIT), "onnx/model.bin");
    let config = get(&online).unwrap();
    assert_eq!(
        std::fs::read_to_string(&config).unwrap(),
        "{\"hidden_size\": 8}"
    );
    let rows = load_hub(&online, GlueTask::Sst2, Split::Train).unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].label, Some(Label::Class(1)));
    let weights = get_pinned(&online).unwrap();
    // Again: from the cache, the server has stopped counting at six requests.
    assert_eq!(get(&online).unwrap(), config);
    let log = server.finish(6);
    assert_eq!(log[0], format!("{model} 0-0"), "asks for the size first");
    assert_eq!(log[1], format!("{model} 0-"));
    assert!(log[3].starts_with(dataset));

    // Python's layout, so that both share downloads.
    let snapshot = cache
        .path()
        .join("models--tiny--bert/snapshots")
        .join(COMMIT);
    assert_eq!(config, snapshot.join("config.json"));

    let offline = Hub {
        offline: true,
        ..hub(cache.path(), &nowhere())
    };
    assert_eq!(get(&offline).unwrap(), config);
    assert_eq!(get_pinned(&offline).unwrap(), weights);
    assert_eq!(
        load_hub(&offline, GlueTask::Sst2, Split::Train).unwrap(),
        rows
    );
    // A commit is found without a reference of that name, as Python leaves it.
    std::fs::remove_dir_all(cache.path().join("models--tiny--bert/refs")).unwrap();
    assert_eq!(get_pinned(&offline).unwrap(), weights);
    let error = load_hub(&offline, GlueTask::Rte, Split::Train).unwrap_err();
    assert!(matches!(error, Error::NotCached { .. }), "{error}");
    let message = error.to_string();
    assert!(
        message.contains("rte/train-00000-of-00001.parquet"),
        "{message}"
    );
    assert!(
        message.contains("--data") && message.contains("HF_HUB_OFFLINE"),
        "{message}"
    );
}

/// A process that was killed may have left a note of a branch's commit without the commit: it is asked for again.
#[test]
fn a_note_that_was_cut_off_says_nothing() {
    let parquet =
        crate::glue_data::sst2_parquet(&[(b"dull", 0)], parquet::basic::Compression::SNAPPY);
    let dataset = "/datasets/nyu-mll/glue/resolve/main/sst2/train-00000-of-00001.parquet";
    let cache = TempDir::new().unwrap();
    let folder = cache.path().join("datasets--nyu-mll--glue");
    for name in ["refs", "snapshots"] {
        std::fs::create_dir_all(folder.join(name)).unwrap();
    }
    std::fs::write(folder.join("refs/main"), "").unwrap();
    let server = Server::start(&[(dataset, &parquet, Conduct::Good)], 2);
    let online = hub(cache.path(), &server.endpoint);
    let rows = load_hub(&online, GlueTask::Sst2, Split::Train).unwrap();
    assert_eq!(rows.len(), 1);
    server.finish(2);
    assert_eq!(
        std::fs::read_to_string(folder.join("refs/main")).unwrap(),
        COMMIT
    );
    assert_eq!(std::fs::read_dir(folder.join("refs")).unwrap().count(), 1);
}

/// That there are no files of a kind that can be read is no mistake in the names that were given.
#[test]
fn a_repository_without_a_tokenizer_says_so_before_its_weights_come() {
    let config = path_at("main", "config.json");
    let weights = path_at(COMMIT, "model.safetensors");
    let files = [
        (config.as_str(), b"{}".as_slice(), Conduct::Good),
        (&weights, b"weights", Conduct::Good),
    ];
    // Two for the configuration, one for each tokenizer that is not there.
    let server = Server::start(&files, 5);
    let cache = TempDir::new().unwrap();
    let error = hub(cache.path(), &server.endpoint)
        .checkpoint("tiny/bert", None)
        .unwrap_err();
    assert!(matches!(error, Error::Absent { .. }), "{error}");
    assert_says(
        Err::<(), _>(error),
        &[
            "tokenizer",
            "tiny/bert",
            "vocab.txt, tokenizer.json, vocab.json with merges.txt",
        ],
    );
    let log = server.finish(5);
    assert!(
        log.iter().all(|asked| !asked.starts_with(&weights)),
        "{log:?}"
    );
}

/// Another process's download of the same file is waited for, and not made again.
#[test]
fn a_file_that_another_process_brings_is_taken_from_it() {
    let config = path_at("main", "config.json");
    let server = Server::start(&[(&config, b"{\"a\": 1}", Conduct::Good)], 1);
    let cache = TempDir::new().unwrap();
    let blobs = cache.path().join("models--tiny--bert/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let blob = blobs.join("8");
    let lock = std::fs::File::create(blobs.join("8.lock")).unwrap();
    lock.lock().unwrap();
    let other = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        std::fs::write(blob, "{\"a\": 1}").unwrap();
        drop(lock);
    });
    let online = hub(cache.path(), &server.endpoint);
    let path = online
        .get(RepoKind::Model, "tiny/bert", None, "config.json")
        .unwrap();
    assert_eq!(std::fs::read_to_string(path).unwrap(), "{\"a\": 1}");
    other.join().unwrap();
    server.finish(1);
}

/// A vocabulary of a model with case, as the Hub has it.
const VOCABULARY: &[u8] = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\nParis\nparis\n";

fn path_at(revision: &str, file: &str) -> String {
    format!("/tiny/bert/resolve/{revision}/{file}")
}

/// The files of the first one's commit; what is not there is asked for once.
#[test]
fn a_checkpoint_is_whole_and_of_one_commit() {
    let files = [
        ("model.safetensors", b"weights".as_slice()),
        ("vocab.txt", VOCABULARY),
        ("tokenizer_config.json", br#"{"do_lower_case": false}"#),
    ];
    let files = files.map(|(name, bytes)| (path_at(COMMIT, name), bytes, Conduct::Good));
    let config = path_at("v1", "config.json");
    let mut all = vec![(config.as_str(), b"{}".as_slice(), Conduct::Good)];
    all.extend(files.iter().map(|(p, b, c)| (p.as_str(), *b, *c)));
    // Two for each of four files, one for each of tokenizer.json and added_tokens.json, which are not there.
    let server = Server::start(&all, 10);
    let cache = TempDir::new().unwrap();
    let online = hub(cache.path(), &server.endpoint);
    let folder = online.checkpoint("tiny/bert", Some("v1")).unwrap();
    let log = server.finish(10);
    let asked = |file: &str| {
        let line = format!("{} 0-0", path_at(COMMIT, file));
        log.iter().position(|asked| *asked == line)
    };
    assert!(asked("tokenizer.json").is_some(), "{log:?}");
    // The large file last.
    assert!(asked("vocab.txt") < asked("model.safetensors"), "{log:?}");
    let encoder = TextEncoder::from_folder(&folder, 8).unwrap();
    let tokenizer = encoder.tokenizer();
    let ids = tokenizer.encode("Paris", false).unwrap().get_ids().to_vec();
    assert_eq!(ids, [4], "with its case");
    // Again without the server, and offline: nothing is asked for.
    for offline in [false, true] {
        let hub = Hub {
            offline,
            ..hub(cache.path(), &nowhere())
        };
        assert_eq!(hub.checkpoint("tiny/bert", Some("v1")).unwrap(), folder);
        assert_eq!(hub.checkpoint("tiny/bert", Some(COMMIT)).unwrap(), folder);
    }
    // A cache that does not know whether there is a configuration cannot say whether case is dropped.
    std::fs::remove_file(folder.join("tokenizer_config.json")).unwrap();
    let offline = Hub {
        offline: true,
        ..hub(cache.path(), &nowhere())
    };
    let error = offline.checkpoint("tiny/bert", Some("v1")).unwrap_err();
    assert!(matches!(error, Error::NotCached { .. }), "{error}");
    assert!(
        error.to_string().contains("tokenizer_config.json"),
        "{error}"
    );
}

/// RoBERTa's first checkpoints: the merges come with the vocabulary, or the tokenizer is none.
#[test]
fn a_tokenizer_of_two_files_comes_whole() {
    let merges = b"#version: 0.2\na b\n".as_slice();
    let vocabulary = br#"{"<s>": 0, "</s>": 1, "a": 2, "b": 3, "ab": 4}"#.as_slice();
    for whole in [true, false] {
        let mut files = vec![
            (path_at("main", "config.json"), b"{}".as_slice()),
            (path_at(COMMIT, "model.safetensors"), b"weights".as_slice()),
            (path_at(COMMIT, "vocab.json"), vocabulary),
        ];
        if whole {
            files.push((path_at(COMMIT, "merges.txt"), merges));
        }
        let served: Vec<_> = files
            .iter()
            .map(|(path, bytes)| (path.as_str(), *bytes, Conduct::Good))
            .collect();
        // Two for each file that is there; one for tokenizer.json, vocab.txt, added_tokens.json and the settings, or for
        // the first two and the merges, before the weights.
        let requests = if whole { 12 } else { 7 };
        let server = Server::start(&served, requests);
        let cache = TempDir::new().unwrap();
        let online = hub(cache.path(), &server.endpoint);
        let outcome = online.checkpoint("tiny/bert", None);
        server.finish(requests);
        if !whole {
            assert_says(outcome, &["merges.txt"]);
            continue;
        }
        let folder = outcome.unwrap();
        let encoder = TextEncoder::from_folder(&folder, 8).unwrap();
        assert_eq!(encoder.vocab_size(), 5);
        let offline = Hub {
            offline: true,
            ..hub(cache.path(), &nowhere())
        };
        assert_eq!(offline.checkpoint("tiny/bert", None).unwrap(), folder);
    }
}

/// That a tokenizer cannot be fetched does not mean that there is none.
#[test]
fn a_tokenizer_that_does_not_arrive_is_not_replaced_by_another() {
    let (config, weights) = (
        path_at("main", "config.json"),
        path_at(COMMIT, "model.safetensors"),
    );
    let tokenizer = path_at(COMMIT, "tokenizer.json");
    let vocabulary = path_at(COMMIT, "vocab.txt");
    let server = Server::start(
        &[
            (&config, b"{}", Conduct::Good),
            (&weights, b"weights", Conduct::Good),
            (&tokenizer, b"{}", Conduct::Boasts),
            (&vocabulary, VOCABULARY, Conduct::Good),
        ],
        4,
    );
    let cache = TempDir::new().unwrap();
    let error = hub(cache.path(), &server.endpoint)
        .checkpoint("tiny/bert", None)
        .unwrap_err();
    assert!(matches!(error, Error::SizeMismatch { .. }), "{error}");
    server.finish(4);
}

#[test]
fn weights_in_shards_are_fetched() {
    let index = br#"{"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors", "c": "model-1-of-2.safetensors"}}"#;
    let config = path_at("main", "config.json");
    let files = [
        ("model.safetensors.index.json", index.as_slice()),
        ("model-1-of-2.safetensors", b"one"),
        ("model-2-of-2.safetensors", b"three"), // the server tells contents by their lengths
        ("tokenizer.json", b"{}"),
    ];
    let files = files.map(|(name, bytes)| (path_at(COMMIT, name), bytes));
    let mut all = vec![(config.as_str(), b"{}".as_slice(), Conduct::Good)];
    all.extend(files.iter().map(|(p, b)| (p.as_str(), *b, Conduct::Good)));
    // Two for each of five files, one for the whole weights and for the tokenizer's configuration; but the content of
    // tokenizer.json is there, it is that of config.json.
    let server = Server::start(&all, 11);
    let cache = TempDir::new().unwrap();
    let online = hub(cache.path(), &server.endpoint);
    let folder = online.checkpoint("tiny/bert", None).unwrap();
    server.finish(11);
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    assert_eq!(read("model-1-of-2.safetensors"), b"one");
    assert_eq!(read("model-2-of-2.safetensors"), b"three");
}

#[test]
fn what_is_neither_a_folder_nor_an_id_is_refused() {
    for name in [
        "model", "./model", "/model", "a/b/c", "~/model", "a@b", "./a@b", "a/b/c@d",
    ] {
        let error = checkpoint_folder(name).unwrap_err();
        assert!(matches!(error, Error::Setting { .. }), "{name}: {error}");
    }
}

#[test]
fn without_a_network_the_error_says_what_to_pass() {
    let cache = TempDir::new().unwrap();
    let hub = hub(cache.path(), &nowhere());
    let error = hub
        .get(RepoKind::Model, "tiny/bert", None, "config.json")
        .unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    let message = error.to_string();
    assert!(
        message.contains("--model") && message.contains("tiny/bert/config.json"),
        "{message}"
    );
}

#[test]
fn refusals_say_why() {
    let path = "/tiny/secret/resolve/main/config.json";
    let server = Server::start(&[(path, b"{}", Conduct::Private)], 4);
    let cache = TempDir::new().unwrap();
    let stranger = hub(cache.path(), &server.endpoint);
    let error = stranger
        .get(RepoKind::Model, "tiny/other", None, "x")
        .unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert!(error.to_string().contains("404"), "{error}");
    let get = |hub: &Hub| hub.get(RepoKind::Model, "tiny/secret", None, "config.json");
    let error = get(&stranger).unwrap_err();
    assert!(error.to_string().contains("HF_TOKEN"), "{error}");
    let friend = Hub {
        token: Some("secret".to_string()),
        ..stranger
    };
    assert!(get(&friend).is_ok());
    assert!(
        !format!("{friend:?}").contains("secret"),
        "tokens are not shown"
    );
    server.finish(4);
}

#[test]
fn a_download_of_the_wrong_size_is_removed() {
    let path = "/tiny/bert/resolve/main/model.bin";
    let server = Server::start(&[(path, b"12345", Conduct::Boasts)], 4);
    let cache = TempDir::new().unwrap();
    let hub = hub(cache.path(), &server.endpoint);
    for _ in 0..2 {
        let error = hub
            .get(RepoKind::Model, "tiny/bert", None, "model.bin")
            .unwrap_err();
        assert!(
            matches!(
                error,
                Error::SizeMismatch {
                    expected: 12,
                    got: 5,
                    ..
                }
            ),
            "{error}"
        );
    }
    server.finish(4);
}

#[test]
fn a_broken_download_is_resumed() {
    let bytes: Vec<u8> = (0..20_000u32).map(|i| (i % 251) as u8).collect();
    let path = "/tiny/bert/resolve/main/model.bin";
    let server = Server::start(&[(path, &bytes, Conduct::HangsUp)], 4);
    let cache = TempDir::new().unwrap();
    let hub = hub(cache.path(), &server.endpoint);
    let get = || hub.get(RepoKind::Model, "tiny/bert", None, "model.bin");
    let error = get().unwrap_err();
    assert!(error.to_string().contains("resumes"), "{error}");
    assert_eq!(std::fs::read(get().unwrap()).unwrap(), bytes);
    assert_eq!(server.finish(4)[3], format!("{path} 10000-"));
}

#[test]
fn a_silent_server_is_not_waited_for() {
    let bytes: Vec<u8> = (0..20_000u32).map(|i| (i % 251) as u8).collect();
    let silent = "/tiny/bert/resolve/main/silent.bin";
    let stalls = "/tiny/bert/resolve/main/stalls.bin";
    let files: [(&str, &[u8], Conduct); 2] = [
        (silent, &bytes, Conduct::Silent),
        (stalls, &bytes, Conduct::Stalls),
    ];
    let server = Server::start(&files, 5);
    let cache = TempDir::new().unwrap();
    let hub = Hub {
        patience: SHORT,
        ..hub(cache.path(), &server.endpoint)
    };
    let get = |file: &str| hub.get(RepoKind::Model, "tiny/bert", None, file);
    for file in ["silent.bin", "stalls.bin"] {
        let error = get(file).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Unreachable { .. }), "{text}");
        assert!(text.contains("nothing came for 500ms"), "{text}");
        // Until the connection that was left behind has ended.
        std::thread::sleep(6 * SHORT);
    }
    // What came is kept, and gone on with.
    let whole = get("stalls.bin").unwrap();
    assert_eq!(std::fs::read(whole).unwrap(), bytes);
    assert_eq!(server.finish(5)[4], format!("{stalls} 10000-"));
}

#[test]
fn names_cannot_leave_the_cache() {
    let cache = TempDir::new().unwrap();
    let hub = hub(cache.path(), &nowhere());
    for repo in [
        "../x", "a/b/c", "/etc", "a//b", "", "a b", "./a", "C:\\a", "a/",
    ] {
        let error = hub.get(RepoKind::Model, repo, None, "f").unwrap_err();
        assert!(matches!(error, Error::Setting { .. }), "{repo}: {error}");
    }
    for file in ["../f", "/f", "a/../../f", "a?b", "", "a%2e"] {
        let error = hub.get(RepoKind::Dataset, "a/b", None, file).unwrap_err();
        assert!(matches!(error, Error::Setting { .. }), "{file}: {error}");
        assert!(hub.get(RepoKind::Dataset, "a/b", Some(file), "f").is_err());
    }
}

/// The Hub's large files are on other hosts, to which the way leads with an address of its own and without the token.
#[test]
fn no_other_host_gets_the_token() {
    let bytes = b"large".repeat(100);
    let other = Server::start(&[("/signed/abc", &bytes, Conduct::Good)], 2);
    let url: &'static str = format!("{}/signed/abc", other.endpoint).leak();
    let moved = "/tiny/new/resolve/main/model.bin";
    let server = Server::start(
        &[
            // Renamed: the new name is on the same host.
            (
                "/tiny/bert/resolve/main/model.bin",
                b"",
                Conduct::Elsewhere(moved),
            ),
            (moved, b"", Conduct::Elsewhere(url)),
        ],
        2,
    );
    let cache = TempDir::new().unwrap();
    let hub = Hub {
        token: Some("secret".into()),
        ..hub(cache.path(), &server.endpoint)
    };
    let path = hub
        .get(RepoKind::Model, "tiny/bert", None, "model.bin")
        .unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    // What it is, the Hub has said.
    assert!(path.canonicalize().unwrap().ends_with("blobs/linked"));
    let asked = server.finish(2);
    assert!(
        asked.iter().all(|line| line.ends_with("with the token")),
        "{asked:?}"
    );
    assert_eq!(other.finish(2), ["/signed/abc 0-0", "/signed/abc 0-"]);
}

#[test]
fn an_empty_file_is_one() {
    let path = "/tiny/bert/resolve/main/merges.txt";
    let server = Server::start(&[(path, b"", Conduct::Empty)], 1);
    let cache = TempDir::new().unwrap();
    let hub = hub(cache.path(), &server.endpoint);
    let found = hub.get(RepoKind::Model, "tiny/bert", None, "merges.txt");
    assert_eq!(std::fs::read(found.unwrap()).unwrap(), b"");
    server.finish(1);
}

#[test]
fn answers_cannot_leave_the_cache_either() {
    let outside = TempDir::new().unwrap();
    let target: &'static str = format!("{}/bashrc", outside.path().display()).leak();
    let names = [target, "../../../x", "..", "", "a/b"];
    for name in names {
        let path = "/tiny/bert/resolve/main/config.json";
        let server = Server::start(&[(path, b"{}", Conduct::Leads(name))], 1);
        let cache = TempDir::new().unwrap();
        let hub = hub(cache.path(), &server.endpoint);
        let outcome = hub.get(RepoKind::Model, "tiny/bert", None, "config.json");
        assert_says(outcome, &["etag", "no name", "HF_ENDPOINT"]);
        server.finish(1);
        assert_eq!(
            std::fs::read_dir(cache.path()).unwrap().count(),
            0,
            "{name}"
        );
    }
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

/// Who may not see a repository is told that there is none. That is nothing to remember of its files.
#[test]
fn a_repository_that_is_hidden_is_no_file_that_is_missing() {
    let path = path_at(COMMIT, "model.safetensors");
    for (code, remembered) in [
        ("RepoNotFound", None),
        ("", Some(false)),
        ("EntryNotFound", Some(true)),
    ] {
        let server = Server::start(
            &[(&path, b"", Conduct::Missing(code.to_string().leak()))],
            1,
        );
        let cache = TempDir::new().unwrap();
        let online = hub(cache.path(), &server.endpoint);
        let found = online.find(
            RepoKind::Model,
            "tiny/bert",
            Some(COMMIT),
            "model.safetensors",
        );
        server.finish(1);
        match remembered {
            None => assert_says(found, &["404", "RepoNotFound"]),
            Some(_) => assert_eq!(found.unwrap(), None),
        }
        let marker = cache
            .path()
            .join("models--tiny--bert/.no_exist")
            .join(COMMIT);
        assert_eq!(marker.exists(), remembered == Some(true), "{code}");
    }
}

#[test]
fn variables_decide_where_and_how() {
    let from = |variables: &[(&str, &str)]| {
        let variables: HashMap<String, String> = variables
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        Hub::from_variables(|name| variables.get(name).cloned())
    };
    let hub = from(&[("HOME", "/home/ada")]).unwrap();
    assert_eq!(
        hub.cache_dir,
        PathBuf::from("/home/ada/.cache/huggingface/hub")
    );
    assert_eq!(hub.endpoint, "https://huggingface.co");
    assert!(!hub.offline && hub.token.is_none() && !hub.progress);
    assert_eq!(hub.patience, Duration::from_secs(30));
    let waits = |seconds| from(&[("HOME", "/x"), ("HF_HUB_DOWNLOAD_TIMEOUT", seconds)]);
    assert_eq!(waits("2.5").unwrap().patience, Duration::from_millis(2500));
    for wrong in ["0", "-1", "soon", "NaN", "inf"] {
        assert_says(waits(wrong), &["HF_HUB_DOWNLOAD_TIMEOUT", wrong]);
    }
    // As a file of variables has it, which no shell reads.
    let hub = from(&[("HOME", "/home/ada"), ("HF_HOME", "~/hf")]).unwrap();
    assert_eq!(hub.cache_dir, PathBuf::from("/home/ada/hf/hub"));
    let hub = from(&[("HOME", "/home/ada"), ("HF_HUB_CACHE", "~")]).unwrap();
    assert_eq!(hub.cache_dir, PathBuf::from("/home/ada"));
    let hub = from(&[("HOME", "/home/ada"), ("HF_HUB_CACHE", "~eva/hub")]).unwrap();
    assert_eq!(hub.cache_dir, PathBuf::from("~eva/hub"));
    let home = TempDir::new().unwrap();
    std::fs::write(home.path().join("token"), "saved\n").unwrap();
    let folder = home.path().to_str().unwrap();
    let hub = from(&[("HOME", "/x"), ("HF_HOME", folder), ("HF_HUB_OFFLINE", "")]).unwrap();
    assert_eq!(hub.cache_dir, home.path().join("hub"));
    assert_eq!(hub.token.as_deref(), Some("saved"));
    assert!(!hub.offline);
    let elsewhere = home.path().join("elsewhere");
    std::fs::write(&elsewhere, "other\n").unwrap();
    let path = elsewhere.to_str().unwrap();
    let hub = from(&[("HF_HOME", folder), ("HF_TOKEN_PATH", path)]).unwrap();
    assert_eq!(hub.token.as_deref(), Some("other"));
    let hub = from(&[
        ("HF_HOME", folder),
        ("HF_HUB_CACHE", "/c"),
        ("HF_TOKEN", "given"),
        ("HF_ENDPOINT", "http://hub.example/"),
        ("HF_HUB_OFFLINE", "TRUE"),
    ])
    .unwrap();
    assert_eq!((hub.cache_dir, hub.offline), (PathBuf::from("/c"), true));
    assert_eq!(
        (hub.token.as_deref(), hub.endpoint.as_str()),
        (Some("given"), "http://hub.example")
    );
    assert!(matches!(from(&[]), Err(Error::Setting { .. })));
}

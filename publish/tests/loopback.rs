//! Pushes to a small server on the loopback interface that speaks the Hub's API.

use base64::Engine;
use publish::{Error, Folder, Hub, Push};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

type Answer = Result<(), Box<dyn std::error::Error>>;

/// No test may wait for a request longer than this.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Debug)]
struct Request {
    /// Method and path with its query.
    line: String,
    token: String,
    body: Vec<u8>,
}

/// What the server says to each request: a status and a body.
type Conduct = fn(&Request) -> (u16, Value);

struct Server {
    endpoint: String,
    log: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(conduct: Conduct) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        listener.set_nonblocking(true)?;
        let log = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicU64::new(0));
        let (to, stopped) = (log.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let start = Instant::now();
            while stopped.load(Ordering::SeqCst) == 0 && start.elapsed() < PATIENCE {
                match listener.accept() {
                    Ok((stream, _)) => {
                        if let Ok(request) = answer(&stream, conduct) {
                            to.lock().unwrap_or_else(|e| e.into_inner()).push(request);
                        }
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        Ok(Self {
            endpoint,
            log,
            stop,
            thread: Some(thread),
        })
    }

    fn hub(&self) -> Hub {
        Hub {
            endpoint: self.endpoint.clone(),
            token: "secret".into(),
            retries: 0,
        }
    }

    /// What was asked for, in order.
    fn finish(mut self) -> Vec<Request> {
        self.stop.store(1, Ordering::SeqCst);
        let joined = self.thread.take().map(JoinHandle::join);
        assert!(joined.is_none_or(|joined| joined.is_ok()));
        self.log.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }
}

fn answer(stream: &TcpStream, conduct: Conduct) -> std::io::Result<Request> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let (mut length, mut token) = (0, String::new());
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let header = header.trim();
        if header.is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(": ") {
            match name.to_lowercase().as_str() {
                "content-length" => length = value.parse().unwrap_or(0),
                "authorization" => token = value.to_string(),
                _ => {}
            }
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let line = line.trim().trim_end_matches(" HTTP/1.1").to_string();
    let request = Request { line, token, body };
    let (status, text) = conduct(&request);
    let text = text.to_string();
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )?;
    Ok(request)
}

/// The Hub when all is well.
fn well(request: &Request) -> (u16, Value) {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    match request.line.split(['?', ' ']).nth(1).unwrap_or_default() {
        "/api/repos/create" => (200, json!({"url": "http://hub/me/mini"})),
        "/api/models/me/mini" => (200, json!({"id": "me/mini", "private": true})),
        "/api/models/me/mini/preupload/main" | "/api/models/me/mini/preupload/side" => {
            let files = body["files"].as_array().cloned().unwrap_or_default();
            let files = files
                .iter()
                .map(|file| json!({"path": file["path"], "uploadMode": "regular"}));
            (200, json!({"files": files.collect::<Vec<_>>()}))
        }
        "/api/models/me/mini/commit/main" | "/api/models/me/mini/commit/side" => {
            let asked = request.line.contains("create_pr=1");
            (
                200,
                json!({
                    "commitUrl": "http://hub/me/mini/commit/abc",
                    "commitOid": "abc",
                    "prUrl": asked.then_some("http://hub/me/mini/discussions/1"),
                }),
            )
        }
        _ => (404, json!({"error": "no such page"})),
    }
}

/// A header of safetensors and as many bytes as it says.
fn weights(values: &[f32]) -> Vec<u8> {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let tensor = json!({"dtype": "F32", "shape": [values.len()], "data_offsets": [0, bytes.len()]});
    let header = json!({"w": tensor, "__metadata__": {"format": "pt"}}).to_string();
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &bytes].concat()
}

fn model(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(
        folder.join("config.json"),
        r#"{"model_type": "squeezebert"}"#,
    )?;
    std::fs::write(
        folder.join("model.safetensors"),
        weights(&[1.0, -2.5, 3.25]),
    )?;
    std::fs::write(folder.join("tokenizer.json"), "{}")?;
    std::fs::write(folder.join("README.md"), "# A model\n")
}

fn says(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{text} does not say {part}");
    }
}

#[test]
fn the_licence_is_that_of_the_cards_head() -> Answer {
    let dir = tempfile::tempdir()?;
    model(dir.path())?;
    let license = |card: &str| -> Result<Option<String>, Box<dyn std::error::Error>> {
        std::fs::write(dir.path().join("README.md"), card)?;
        Ok(Folder::open(dir.path())?.license()?)
    };
    let named = Some("cc-by-sa-4.0".to_string());
    assert_eq!(
        license("---\ntags:\n- x\nlicense: cc-by-sa-4.0\n---\n# A model\n")?,
        named
    );
    assert_eq!(
        license("---\r\nlicense: \"cc-by-sa-4.0\"\r\n---\r\n")?,
        named
    );
    for none in [
        "# A model\n",
        "",
        "---\ntags:\n- x\n---\nlicense: mit\n",
        "---\nlicense:\n---\n",
        "---\n  license: mit\n---\n",
    ] {
        assert_eq!(license(none)?, None, "{none}");
    }
    std::fs::remove_file(dir.path().join("README.md"))?;
    assert_eq!(Folder::open(dir.path())?.license()?, None);
    Ok(())
}

#[test]
fn all_files_go_in_one_commit() -> Answer {
    let dir = tempfile::tempdir()?;
    model(&dir.path().join("model"))?;
    std::fs::write(dir.path().join("model/.hidden"), "x")?;
    std::fs::create_dir(dir.path().join("model/more"))?;
    let folder = Folder::open(dir.path())?; // the run's, whose model is meant
    assert_eq!(folder.left_out, [".hidden", "more"]);
    assert!(folder.has_card());

    let server = Server::start(well)?;
    let mut push = Push::to("me/mini")?;
    push.private = true;
    push.message = "the first".into();
    let most = Arc::new(AtomicU64::new(0));
    let seen = most.clone();
    let pushed = server.hub().push(&folder, &push, move |_, of| {
        seen.store(of, Ordering::SeqCst);
    })?;
    assert_eq!(pushed.url, "http://hub/me/mini/commit/abc");
    assert_eq!(pushed.commit.as_deref(), Some("abc"));
    assert_eq!(most.load(Ordering::SeqCst), folder.bytes());

    let log = server.finish();
    let lines: Vec<_> = log.iter().map(|request| request.line.as_str()).collect();
    assert_eq!(
        lines,
        [
            "POST /api/repos/create",
            "GET /api/models/me/mini",
            "POST /api/models/me/mini/preupload/main",
            "POST /api/models/me/mini/commit/main",
        ]
    );
    assert!(log.iter().all(|request| request.token == "Bearer secret"));
    let made: Value = serde_json::from_slice(&log[0].body)?;
    assert_eq!(
        made,
        json!({"name": "mini", "organization": "me", "private": true, "type": "model"})
    );
    // One line for the message, one for each file, whose bytes are the folder's.
    let lines = log[3]
        .body
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty());
    let lines = lines
        .map(serde_json::from_slice)
        .collect::<Result<Vec<Value>, _>>()?;
    assert_eq!(lines[0]["value"]["summary"], "the first");
    assert_eq!(lines.len(), 1 + folder.files.len());
    for (line, file) in lines[1..].iter().zip(&folder.files) {
        assert_eq!(line["value"]["path"], file.name.as_str());
        let content = line["value"]["content"].as_str().unwrap_or_default();
        let content = base64::engine::general_purpose::STANDARD.decode(content)?;
        assert_eq!(content, std::fs::read(&file.path)?, "{}", file.name);
    }
    Ok(())
}

#[test]
fn a_branch_and_a_pull_request() -> Answer {
    let dir = tempfile::tempdir()?;
    model(dir.path())?;
    let server = Server::start(well)?;
    let mut push = Push::to("me/mini")?;
    (push.branch, push.pull_request) = (Some("side".into()), true);
    let pushed = server
        .hub()
        .push(&Folder::open(dir.path())?, &push, |_, _| {})?;
    assert_eq!(pushed.url, "http://hub/me/mini/discussions/1");
    let log = server.finish();
    assert_eq!(
        log[2].line,
        "POST /api/models/me/mini/commit/side?create_pr=1"
    );
    Ok(())
}

/// Pushes the model to a server of this conduct.
fn pushed(
    conduct: Conduct,
) -> Result<(publish::Result<publish::Pushed>, Vec<Request>), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    model(dir.path())?;
    let server = Server::start(conduct)?;
    let folder = Folder::open(dir.path())?;
    let pushed = server.hub().push(&folder, &Push::to("me/mini")?, |_, _| {});
    Ok((pushed, server.finish()))
}

#[test]
fn a_repository_that_is_there_is_used() -> Answer {
    // There already.
    let (done, log) = pushed(|request| match request.line.contains("/repos/create") {
        true => (409, json!({"error": "You already created this model repo"})),
        false => well(request),
    })?;
    assert_eq!(done?.commit.as_deref(), Some("abc"));
    assert_eq!(log.len(), 3);
    // There, and this token makes none.
    let (done, _) = pushed(|request| match request.line.as_str() {
        "POST /api/repos/create" => (403, json!({"error": "no right to make one"})),
        "GET /api/models/me/mini" | "HEAD /api/models/me/mini" => (200, json!({"id": "me/mini"})),
        _ => well(request),
    })?;
    assert_eq!(done?.commit.as_deref(), Some("abc"));
    Ok(())
}

/// The Hub says nothing of `private` where a repository is there.
#[test]
fn nothing_private_goes_to_a_public_repository() -> Answer {
    let dir = tempfile::tempdir()?;
    model(dir.path())?;
    let server = Server::start(|request| match request.line.as_str() {
        "POST /api/repos/create" => (409, json!({"error": "You already created this model repo"})),
        "GET /api/models/me/mini" => (200, json!({"id": "me/mini", "private": false})),
        _ => well(request),
    })?;
    let mut push = Push::to("me/mini")?;
    push.private = true;
    let outcome = server
        .hub()
        .push(&Folder::open(dir.path())?, &push, |_, _| {});
    match outcome {
        Err(error) => says(&error, &["me/mini", "public", "nothing was pushed"]),
        Ok(pushed) => return Err(format!("{pushed:?}").into()),
    }
    let log = server.finish();
    assert!(log.iter().all(|request| !request.line.contains("commit")));
    Ok(())
}

#[test]
fn what_the_hub_refuses_is_said_with_a_way_out() -> Answer {
    let cases: [(Conduct, &[&str]); 4] = [
        (
            |_| (401, json!({"error": "Invalid user token."})),
            &["to make the repository me/mini", "HF_TOKEN"],
        ),
        (
            |request| match request.line.starts_with("POST") {
                true => (403, json!({"error": "no right to make one"})),
                false => (404, json!({"error": "not found"})),
            },
            &["to make the repository me/mini", "the right to write"],
        ),
        (
            |request| match request.line.contains("/commit/") {
                true => (500, json!({"error": "the disk is full"})),
                false => well(request),
            },
            &[
                "a commit to me/mini",
                "500",
                "the disk is full",
                "nothing was pushed",
            ],
        ),
        (
            |request| match request.line.contains("/preupload/") {
                true => (200, json!(["rubbish"])),
                false => well(request),
            },
            &["a commit to me/mini", "nothing was pushed"],
        ),
    ];
    for (conduct, parts) in cases {
        let (done, log) = pushed(conduct)?;
        match done {
            Err(error @ Error::Refused { .. }) => says(&error, parts),
            other => return Err(format!("{other:?} after {log:?}").into()),
        }
        let hidden = log.iter().all(|request| !request.line.contains("secret"));
        assert!(hidden);
    }
    Ok(())
}

#[test]
fn without_a_server_nothing_is_pushed() -> Answer {
    let dir = tempfile::tempdir()?;
    model(dir.path())?;
    let gone = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let hub = Hub {
        endpoint: format!("http://{gone}"),
        token: "secret".into(),
        retries: 0,
    };
    let done = hub.push(&Folder::open(dir.path())?, &Push::to("me/mini")?, |_, _| {});
    match done {
        Err(error @ Error::Unreachable { .. }) => {
            says(&error, &[&hub.endpoint, "nothing was pushed"]);
        }
        other => return Err(format!("{other:?}").into()),
    }
    assert!(!format!("{hub:?}").contains("secret"));
    Ok(())
}

#[test]
fn a_folder_that_loads_nowhere_is_not_pushed() -> Answer {
    let dir = tempfile::tempdir()?;
    let path = dir.path();
    let refused = |parts: &[&str]| -> Answer {
        match Folder::open(path) {
            Err(error) => says(&error, parts),
            Ok(folder) => return Err(format!("{folder:?}").into()),
        }
        Ok(())
    };
    refused(&["no config.json"])?;
    std::fs::write(path.join("config.json"), "[1")?;
    refused(&["config.json", "no configuration"])?;
    std::fs::write(path.join("config.json"), "{}")?;
    refused(&["no model.safetensors"])?;
    let whole = weights(&[1.0, 2.0]);
    for (bytes, part) in [
        (&whole[..3], "3 bytes are no safetensors"),
        (&whole[..20], "a header of"),
        (&whole[..whole.len() - 1], "by its header"),
        (&[&whole[..], &[0]].concat(), "by its header"),
        (
            &[&8u64.to_le_bytes()[..], b"no json!"].concat(),
            "no header of safetensors",
        ),
        (&[0xff; 40], "a header of"),
    ] {
        std::fs::write(path.join("model.safetensors"), bytes)?;
        refused(&["model.safetensors", part, "export the model again"])?;
    }
    std::fs::write(path.join("model.safetensors"), &whole)?;
    assert_eq!(Folder::open(path)?.files.len(), 2);
    assert!(matches!(
        Folder::open(&path.join("none")),
        Err(Error::Io { .. })
    ));
    Ok(())
}

#[test]
fn names_are_those_of_repositories() {
    for name in ["me/mini", "a/b", "Org-1/bert.base_v2"] {
        assert!(Push::to(name).is_ok(), "{name}");
    }
    for name in [
        "mini",
        "",
        "/",
        "me/",
        "/mini",
        "me/mini/x",
        "me/..",
        "me/a--b",
        "me/-a",
        "a b/c",
        "me/ü",
    ] {
        assert!(matches!(Push::to(name), Err(Error::Name { .. })), "{name}");
    }
}

#[test]
fn the_environment_says_where_and_with_what_right() -> Answer {
    let home = tempfile::tempdir()?;
    std::fs::write(home.path().join("token"), "saved\n")?;
    let at = home.path().display().to_string();
    let of = |set: &[(&str, &str)]| {
        let set: Vec<(String, String)> = set
            .iter()
            .map(|(n, v)| (n.to_string(), v.to_string()))
            .collect();
        Hub::from_variables(move |name| set.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()))
    };
    let hub = of(&[("HF_TOKEN", " mine "), ("HF_ENDPOINT", "http://here/")])?;
    assert_eq!(
        (hub.token.as_str(), hub.endpoint.as_str()),
        ("mine", "http://here")
    );
    let hub = of(&[("HF_TOKEN", ""), ("HF_HOME", &at)])?;
    assert_eq!(
        (hub.token.as_str(), hub.endpoint.as_str()),
        ("saved", "https://huggingface.co")
    );
    // As a file of variables has it, which no shell reads.
    let hub = of(&[("HOME", &at), ("HF_HOME", "~")])?;
    assert_eq!(hub.token, "saved");
    for (set, part) in [
        (&[][..], "HF_TOKEN: no token"),
        (
            &[("HF_TOKEN", "mine"), ("HF_HUB_OFFLINE", "1")],
            "HF_HUB_OFFLINE: is set",
        ),
    ] {
        match of(set) {
            Err(error) => says(&error, &[part]),
            Ok(hub) => return Err(format!("{hub:?}").into()),
        }
    }
    Ok(())
}

#[test]
fn the_program_says_what_it_would_push() -> Answer {
    let dir = tempfile::tempdir()?;
    model(dir.path())?;
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_publish"));
        command.arg(dir.path()).args(arguments).env_clear().output()
    };
    let said = run(&["--repo", "me/mini", "--dry-run"])?;
    let text = String::from_utf8(said.stdout)?;
    assert!(said.status.success(), "{text}");
    assert!(
        text.contains("model.safetensors, ") && text.contains("4 files, "),
        "{text}"
    );
    assert!(text.contains("would go to me/mini"), "{text}");
    let said = run(&["--repo", "me/mini"])?; // no token
    assert!(!said.status.success());
    let text = String::from_utf8(said.stderr)?;
    assert!(text.starts_with("error: HF_TOKEN: no token"), "{text}");

    let server = Server::start(well)?;
    let said = Command::new(env!("CARGO_BIN_EXE_publish"))
        .arg(dir.path())
        .args(["--repo", "me/mini"])
        .env_clear()
        .env("HF_ENDPOINT", &server.endpoint)
        .env("HF_TOKEN", "secret")
        .output()?;
    let text = String::from_utf8(said.stdout)?;
    assert!(said.status.success(), "{text}");
    assert!(text.contains("http://hub/me/mini/commit/abc"), "{text}");
    assert_eq!(server.finish().len(), 3);
    Ok(())
}

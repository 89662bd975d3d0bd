//! Headless Chromium, driven by its DevTools protocol over a pair of pipes: JSON messages, each ended
//! by a zero byte (`--remote-debugging-pipe` reads descriptor 3 and writes 4).

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, timeout};

const LIMIT: Duration = Duration::from_secs(60);
/// CDP's bit of Ctrl in `modifiers`.
const CTRL: u8 = 2;

/// One page in its own browser, which is ended with it.
pub(crate) struct Page {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    session: Option<String>,
    sent: u64,
    _profile: TempDir,
}

impl Page {
    /// An empty page.
    ///
    /// # Panics
    /// When there is no Chromium: `make test` installs it.
    pub(crate) async fn new() -> Self {
        let profile = tempfile::tempdir().unwrap();
        // The shell gives the browser its own standard streams as descriptors 3 and 4.
        let mut process = Command::new("sh")
            .args(["-c", r#"exec "$@" 3<&0 4>&1 0</dev/null 1>/dev/null"#, "sh"])
            .args(["chromium", "--headless", "--remote-debugging-pipe"])
            .args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--disable-background-networking", "--disable-sync"])
            .args(["--disable-component-update", "--no-first-run"])
            .arg("--hide-scrollbars")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut page = Page {
            input: process.stdin.take().unwrap(),
            output: BufReader::new(process.stdout.take().unwrap()),
            process,
            session: None,
            sent: 0,
            _profile: profile,
        };
        let target = page
            .call("Target.createTarget", json!({"url": "about:blank"}))
            .await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = page.call("Target.attachToTarget", attach).await;
        page.session = attached["sessionId"].as_str().map(str::to_owned);
        page
    }

    /// Calls a method of the protocol and returns its result.
    async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.sent += 1;
        let mut message = json!({"id": self.sent, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        let answer = async {
            self.input.write_all(&bytes).await?;
            loop {
                let mut bytes = Vec::new();
                if self.output.read_until(0, &mut bytes).await? == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                bytes.pop();
                let message: Value = serde_json::from_slice(&bytes)?;
                // Other messages are events.
                if message["id"] == self.sent {
                    return std::io::Result::Ok(message);
                }
            }
        };
        let answer = timeout(LIMIT, answer).await;
        let answer = answer.unwrap_or_else(|_| panic!("{method}: no answer within {LIMIT:?}"));
        let mut answer = answer.unwrap_or_else(|error| {
            panic!("{method}: {error}; is `chromium` installed? (`make test` does)")
        });
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].take()
    }

    /// Opens `url` in a window of that size.
    pub(crate) async fn open(&mut self, url: &str, (width, height): (u32, u32)) {
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
        });
        self.call("Emulation.setDeviceMetricsOverride", metrics)
            .await;
        // Loads the document anew, also where only the fragment of the address differs.
        for url in ["about:blank", url] {
            self.call("Page.navigate", json!({"url": url})).await;
        }
    }

    /// Renders the page for readers who prefer dark colours.
    pub(crate) async fn prefer_dark(&mut self) {
        let dark = json!({"name": "prefers-color-scheme", "value": "dark"});
        self.call("Emulation.setEmulatedMedia", json!({"features": [dark]}))
            .await;
    }

    /// The value of a JavaScript expression.
    pub(crate) async fn evaluate(&mut self, expression: &str) -> Value {
        let call = json!({"expression": expression, "returnByValue": true});
        let mut result = self.call("Runtime.evaluate", call).await;
        let thrown = &result["exceptionDetails"];
        assert!(thrown.is_null(), "{expression}: {thrown}");
        result["result"]["value"].take()
    }

    /// The page's text, once it has all of `texts`.
    pub(crate) async fn shows(&mut self, texts: &[&str]) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            let page = self.evaluate("document.documentElement?.outerHTML").await;
            // There is no text while another page is being loaded.
            let page = page.as_str().unwrap_or_default();
            let Some(missing) = texts.iter().find(|text| !page.contains(**text)) else {
                return page.to_owned();
            };
            assert!(
                Instant::now() < deadline,
                "the page lacks `{missing}`:\n{page}"
            );
        }
    }

    async fn mouse(&mut self, kind: &str, (x, y): (f64, f64), more: Value) {
        let mut event = json!({"type": kind, "x": x, "y": y});
        for (name, value) in more.as_object().unwrap() {
            event[name] = value.clone();
        }
        self.call("Input.dispatchMouseEvent", event).await;
    }

    pub(crate) async fn press(&mut self, at: (f64, f64)) {
        let button = json!({"button": "left", "buttons": 1, "clickCount": 1});
        self.mouse("mousePressed", at, button).await;
    }

    /// Moves the mouse with its button down.
    pub(crate) async fn drag_to(&mut self, at: (f64, f64)) {
        let button = json!({"button": "left", "buttons": 1});
        self.mouse("mouseMoved", at, button).await;
    }

    pub(crate) async fn release(&mut self, at: (f64, f64)) {
        let button = json!({"button": "left", "clickCount": 1});
        self.mouse("mouseReleased", at, button).await;
    }

    pub(crate) async fn click(&mut self, at: (f64, f64)) {
        self.press(at).await;
        self.release(at).await;
    }

    /// Turns the wheel by so many pixels, away from the reader when negative.
    pub(crate) async fn wheel(&mut self, at: (f64, f64), by: f64, ctrl: bool) {
        let modifiers = if ctrl { CTRL } else { 0 };
        let wheel = json!({"deltaX": 0, "deltaY": by, "modifiers": modifiers});
        self.mouse("mouseWheel", at, wheel).await;
    }

    /// Writes what the window shows to a file.
    pub(crate) async fn screenshot(&mut self, file: &Path) {
        let shot = self.call("Page.captureScreenshot", json!({})).await;
        let png = STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
        std::fs::write(file, png).unwrap();
    }

    pub(crate) async fn close(mut self) {
        self.session = None;
        self.call("Browser.close", json!({})).await;
        let ended = timeout(LIMIT, self.process.wait()).await;
        ended.expect("the browser ends").unwrap();
    }
}

//! A browser tab, driven as a visitor would use it.

use std::time::Duration;

use fantoccini::key::Key;
use fantoccini::wd::WindowHandle;
use fantoccini::{Client, Locator};
use serde::Deserialize;
use serde_json::{Value, json};

use super::chrome::DriverCommand;

/// The default time limit of a wait.
const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

pub struct BrowserTab {
    client: Client,
    window: WindowHandle,
}

/// The state of an answer after one change on the page.
#[derive(Clone, Debug, Deserialize)]
pub struct ShownAnswer {
    /// Milliseconds since the page was opened.
    pub at: f64,
    pub text: String,
    /// There is text, but none of it is visible.
    pub blank: bool,
    /// The page says that another provider is being asked.
    pub paused: bool,
    /// The number of folded drafts below the answer.
    pub drafts: usize,
}

impl BrowserTab {
    pub fn new(client: Client, window: WindowHandle) -> Self {
        Self { client, window }
    }

    async fn focused_client(&self) -> &Client {
        self.client
            .switch_to_window(self.window.clone())
            .await
            .unwrap();
        &self.client
    }

    /// Sends a command of the Chrome DevTools Protocol.
    pub async fn cdp(&self, command: &str, with: Value) -> Value {
        let body = json!({ "cmd": command, "params": with });
        self.focused_client()
            .await
            .issue_cmd(DriverCommand {
                path: "goog/cdp/execute",
                body,
            })
            .await
            .unwrap()
    }

    pub async fn open(&self, address: &str) {
        self.focused_client().await.goto(address).await.unwrap();
    }

    pub async fn reload(&self) {
        self.focused_client().await.refresh().await.unwrap();
    }

    /// Returns the value of a JavaScript expression.
    pub async fn eval(&self, expression: &str) -> Value {
        let script = format!("return ({expression});");
        let value = self
            .focused_client()
            .await
            .execute(&script, Vec::new())
            .await;
        value.unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    /// Returns the value of a JavaScript expression which must be a string.
    pub async fn eval_string(&self, expression: &str) -> String {
        let value = self.eval(expression).await;
        value
            .as_str()
            .unwrap_or_else(|| panic!("{expression} is {value}"))
            .to_owned()
    }

    /// Waits until a JavaScript expression is truthy, for [`SOON`] at most.
    #[track_caller]
    pub fn wait_until<'a>(&'a self, expression: &'a str) -> impl Future<Output = ()> + 'a {
        self.wait_within(WAIT_TIMEOUT, expression)
    }

    /// Waits until a JavaScript expression is truthy, for `limit` at most.
    pub async fn wait_within(&self, limit: Duration, expression: &str) {
        let script = "
            const [limit, done] = arguments;
            const end = performance.now() + limit;
            const holds = () => (EXPRESSION);
            const look = () => {
              try {
                if (holds()) done('');
                else if (performance.now() > end) done('not so in time');
                else setTimeout(look, 20);
              } catch (error) {
                done(String(error));
              }
            };
            look();";
        let script = script.replace("EXPRESSION", expression);
        let limit = u64::try_from(limit.as_millis()).unwrap();
        let error = self
            .focused_client()
            .await
            .execute_async(&script, vec![json!(limit)])
            .await
            .unwrap();
        if error != "" {
            panic!("{error}: {expression}\n{}", self.describe_page().await);
        }
    }

    /// Describes the page and its recent events, for the message of a failed test.
    async fn describe_page(&self) -> String {
        let description = "(() => {
            const { shown, frames, sent, banners, trouble } = witness;
            const last = { shown, frames, sent, banners, trouble };
            const lines = ([name, entries]) => entries.slice(-8).map((entry) => `${name} ${JSON.stringify(entry).slice(0, 300)}`);
            return [document.body.innerText, ...Object.entries(last).flatMap(lines)].join('\\n');
        })()";
        self.eval_string(description).await
    }

    /// Clicks the first element which matches this selector.
    pub async fn click(&self, selector: &str) {
        let element = self
            .focused_client()
            .await
            .find(Locator::Css(selector))
            .await;
        element
            .unwrap_or_else(|error| panic!("{selector}: {error}"))
            .click()
            .await
            .unwrap();
    }

    /// Types a message and sends it.
    pub async fn ask(&self, question: &str) {
        // The composer appears once its texts have loaded.
        self.wait_until("document.querySelector('textarea')").await;
        let keys = format!("{question}{}", char::from(Key::Enter));
        self.focused_client()
            .await
            .find(Locator::Css("textarea"))
            .await
            .unwrap()
            .send_keys(&keys)
            .await
            .unwrap();
    }

    /// Presses this key, named as in `KeyboardEvent.key` and optionally prefixed by `Shift+`.
    pub async fn press(&self, key: &str) {
        let (shift, key) = key.strip_prefix("Shift+").map_or((0, key), |key| (8, key));
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            "Tab" => 9,
            _ => panic!("no code for {key}"),
        };
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text, "modifiers": shift });
            self.cdp("Input.dispatchKeyEvent", event).await;
        }
    }

    /// Moves the pointer to the middle of the element which this expression yields.
    pub async fn hover(&self, element: &str) {
        self.dispatch_mouse_event("mouseMoved", element).await;
    }

    /// Clicks the middle of the element which this expression yields, or whatever covers it.
    pub async fn click_on(&self, element: &str) {
        for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
            self.dispatch_mouse_event(kind, element).await;
        }
    }

    async fn dispatch_mouse_event(&self, kind: &str, element: &str) {
        let middle = format!(
            "(({{ left, right, top, bottom }}) => [(left + right) / 2, (top + bottom) / 2])(({element}).getBoundingClientRect())"
        );
        let position: [f64; 2] = serde_json::from_value(self.eval(&middle).await).unwrap();
        let event = json!({ "type": kind, "x": position[0], "y": position[1], "button": "left", "clickCount": 1 });
        self.cdp("Input.dispatchMouseEvent", event).await;
    }

    /// Types a message into the widget and sends it.
    pub async fn ask_widget(&self, question: &str) {
        self.wait_until("witness.shadow?.querySelector('textarea')")
            .await;
        self.eval("witness.shadow.querySelector('textarea').focus()")
            .await;
        self.cdp("Input.insertText", json!({ "text": question }))
            .await;
        self.press("Enter").await;
    }

    /// Waits until the answer to this page's last question shows at least this many characters.
    /// Asserts that it is still streaming.
    pub async fn wait_for_partial_answer(&self, length: usize) {
        self.wait_until(&format!(
            "witness.current() && witness.text().length >= {length}"
        ))
        .await;
        let state = self.eval_string("witness.answer().dataset.state").await;
        assert_eq!(
            state, "streaming",
            "the answer ended before the test could act"
        );
    }

    /// Waits until the answer to this page's last question has ended, asserts that the page shows
    /// its text, and returns its `done` frame.
    pub async fn wait_for_done(&self) -> Value {
        self.wait_within(
            Duration::from_secs(60),
            "witness.current() && witness.answer().dataset.state !== 'streaming'
                && witness.frame('done')?.turn === witness.answer().dataset.turn",
        )
        .await;
        let done = self.eval("witness.frame('done')").await;
        let shown = self.answer_text().await;
        assert_eq!(
            done["text"], shown,
            "the page shows another text than the answer"
        );
        done
    }

    /// Returns the text of the last answer as received, before Markdown.
    pub async fn answer_text(&self) -> String {
        self.eval_string("witness.text()").await
    }

    /// Returns all states of the last answer in order.
    pub async fn answer_changes(&self) -> Vec<ShownAnswer> {
        let shown = self
            .eval("witness.shown.filter(({ turn }) => turn === witness.answer().dataset.turn)")
            .await;
        serde_json::from_value(shown).unwrap()
    }

    /// Asserts that the rendered last answer contains all its letters in order. Other characters
    /// may be Markdown.
    pub async fn assert_readable(&self) {
        let letters = |text: &str| {
            text.chars()
                .filter(|c| c.is_alphabetic())
                .collect::<String>()
        };
        let rendered = self
            .eval_string("witness.answer().querySelector('[data-role=\"text\"]').textContent")
            .await;
        assert_eq!(letters(&rendered), letters(&self.answer_text().await));
    }

    /// Returns all banners shown so far in order. An empty string stands for no banner.
    pub async fn banners(&self) -> Vec<String> {
        serde_json::from_value(self.eval("witness.banners.map(({ mode }) => mode)").await).unwrap()
    }

    pub async fn conversation_id(&self) -> String {
        self.eval_string("witness.frame('welcome').conversation")
            .await
    }

    /// Asserts that the page raised no error and no policy violation.
    pub async fn assert_no_errors(&self) {
        assert_eq!(self.eval("witness.trouble").await, json!([]));
    }

    /// Emulates a screen of this size in CSS pixels. `phone` makes it a touch screen.
    pub async fn resize(&self, width: u32, height: u32, phone: bool) {
        let scale = if phone { 2 } else { 1 };
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone });
        self.cdp("Emulation.setDeviceMetricsOverride", size).await;
        self.cdp(
            "Emulation.setTouchEmulationEnabled",
            json!({ "enabled": phone }),
        )
        .await;
    }

    /// Emulates the preference for a colour scheme, `light` or `dark`.
    pub async fn set_color_scheme(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.cdp(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        )
        .await;
    }
}

/// Counts how often shown text was withdrawn. Asserts that it became a draft each time, and that
/// text was never hidden meanwhile.
pub fn count_restarts(shown: &[ShownAnswer]) -> usize {
    assert!(
        !shown.iter().any(|answer| answer.blank),
        "there was text, but it was invisible: {shown:#?}"
    );
    let shrinks = shown
        .windows(2)
        .filter(|pair| !pair[1].text.starts_with(&pair[0].text));
    shrinks
        .inspect(|pair| {
            assert_eq!(
                pair[1].drafts,
                pair[0].drafts + 1,
                "text was lost: {pair:#?}"
            );
        })
        .count()
}

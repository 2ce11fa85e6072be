//! A window of the browser: what a visitor does there and sees there.

use std::time::Duration;

use fantoccini::key::Key;
use fantoccini::wd::WindowHandle;
use fantoccini::{Client, Locator};
use serde::Deserialize;
use serde_json::{Value, json};

use super::chrome::Drive;

/// How long something is waited for that happens soon if at all.
const SOON: Duration = Duration::from_secs(20);

/// One window.
pub struct Tab {
    client: Client,
    window: WindowHandle,
}

/// An answer as the page showed it, from one change to the next.
#[derive(Clone, Debug, Deserialize)]
pub struct Shown {
    /// Milliseconds since the page was opened.
    pub at: f64,
    /// The text, to the letter.
    pub text: String,
    /// Whether nothing of the text could be seen.
    pub blank: bool,
    /// Whether it said that another provider is being asked.
    pub paused: bool,
    /// How many folded drafts stood below it.
    pub drafts: usize,
}

impl Tab {
    /// The window of this handle.
    pub fn new(client: Client, window: WindowHandle) -> Self {
        Self { client, window }
    }

    async fn here(&self) -> &Client {
        self.client
            .switch_to_window(self.window.clone())
            .await
            .unwrap();
        &self.client
    }

    /// Sends a command of the browser's own protocol.
    pub async fn cdp(&self, command: &str, with: Value) -> Value {
        let body = json!({ "cmd": command, "params": with });
        self.here()
            .await
            .issue_cmd(Drive {
                path: "goog/cdp/execute",
                body,
            })
            .await
            .unwrap()
    }

    /// Opens this address.
    pub async fn go(&self, address: &str) {
        self.here().await.goto(address).await.unwrap();
    }

    /// Loads the page again.
    pub async fn reload(&self) {
        self.here().await.refresh().await.unwrap();
    }

    /// The value of an expression in the page.
    pub async fn eval(&self, expression: &str) -> Value {
        let script = format!("return ({expression});");
        let value = self.here().await.execute(&script, Vec::new()).await;
        value.unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    /// The string that an expression in the page gives.
    pub async fn string(&self, expression: &str) -> String {
        let value = self.eval(expression).await;
        value
            .as_str()
            .unwrap_or_else(|| panic!("{expression} is {value}"))
            .to_owned()
    }

    /// Waits until an expression in the page holds; for [`SOON`] at most.
    #[track_caller]
    pub fn until<'a>(&'a self, expression: &'a str) -> impl Future<Output = ()> + 'a {
        self.within(SOON, expression)
    }

    /// Waits until an expression in the page holds, for `limit` at most.
    pub async fn within(&self, limit: Duration, expression: &str) {
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
        let failed = self
            .here()
            .await
            .execute_async(&script, vec![json!(limit)])
            .await
            .unwrap();
        if failed != "" {
            panic!("{failed}: {expression}\n{}", self.sight().await);
        }
    }

    /// What there is to see, for who has to find out why a test failed.
    async fn sight(&self) -> String {
        let told = "(() => {
            const { shown, frames, sent, banners, trouble } = witness;
            const last = { shown, frames, sent, banners, trouble };
            const lines = ([name, all]) => all.slice(-8).map((one) => `${name} ${JSON.stringify(one).slice(0, 300)}`);
            return [document.body.innerText, ...Object.entries(last).flatMap(lines)].join('\\n');
        })()";
        self.string(told).await
    }

    /// Clicks where this selector leads first.
    pub async fn click(&self, selector: &str) {
        let element = self.here().await.find(Locator::Css(selector)).await;
        element
            .unwrap_or_else(|error| panic!("{selector}: {error}"))
            .click()
            .await
            .unwrap();
    }

    /// Writes a message and sends it.
    pub async fn ask(&self, question: &str) {
        // It comes when its words have.
        self.until("document.querySelector('textarea')").await;
        let keys = format!("{question}{}", char::from(Key::Enter));
        self.here()
            .await
            .find(Locator::Css("textarea"))
            .await
            .unwrap()
            .send_keys(&keys)
            .await
            .unwrap();
    }

    /// Presses this key, by the name that scripts know it by, wherever the focus is; `Shift+` before it holds that too.
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

    /// Moves the pointer onto the middle of an element, which an expression in the page gives.
    pub async fn hover(&self, element: &str) {
        self.mouse("mouseMoved", element).await;
    }

    /// Clicks on the middle of an element, which an expression in the page gives; whatever lies there gets it.
    pub async fn click_on(&self, element: &str) {
        for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
            self.mouse(kind, element).await;
        }
    }

    async fn mouse(&self, kind: &str, element: &str) {
        let middle = format!(
            "(({{ left, right, top, bottom }}) => [(left + right) / 2, (top + bottom) / 2])(({element}).getBoundingClientRect())"
        );
        let at: [f64; 2] = serde_json::from_value(self.eval(&middle).await).unwrap();
        let event =
            json!({ "type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1 });
        self.cdp("Input.dispatchMouseEvent", event).await;
    }

    /// Writes a message into the widget and sends it.
    pub async fn ask_widget(&self, question: &str) {
        self.until("witness.shadow?.querySelector('textarea')")
            .await;
        self.eval("witness.shadow.querySelector('textarea').focus()")
            .await;
        self.cdp("Input.insertText", json!({ "text": question }))
            .await;
        self.press("Enter").await;
    }

    /// Waits until the answer to what this page asked last shows at least so many characters, and is not done.
    pub async fn until_it_says(&self, length: usize) {
        self.until(&format!(
            "witness.current() && witness.text().length >= {length}"
        ))
        .await;
        let state = self.string("witness.answer().dataset.state").await;
        assert_eq!(
            state, "streaming",
            "it was meant to be caught in the middle"
        );
    }

    /// Waits until the answer to what this page asked last has ended, and gives its `done` frame. What the page shows is what
    /// that says.
    pub async fn until_done(&self) -> Value {
        self.within(
            Duration::from_secs(60),
            "witness.current() && witness.answer().dataset.state !== 'streaming'
                && witness.frame('done')?.turn === witness.answer().dataset.turn",
        )
        .await;
        let (done, shown) = (self.eval("witness.frame('done')").await, self.text().await);
        assert_eq!(done["text"], shown, "the page shows what was answered");
        done
    }

    /// The text of the last answer, to the letter.
    pub async fn text(&self) -> String {
        self.string("witness.text()").await
    }

    /// How the last answer came to be what it is.
    pub async fn shown(&self) -> Vec<Shown> {
        let shown = self
            .eval("witness.shown.filter(({ turn }) => turn === witness.answer().dataset.turn)")
            .await;
        serde_json::from_value(shown).unwrap()
    }

    /// Asserts that the words of the last answer can be read, all of them and in their order, as far as they are letters: what
    /// else there is may be Markdown's.
    pub async fn reads_whole(&self) {
        let letters = |text: &str| {
            text.chars()
                .filter(|c| c.is_alphabetic())
                .collect::<String>()
        };
        let read = self
            .string("witness.answer().querySelector('[data-role=\"text\"]').textContent")
            .await;
        assert_eq!(letters(&read), letters(&self.text().await));
    }

    /// Which banners there were, one after the other; an empty one is none.
    pub async fn banners(&self) -> Vec<String> {
        serde_json::from_value(self.eval("witness.banners.map(({ mode }) => mode)").await).unwrap()
    }

    /// The name of the conversation.
    pub async fn conversation(&self) -> String {
        self.string("witness.frame('welcome').conversation").await
    }

    /// Asserts that nothing went wrong in the page.
    pub async fn is_untroubled(&self) {
        assert_eq!(self.eval("witness.trouble").await, json!([]));
    }

    /// Takes the size of a screen, as wide as this in CSS pixels; `phone`: one that is touched.
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

    /// Prefers this colour scheme, `light` or `dark`.
    pub async fn prefer(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.cdp(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        )
        .await;
    }
}

/// How often text was taken away. Each time it went into a draft, else the reader has lost it; and it is never hidden meanwhile.
pub fn restarts(shown: &[Shown]) -> usize {
    assert!(
        !shown.iter().any(|one| one.blank),
        "text was there and not to be seen: {shown:#?}"
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

//! The pages as a visitor's browser shows them, Chromium, against the service as its users start it.
//!
//! Nothing is mocked in between: a test writes into the page, breaks a provider, the line or the process, and looks at what
//! stands there. What happened on the way is told by a witness that runs beside the page.

mod answer;
mod chrome;
mod comeback;
mod faults;
mod hostile;
mod line;
mod lines;
mod looks;
mod outage;
mod pictures;
mod site;
mod status;
mod tab;
mod writing;

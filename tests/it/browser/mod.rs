//! The pages as a visitor's browser shows them, Chromium, against the service as its users start it.
//!
//! Nothing is mocked in between: a test writes into the page, breaks a provider, the line or the process, and looks at what
//! stands there. What happened on the way is told by a witness that runs beside the page.

mod access;
mod answer;
mod chrome;
mod comeback;
mod effort;
mod faults;
mod hooks;
mod host;
mod hostile;
mod line;
mod lines;
mod looks;
mod outage;
mod pace;
mod pictures;
mod reading;
mod site;
mod sizes;
mod status;
mod tab;
mod taking;
mod unscripted;
mod visitors;
mod widget;
mod widget_calls;
mod writing;

//! The pages as a visitor's browser shows them, Chromium, against the service as its users start it.
//!
//! Nothing is mocked in between: a test writes into the page, breaks a provider, the line or the process, and looks at what
//! stands there. What happened on the way is told by a witness that runs beside the page.

mod access;
mod chrome;
mod composer;
mod connection_loss;
mod copy_export;
mod cutting_proxy;
mod data_roles;
mod faults;
mod layout;
mod load;
mod long_tasks;
mod no_javascript;
mod outage;
mod page_driver;
mod resume;
mod screenshots;
mod scrolling;
mod sizes;
mod status;
mod streaming;
mod test_site;
mod third_party_site;
mod visitor_tokens;
mod widget;
mod widget_calls;
mod xss;

//! Tests of the pages in Chromium, against the service binary as users start it.
//!
//! Nothing is mocked in between. A test types into the page, breaks a provider, the connection or
//! the process, and checks what the page shows. `mutation_recorder.js` records all changes
//! meanwhile.

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

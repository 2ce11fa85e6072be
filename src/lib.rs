//! Failsoft.

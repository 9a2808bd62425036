//! TODO audit

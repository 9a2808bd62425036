//! TODO sim

//! TODO frontend

//! A real cluster to break on purpose.

//! The pure heart of pgsteer.

//! `[http]`: the status pages.

use pgsteer_core::settings::HttpConfig;

use crate::key::{Command, Flag, Key, SectionKeys};
use crate::kinds::ListenOrNone;
use crate::limits::HTTP_LISTEN;
use crate::written::Draft;

/// The section.
pub static KEYS: SectionKeys = SectionKeys {
    name: SECTION,
    help: "Status pages, metrics and health checks by HTTP.",
    keys: &[&LISTEN],
    at_restart: true,
};

const SECTION: &str = "http";

/// The address of the pages.
pub static LISTEN: Key<ListenOrNone> =
    Key::new(SECTION, "listen", ListenOrNone { usual: HTTP_LISTEN })
        .example("\"0.0.0.0:7000\"")
        .help("Where status, health and metrics are; false for none. `pgsteer agent` has none unless it is set.")
        .flags(&[
            Flag::new(Command::Run, "--http", "ADDR").help(
                "Where status, health and metrics are, or `none` [default: 0.0.0.0:7000]",
            ),
            Flag::new(Command::Agent, "--http", "ADDR")
                .help("Where status, health and metrics are [default: none]"),
        ]);

/// Returns the settings of the section; none if it is disabled.
pub fn finish(draft: &Draft) -> Option<HttpConfig> {
    draft.get(&LISTEN).or(Some(HTTP_LISTEN)).map(|listen| HttpConfig { listen })
}

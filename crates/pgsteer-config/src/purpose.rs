//! Purposes: the command that needs the configuration.

/// The command that needs a configuration, on which some remedies depend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// The proxy.
    #[default]
    Run,
    /// The agent alone, which opens no port of a service.
    Answer,
    /// Rendering of files.
    Render,
}

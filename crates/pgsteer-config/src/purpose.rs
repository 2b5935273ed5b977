//! Purposes: which command wants the configuration.

/// What a configuration is wanted for, which makes a difference to what would be right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// To be the front door.
    #[default]
    Run,
    /// To answer as the agent alone, which opens no port of a service.
    Answer,
    /// To write files.
    Render,
}

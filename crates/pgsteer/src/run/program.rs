//! The program of this process, to start it again.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

/// A program and its arguments.
#[derive(Clone, Debug)]
pub struct Program {
    /// The file; none if the system does not know it.
    pub file: Option<PathBuf>,
    /// The arguments, without the name of the program.
    pub arguments: Vec<OsString>,
}

impl Program {
    /// The program as this process was started. Called at the start: a package that replaces the file
    /// later changes what the system reports about the running process.
    pub fn of_this_process() -> Program {
        let mut arguments = env::args_os();
        let name = arguments.next().map(PathBuf::from).unwrap_or_default();
        // A path keeps its symbolic links, so that an upgrade can point them to another file.
        let file = match name.components().count() {
            0 | 1 => env::current_exe().ok(),
            _ => std::path::absolute(name).ok(),
        };
        Program { file, arguments: arguments.collect() }
    }

    /// The same with another file, if there is one.
    pub fn with_file(&self, file: Option<PathBuf>) -> Program {
        Program { file: file.or_else(|| self.file.clone()), arguments: self.arguments.clone() }
    }
}

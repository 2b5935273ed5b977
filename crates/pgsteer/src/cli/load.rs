//! Reads the configuration file: the only IO of the configuration.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use pgsteer_config::error::ConfigErrors;
use pgsteer_config::limits::FILE_BYTES_MAX;
use pgsteer_config::problem::Problem;
use pgsteer_core::settings::Config;

use super::flags::{ConfigFile, agent_config, config, render_config};
use super::keys::KeyFlags;
use super::{AgentArgs, RenderArgs, RunArgs};

/// The file that is read if no other file is named.
pub const CONFIG_FILE: &str = "/etc/pgsteer/pgsteer.toml";

/// Returns the file that these flags require, if any: the named file, or [`CONFIG_FILE`] if it
/// exists and the flags do not define the source of the members.
fn config_source(args: &RunArgs) -> Option<PathBuf> {
    // If the existence cannot be checked, opening the file will return the reason.
    source(args, |path| path.try_exists().unwrap_or(true))
}

fn source(args: &RunArgs, exists: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    if args.config.is_some() {
        return args.config.clone();
    }
    let file = PathBuf::from(CONFIG_FILE);
    let complete = !args.keys.texts("--patroni").is_empty() || !args.member.is_empty();
    (!complete && exists(&file)).then_some(file)
}

/// Reads the file that the flags require and merges both. Used at the start and after a SIGHUP.
///
/// # Errors
/// All errors in flags and file, and a file that cannot be read.
pub fn load(args: &RunArgs) -> Result<Config, ConfigErrors> {
    let file = config_source(args)
        .map(|path| ConfigFile { name: path.display().to_string(), text: read(&path) });
    config(args, file.as_ref())
}

/// Same as [`load`], for `pgsteer agent`. Without a Patroni host the file is read.
///
/// # Errors
/// All errors in flags and file, and a file that cannot be read.
pub fn load_agent(args: &AgentArgs) -> Result<Config, ConfigErrors> {
    let usual = || (args.patroni_host.is_none()).then(|| PathBuf::from(CONFIG_FILE));
    let path = args
        .config
        .clone()
        .or_else(usual)
        .filter(|path| args.config.is_some() || path.try_exists().unwrap_or(true));
    let file = path.map(|path| ConfigFile { name: path.display().to_string(), text: read(&path) });
    agent_config(args, file.as_ref())
}

/// Same as [`load`], for `pgsteer render`.
///
/// # Errors
/// All errors in flags and file, and a file that cannot be read.
pub fn load_render(args: &RenderArgs) -> Result<Config, ConfigErrors> {
    let run = RunArgs {
        config: args.config.clone(),
        keys: KeyFlags::default().with("--patroni", args.patroni.clone()),
        member: args.member.clone(),
        ..RunArgs::default()
    };
    let file = config_source(&run)
        .map(|path| ConfigFile { name: path.display().to_string(), text: read(&path) });
    render_config(args, file.as_ref())
}

fn read(path: &Path) -> Result<String, Problem> {
    let bytes = read_bytes(path).map_err(|err| match err.kind() {
        io::ErrorKind::IsADirectory => Problem::Directory,
        _ => Problem::Unreadable(err.to_string()),
    })?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(Problem::TooLarge);
    }
    String::from_utf8(bytes).map_err(|err| {
        let text = &err.as_bytes()[..err.utf8_error().valid_up_to()];
        Problem::NoText { line: text.iter().filter(|byte| **byte == b'\n').count() + 1 }
    })
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    // One byte more than the limit shows that the file is too large.
    let bytes_max = FILE_BYTES_MAX as u64 + 1;
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(config: Option<&str>, patroni: &[&str]) -> RunArgs {
        RunArgs {
            config: config.map(PathBuf::from),
            keys: KeyFlags::default()
                .with("--patroni", patroni.iter().map(|url| (*url).to_owned())),
            ..RunArgs::default()
        }
    }

    #[test]
    fn the_named_file_is_read_even_if_it_is_not_there() {
        let args = args(Some("a.toml"), &["http://pg1"]);
        assert_eq!(source(&args, |_| false), Some(PathBuf::from("a.toml")));
    }

    #[test]
    fn the_usual_file_is_read_if_it_is_there_and_the_flags_name_no_member() {
        let bare = args(None, &[]);
        assert_eq!(source(&bare, |_| true), Some(PathBuf::from(CONFIG_FILE)));
        assert_eq!(source(&bare, |_| false), None);
        assert_eq!(source(&args(None, &["http://pg1"]), |_| true), None);
    }

    #[test]
    fn a_file_that_is_not_text_and_an_unreadable_file_have_different_errors() {
        let folder = std::env::temp_dir();
        assert_eq!(read(&folder), Err(Problem::Directory));
        let file = folder.join(format!("pgsteer-no-text-{}.toml", std::process::id()));
        std::fs::write(&file, b"[patroni]\n\x7fELF\xff").unwrap();
        assert_eq!(read(&file), Err(Problem::NoText { line: 2 }));
        std::fs::write(&file, "").unwrap();
        let errors = load(&args(file.to_str(), &[])).unwrap_err().to_string();
        assert!(errors.contains(&format!("urls in {})", file.display())), "{errors}");
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_read_is_reported_with_the_errors_of_the_flags() {
        let mut args = args(Some("/nonexistent/pgsteer.toml"), &[]);
        args.hold = Some("long".to_owned());
        insta::assert_snapshot!(load(&args).unwrap_err(), @"
    /nonexistent/pgsteer.toml: cannot read the file: No such file or directory (os error 2)
        help: check the path and that pgsteer's user may read it
    --hold: expects a number of seconds, found `long`
        help: a bare number from 0 to 3600 seconds
    ");
    }
}

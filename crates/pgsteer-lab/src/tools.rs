//! Finds the programs that a lab runs.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::options::PatroniVersion;

const POSTGRES_ROOT: &str = "/usr/lib/postgresql";
/// Older servers do not report `in_hot_standby`, which the lab's own observer needs.
const POSTGRES_MAJOR_MIN: u32 = 14;
const SYSTEM_PATH: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The API that Patroni uses with etcd.
///
/// Patroni 3.0.2 overwrites the leader key without a comparison in the v3 API. So an old primary
/// that was frozen or cut off often takes the lock back from its successor, whose writes are then
/// lost. In the v2 API it compares first. Patroni 4 compares in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EtcdApi {
    V2,
    V3,
}

/// The programs of one lab. Each one was found.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The folder of `postgres`, `pg_rewind`, `psql` and `pgbench`.
    pub postgres_bin: PathBuf,
    pub patroni: PathBuf,
    /// The Python of the newer Patroni, if it is installed.
    pub venv_python: Option<PathBuf>,
    pub etcd: PathBuf,
    pub etcd_api: EtcdApi,
    pub pgbouncer: PathBuf,
}

impl Tools {
    /// Searches for all programs first, so that one message names all that are missing.
    pub fn find(version: PatroniVersion) -> Result<Self> {
        let mut missing = Vec::new();
        let mut take = |name: &str, found: Option<PathBuf>| {
            found.unwrap_or_else(|| {
                missing.push(name.to_owned());
                PathBuf::new()
            })
        };
        let tools = Self {
            postgres_bin: take("PostgreSQL 14 or later", newest_postgres_bin()),
            patroni: match version {
                PatroniVersion::Debian => take("patroni", which("patroni")),
                PatroniVersion::Pip => take("Patroni's Python environment", patroni_of_venv()),
            },
            venv_python: patroni_of_venv().map(|patroni| patroni.with_file_name("python")),
            etcd: take("etcd", which("etcd")),
            etcd_api: match version {
                PatroniVersion::Debian if !debians_patroni_compares() => EtcdApi::V2,
                PatroniVersion::Debian | PatroniVersion::Pip => EtcdApi::V3,
            },
            pgbouncer: take("pgbouncer", which("pgbouncer")),
        };
        for tool in ["ip", "setpriv", "nsenter", "ipcrm"] {
            take(tool, which(tool));
        }
        if !missing.is_empty() {
            bail!("the lab needs {}; run scripts/install-lab.sh", missing.join(", "));
        }
        Ok(tools)
    }
}

/// The path of a system program. The caller's PATH is not used, because the user that runs the
/// lab's processes may lack access to its folders.
pub fn which(name: &str) -> Option<PathBuf> {
    SYSTEM_PATH.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// The PATH of the lab's processes.
pub fn system_path() -> String {
    SYSTEM_PATH.join(":")
}

/// Reads the version from its file, because running Patroni takes half a second.
fn debians_patroni_compares() -> bool {
    let text = std::fs::read_to_string("/usr/lib/python3/dist-packages/patroni/version.py");
    major_in_version_file(&text.unwrap_or_default()).is_some_and(|major| major >= 4)
}

fn major_in_version_file(text: &str) -> Option<u32> {
    let (_, version) = text.split_once("__version__")?;
    let digits = version.trim_start_matches([' ', '=', '\'', '"']);
    digits.split('.').next()?.parse().ok()
}

fn newest_postgres_bin() -> Option<PathBuf> {
    let majors = std::fs::read_dir(POSTGRES_ROOT).ok()?;
    majors
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|major| *major >= POSTGRES_MAJOR_MIN)
        .map(|major| (major, Path::new(POSTGRES_ROOT).join(major.to_string())))
        .map(|(major, folder)| (major, folder.join("bin")))
        .filter(|(_, bin)| bin.join("postgres").is_file() && bin.join("pg_rewind").is_file())
        .max_by_key(|(major, _)| *major)
        .map(|(_, bin)| bin)
}

/// The two folders that `scripts/install-lab.sh` installs to.
fn patroni_of_venv() -> Option<PathBuf> {
    let cache = if rustix::process::geteuid().is_root() {
        PathBuf::from("/var/cache")
    } else if let Some(cache) = std::env::var_os("XDG_CACHE_HOME") {
        PathBuf::from(cache)
    } else {
        Path::new(&std::env::var_os("HOME")?).join(".cache")
    };
    let patroni = cache.join("pgsteer-lab/venv/bin/patroni");
    patroni.is_file().then_some(patroni)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_patronis_file() {
        let major = |text| major_in_version_file(text);
        assert_eq!(major("\"\"\"Words.\"\"\"\n__version__ = '3.0.2'\n"), Some(3));
        assert_eq!(major("__version__ = '4.1.5'"), Some(4));
        assert_eq!(major(""), None);
    }
}

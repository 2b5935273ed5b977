//! The connection strings of `pgsteer render clients`, unchanged, in the clients that they are for:
//! with an address without a listener before the right one, and with a single address.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use pgsteer_lab::{APP, Lab};

use crate::binary;
use crate::clients::{python_of_venv, run};
use crate::installed::installed;
use crate::steer::{Steer, Wanted, file_of};

const QUESTION: &str = "SELECT pg_is_in_recovery()";
/// The path of the JDBC driver in Debian's package.
const JDBC: &str = "/usr/share/java/postgresql.jar";

/// The services, with a member's answer to [`QUESTION`].
const SERVICES: [(&str, bool); 2] = [("write", false), ("read", true)];

pub fn rendered_client_strings_connect_unchanged(lab: &Lab) -> Result<()> {
    let _steer = Steer::start(lab, &Wanted::default())?;
    let dead = lab.members().first().context("the lab has no member")?.ip;
    let door = lab.host_ip();
    each_client_reads(lab, &page(lab, &[dead, door])?)?;
    each_client_reads(lab, &page(lab, &[door])?)
}

fn each_client_reads(lab: &Lab, page: &str) -> Result<()> {
    for (service, is_standby) in SERVICES {
        let of = |title: &str| snippet(page, service, title);
        let (psql, psycopg, sqlalchemy, node) =
            (of("libpq")?, of("psycopg 3")?, of("SQLAlchemy")?, of("Node, pg")?);
        let word = if is_standby { "t" } else { "f" };
        ensure!(run(&mut by_psql(lab, &psql))? == word, "psql: {psql}");
        let word = if is_standby { "True" } else { "False" };
        ensure!(run(&mut by_psycopg(&psycopg)?)? == word, "psycopg: {psycopg}");
        ensure!(run(&mut by_sqlalchemy(&sqlalchemy)?)? == word, "SQLAlchemy: {sqlalchemy}");
        ensure!(run(&mut by_node(&node)?)? == is_standby.to_string(), "node-postgres: {node}");
    }
    if !Path::new(JDBC).is_file() {
        println!("the JDBC driver is not installed, so JDBC is not tested");
        return Ok(());
    }
    let urls = SERVICES.map(|(service, _)| snippet(page, service, "JDBC"));
    let [write, read] = urls.map(|url| url.map(|url| url.trim().to_owned()));
    ensure!(run(&mut by_jdbc(&[&write?, &read?]))? == "f t", "JDBC");
    Ok(())
}

/// The rendered page for these addresses.
fn page(lab: &Lab, doors: &[Ipv4Addr]) -> Result<String> {
    let output = Command::new(binary::pgsteer()?)
        .args(["render", "clients", "--config"])
        .arg(file_of(lab, Wanted::default().name))
        .args(doors.iter().flat_map(|door| ["--door".to_owned(), door.to_string()]))
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// The lines of code below a title, in the part of a service.
fn snippet(page: &str, service: &str, title: &str) -> Result<String> {
    let (_, part) = page.split_once(&format!("## {service}: ")).context("no such service")?;
    let (_, below) = part.split_once(&format!("**{title}")).context("no such title")?;
    let lines = below.lines().skip(1);
    let code = lines.skip_while(|line| line.is_empty());
    let code: Vec<&str> = code.map_while(|line| line.strip_prefix("    ")).collect();
    ensure!(!code.is_empty(), "no code below {title}");
    Ok(code.join("\n"))
}

fn by_psql(lab: &Lab, uri: &str) -> Command {
    let mut command = bare(lab.postgres_bin().join("psql"));
    command.args(["-XAtqc", QUESTION, uri.trim()]);
    command
}

fn by_psycopg(code: &str) -> Result<Command> {
    let mut command = bare(python_of_venv()?);
    let ask = format!("print(connection.execute('{QUESTION}').fetchone()[0])");
    command.args(["-c", &format!("{code}\n{ask}")]);
    Ok(command)
}

fn by_sqlalchemy(code: &str) -> Result<Command> {
    let mut command = bare(python_of_venv()?);
    let ask = format!("print(engine.connect().scalar(text('{QUESTION}')))");
    command.env("PYTHONPATH", installed("clients/python")?);
    command.args(["-c", &format!("from sqlalchemy import create_engine, text\n{code}\n{ask}")]);
    Ok(command)
}

fn by_node(code: &str) -> Result<Command> {
    let mut command = bare("node");
    let ask = format!(
        "connect().then(async (client) => {{\n  const answer = await client.query('{QUESTION}');\n  \
         console.log(answer.rows[0].pg_is_in_recovery);\n  await client.end();\n}});"
    );
    command.env("NODE_PATH", installed("clients/node/node_modules")?);
    command.args(["-e", &format!("{code}\n{ask}")]);
    Ok(command)
}

fn by_jdbc(urls: &[&str]) -> Command {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/clients/Ask.java");
    let mut command = bare("java");
    command.args(["-cp", JDBC]).arg(program).args(urls);
    command
}

/// A command with the password in the environment, as in the page, and no other PG* variable.
fn bare(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command.env("PGPASSWORD", APP);
    command
}

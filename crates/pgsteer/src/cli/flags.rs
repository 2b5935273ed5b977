//! Flags on top of the file: merges both into one configuration.
//!
//! Everything here is pure. The caller reads the file, and can merge again after a SIGHUP.

use std::net::IpAddr;

use pgsteer_config::conflict::Conflict;
use pgsteer_config::error::ConfigErrors;
use pgsteer_config::field::{Field, Given, Raw};
use pgsteer_config::lag::{LagLimit, lag};
use pgsteer_config::origin::Origin;
use pgsteer_config::problem::{Problem, Shown};
use pgsteer_config::purpose::Purpose;
use pgsteer_config::sections::{agent, control, etcd, http, members, patroni, services};
use pgsteer_config::written::{Draft, Section};
use pgsteer_config::{address, file};
use pgsteer_core::claim::{Found, Role};
use pgsteer_core::names::{Endpoint, MemberName, ServiceName};
use pgsteer_core::settings::{Config, Vocabulary};
use pgsteer_core::units::seconds_text;

use super::keys::KeyFlags;
use super::{AgentArgs, RenderArgs, RunArgs};

/// The configuration file, as far as it could be read.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    /// Its name in errors.
    pub name: String,
    /// Its text, or the reason why it could not be read.
    pub text: Result<String, Problem>,
}

/// Merges the flags with the file, if there is one. Flags win.
///
/// # Errors
/// All errors in the flags, in the file, and between the two.
pub fn config(args: &RunArgs, file: Option<&ConfigFile>) -> Result<Config, ConfigErrors> {
    let (mut draft, mut errors) = file.map_or_else(Default::default, written);
    put_on_top(args, &mut draft, &mut errors);
    draft.finish(errors)
}

/// Merges the flags of `pgsteer agent` with the file, if there is one. Flags win.
///
/// # Errors
/// All errors in the flags, in the file, and between the two.
pub fn agent_config(args: &AgentArgs, file: Option<&ConfigFile>) -> Result<Config, ConfigErrors> {
    let (mut draft, mut errors) = file.map_or_else(Default::default, written);
    draft.purpose = Purpose::Answer;
    // HAProxy often has its own page on port 7000, so the agent has pages only if they are
    // configured.
    if draft.get(&http::LISTEN).is_absent() {
        let origin = Origin::Default("http.listen".to_owned());
        draft.put(&http::LISTEN, Raw::Boolean(false), origin, &mut errors);
    }
    // A pgsteer on the same machine has the usual control socket.
    if draft.get(&control::SOCKET).is_absent() && args.keys.texts("--control-socket").is_empty() {
        let origin = Origin::Default("control.socket".to_owned());
        draft.put(&control::SOCKET, Raw::Text(String::new()), origin, &mut errors);
    }
    let local_url = put_patroni(args, &mut draft, &mut errors);
    draft.section_mut(agent::SECTION, Origin::Flag("agent"));
    if let Some(port) = &args.port {
        match address::listen(port) {
            Ok(_) => draft.put(&agent::LISTEN, Raw::Flag(port.clone()), PORT, &mut errors),
            Err(problem) => errors.push(PORT, problem),
        }
    }
    args.keys.put(&mut draft, &mut errors);
    let is_happac = args.is_happac || args.patroni_host.is_some();
    if is_happac && draft.get(&agent::VOCABULARY).is_absent() {
        // happac's name or flags: scripts that were written for happac search its answer for `up`.
        let bare = Raw::Flag(Vocabulary::Bare.as_str().to_owned());
        draft.put(&agent::VOCABULARY, bare, HOST, &mut errors);
    }
    let has_line_wait = !draft.get(&agent::LINE_WAIT).is_absent();
    let mut config = draft.finish(errors)?;
    config.cluster.here.patroni_url = local_url;
    if let Some(agent) = &mut config.agent {
        agent.awaits_first_line = !is_happac || has_line_wait;
    }
    Ok(config)
}

/// Merges the flags of `pgsteer render` with the file, if there is one. Flags win. Members that are
/// listed with the port of their Patroni form a cluster with Patroni whose addresses are known.
///
/// # Errors
/// All errors in the flags, in the file, and between the two.
pub fn render_config(args: &RenderArgs, file: Option<&ConfigFile>) -> Result<Config, ConfigErrors> {
    let (mut draft, mut errors) = file.map_or_else(Default::default, written);
    draft.purpose = Purpose::Render;
    let mut urls = args.patroni.clone();
    let mut listed = args.member.clone();
    if let (Some(port), true) = (args.patroni_port, urls.is_empty()) {
        let members = members(&listed, &mut errors).unwrap_or_default();
        let members = members.iter().filter_map(|(_, member)| {
            member.value.get(&members::POSTGRES).value().map(|at| at.with_port(port))
        });
        urls = members.map(|at| format!("http://{at}")).collect();
        listed = Vec::new();
    }
    let keys = KeyFlags::default()
        .with("--patroni", urls)
        .with("--local", args.local.clone())
        .with("--check-user", args.check_user.clone())
        .with("--check-dbname", args.check_dbname.clone());
    put_on_top(&RunArgs { keys, member: listed, ..RunArgs::default() }, &mut draft, &mut errors);
    draft.finish(errors)
}

/// Parses the members that these flags list.
///
/// # Errors
/// A text that is not a member.
pub fn listed(texts: &[String]) -> Result<Vec<Found>, Problem> {
    let members = texts.iter().map(|text| {
        let (name, postgres) = member(text)?;
        Ok(Found { name, postgres, patroni_url: None })
    });
    members.collect()
}

// happac also reads this from the environment.
const HOST: Origin = Origin::FlagOrVariable("--patroni-host", "PATRONI_HOST");
const PORT_OF_PATRONI: Origin = Origin::FlagOrVariable("--patroni-port", "PATRONI_API_PORT");
const PORT: Origin = Origin::FlagOrVariable("--port", "AGENT_PORT");

/// Adds the one Patroni of happac's flags. Returns its address in the form of the members'
/// addresses.
fn put_patroni(args: &AgentArgs, draft: &mut Draft, errors: &mut ConfigErrors) -> Option<String> {
    let host = args.patroni_host.as_deref()?;
    let scheme = if host.contains("://") { "" } else { "http://" };
    let host = match host.parse() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => host.to_owned(),
    };
    let port = args.patroni_port.as_deref().map(address::port).transpose();
    let port = port.map_err(|problem| errors.push(PORT_OF_PATRONI, problem)).ok().flatten();
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let url = format!("{scheme}{host}{port}");
    let listed = Raw::List(vec![Given { value: Raw::Flag(url.clone()), origin: HOST }]);
    draft.put(&patroni::URLS, listed, HOST, errors);
    address::patroni_url(&url).ok()
}

fn written(file: &ConfigFile) -> (Draft, ConfigErrors) {
    match &file.text {
        Ok(text) => file::read(text, &file.name),
        Err(problem) => {
            let mut errors = ConfigErrors::default();
            errors.push(Origin::Document(file.name.as_str().into()), problem.clone());
            (Draft::default(), errors)
        }
    }
}

fn put_on_top(args: &RunArgs, draft: &mut Draft, errors: &mut ConfigErrors) {
    put_members(args, draft, errors);
    args.keys.put(draft, errors);
    put_service("write", "--write", args.write.as_deref(), draft, errors);
    put_service("read", "--read", args.read.as_deref(), draft, errors);
    put_hold(args, draft, errors);
    put_max_lag(args, draft, errors);
}

/// Adds the source of the members. Either flag replaces the source in the file.
fn put_members(args: &RunArgs, draft: &mut Draft, errors: &mut ConfigErrors) {
    let has_patroni = !args.keys.texts("--patroni").is_empty();
    if has_patroni {
        draft.members = Field::default();
    }
    if !args.member.is_empty() {
        if !has_patroni {
            draft.forget(patroni::SECTION);
            draft.forget(etcd::SECTION);
        }
        let members = members(&args.member, errors);
        draft.members = members
            .map_or_else(Field::wrong, |members| Field::new(members, Origin::Flag("--member")));
    }
}

/// Returns the members of the flags; none if one of them is invalid.
fn members(
    texts: &[String],
    errors: &mut ConfigErrors,
) -> Option<Vec<(MemberName, Given<Section>)>> {
    let origin = Origin::Flag("--member");
    let mut members = Vec::new();
    for text in texts {
        match member(text) {
            Ok((name, postgres)) => {
                let mut value = Section::default();
                let raw = Raw::Flag(postgres.to_string());
                value.put(&members::POSTGRES, raw, origin.clone(), errors);
                members.push((name, Given { value, origin: origin.clone() }));
            }
            Err(problem) => errors.push(origin.clone(), problem),
        }
    }
    (members.len() == texts.len()).then_some(members)
}

fn member(text: &str) -> Result<(MemberName, Endpoint), Problem> {
    let Some((name, address)) = text.split_once('=') else {
        return Err(Problem::Member(Shown::of(text)));
    };
    Ok((MemberName::new(name)?, address::postgres(address)?))
}

/// Changes the address of the service with that name, or adds the service to those of the file.
fn put_service(
    name: &str,
    flag: &'static str,
    listen: Option<&str>,
    draft: &mut Draft,
    errors: &mut ConfigErrors,
) {
    let (Some(listen), Ok(name)) = (listen, ServiceName::new(name)) else {
        return;
    };
    let origin = Origin::Flag(flag);
    let empty = Given { value: Section::default(), origin: origin.clone() };
    let service = draft.services_mut().entry(name).or_insert(empty);
    service.value.put(&services::LISTEN, Raw::Flag(listen.to_owned()), origin, errors);
}

fn put_hold(args: &RunArgs, draft: &mut Draft, errors: &mut ConfigErrors) {
    let Some(hold) = &args.hold else {
        return;
    };
    let origin = Origin::Flag("--hold");
    // An error in the section is reported once, however many services there are.
    let mut once = Section::default();
    once.put(&services::HOLD, Raw::Flag(hold.clone()), origin.clone(), errors);
    for service in draft.services_mut().values_mut() {
        let raw = Raw::Flag(hold.clone());
        service.value.put(&services::HOLD, raw, origin.clone(), &mut ConfigErrors::default());
    }
}

fn put_max_lag(args: &RunArgs, draft: &mut Draft, errors: &mut ConfigErrors) {
    let Some(text) = &args.max_lag else {
        return;
    };
    let origin = Origin::Flag("--max-lag");
    let lag = match lag(text) {
        Ok(lag) => lag,
        Err(problem) => return errors.push(origin, problem),
    };
    let mut found = false;
    for service in replica_services(draft) {
        found = true;
        match lag {
            LagLimit::Bytes(bytes) => {
                let raw = Raw::Whole(bytes.to_string());
                service.put(&services::LAG_BYTES, raw, origin.clone(), errors);
            }
            LagLimit::Time(time) => {
                let raw = Raw::Fraction(seconds_text(time));
                service.put(&services::LAG, raw, origin.clone(), errors);
            }
        }
    }
    // Another error may be the reason why the service was not found.
    if !found && errors.is_empty() {
        errors.push(origin, Conflict::NoReplicaService);
    }
}

fn replica_services(draft: &mut Draft) -> impl Iterator<Item = &mut Section> {
    draft
        .services_mut()
        .iter_mut()
        .filter(|(name, it)| services::role_meant(name, &it.value) == Some(Role::Replica))
        .map(|(_, service)| &mut service.value)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use pgsteer_config::summary::{AgentSummary, Summary};

    use super::*;
    use crate::cli::{Cli, Command};

    /// Parses the arguments of `pgsteer run` with clap.
    fn args(line: &str) -> RunArgs {
        let words = ["pgsteer", "run"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).unwrap().command {
            Command::Run(args) => *args,
            _ => unreachable!(),
        }
    }

    fn merged(line: &str, file: &str) -> Result<Config, ConfigErrors> {
        let file = ConfigFile { name: "pgsteer.toml".to_owned(), text: Ok(file.to_owned()) };
        config(&args(line), Some(&file))
    }

    fn meant(line: &str, file: &str) -> String {
        Summary(&merged(line, file).unwrap()).to_string()
    }

    fn wrong(line: &str, file: &str) -> String {
        merged(line, file).unwrap_err().to_string()
    }

    const FILE: &str = r#"
        [patroni]
        urls = ["http://10.0.0.11:8008"]
        ca_file = "/etc/ca.pem"
        [services.rw]
        listen = "127.0.0.1:6000"
        role = "primary"
        [services.read]
        hold_seconds = 5
        lag_bytes_max = "1MB"
    "#;

    #[test]
    fn patroni_alone_is_enough() {
        let config = config(&args("--patroni http://10.0.0.11:8008"), None).unwrap();
        insta::assert_snapshot!(Summary(&config), @"
    cluster main: members from Patroni at http://10.0.0.11:8008
    no check login: roles come from Patroni alone
    write on 0.0.0.0:5000 → primary, hold 30 s
    read on 0.0.0.0:5001 → replica, hold 10 s
    status pages on http://0.0.0.0:7000
    at most 10000 sessions on one worker per core
    ");
    }

    #[test]
    fn the_identity_is_set_by_flags_and_by_the_file_and_flags_win() {
        let first = |text: String| text.lines().take(3).collect::<Vec<_>>().join("\n");
        let file = "[patroni]\nurls = ['http://a']\nscope = 'a'\nsystem_identifier = '1'\n\
                    [cluster]\nstate_directory = 'none'";
        insta::assert_snapshot!(first(meant("", file)), @"
        cluster main: members from Patroni at http://a:8008
        only the cluster of scope a, system identifier 1 is served
        the member list is not stored
        ");
        let line = "--scope b --group 0 --system-identifier 2 --state-directory /var/lib/x";
        insta::assert_snapshot!(first(meant(line, file)), @"
        cluster main: members from Patroni at http://a:8008
        only the cluster of scope b, group 0, system identifier 2 is served
        the member list is stored in /var/lib/x
        ");
        let agent = format!("-h 10.0.0.11 {line}");
        let meant = AgentSummary(&agent_merged(&agent, "").unwrap()).to_string();
        insta::assert_snapshot!(first(meant), @"
        cluster main: members from Patroni at http://10.0.0.11:8008
        only the cluster of scope b, group 0, system identifier 2 is served
        the member list is stored in /var/lib/x
        ");
        let line = "--scope= --group -1 --system-identifier x --state-directory=";
        insta::assert_snapshot!(wrong(line, file), @r#"
        --state-directory: not a path of a file: it is empty, too long or has a NUL
            help: 1 to 4096 bytes
        --scope: a name must not be empty
        --group: `-1` is out of range
            help: from 0 to 2147483647
        --system-identifier: `x` is not a system identifier
            help: a number as pg_controldata shows it, in quotes: system_identifier = "7710713066760545906"
        "#);
        insta::assert_snapshot!(wrong("--scope x --member n1=a --check-user b", ""), @r#"
        --member: members are listed, and Patroni is configured too (--scope)
            help: remove the list, because Patroni returns the members; list members only for a cluster without Patroni
        --scope: `urls` is missing
            help: as in urls = ["http://10.0.0.11:8008"]
        "#);
    }

    fn agent_merged(line: &str, file: &str) -> Result<Config, ConfigErrors> {
        let words = ["pgsteer", "agent"].into_iter().chain(line.split_whitespace());
        let Command::Agent(args) = Cli::try_parse_from(words).unwrap().command else {
            unreachable!()
        };
        let file = ConfigFile { name: "pgsteer.toml".to_owned(), text: Ok(file.to_owned()) };
        agent_config(&args, Some(&file))
    }

    fn agent_meant(line: &str, file: &str) -> String {
        AgentSummary(&agent_merged(line, file).unwrap()).to_string()
    }

    #[test]
    fn happacs_host_makes_the_answers_bare_unless_a_vocabulary_is_given() {
        let words = |line: &str, file: &str| {
            agent_merged(line, file).unwrap().agent.map(|agent| agent.vocabulary)
        };
        let file = "[patroni]\nurls = ['http://10.0.0.11:8008']\n";
        assert_eq!(words("-h 10.0.0.11", ""), Some(Vocabulary::Bare));
        assert_eq!(words("-h 10.0.0.11 --vocabulary health", ""), Some(Vocabulary::Health));
        assert_eq!(words("-h n1", "[agent]\nvocabulary = 'admin'\n"), Some(Vocabulary::Admin));
        assert_eq!(words("", file), Some(Vocabulary::Health));
    }

    #[test]
    fn with_happacs_host_the_first_line_is_not_awaited_unless_a_time_is_given() {
        let awaits = |line: &str, file: &str| {
            agent_merged(line, file).unwrap().agent.map(|agent| agent.awaits_first_line)
        };
        assert_eq!(awaits("-h 10.0.0.11", ""), Some(false));
        assert_eq!(awaits("-h 10.0.0.11 --line-wait 0.05", ""), Some(true));
        assert_eq!(awaits("-h n1", "[agent]\nline_wait_seconds = 0.2\n"), Some(true));
        assert_eq!(awaits("", "[patroni]\nurls = ['http://10.0.0.11:8008']\n"), Some(true));
    }

    #[test]
    fn an_error_names_both_the_flag_and_the_environment_variable() {
        let wrong = |line: &str| agent_merged(line, "").unwrap_err().to_string();
        insta::assert_snapshot!(wrong("-h a/b -o x -p x -r x --line-wait x"), @"
        --patroni-port or PATRONI_API_PORT: `x` is not a port
            help: a number from 1 to 65535
        --patroni-host or PATRONI_HOST: the URL has more than scheme, host and port (it is not shown)
            help: write http://a:8008; pgsteer adds Patroni's paths itself
        --port or AGENT_PORT: `x` is not an address to listen on
            help: write ADDRESS:PORT with an address of this machine, as 0.0.0.0:5000, 127.0.0.1:5000 or [::]:5000; a port alone means all IPv4 addresses
        --pgisready-port or PGISREADY_PORT: `x` is not a port
            help: a number from 1 to 65535
        --line-wait: expects a number of seconds, found `x`
            help: a bare number from 0 to 5 seconds; the default is 0.05
        ");
        assert!(wrong("-h a -k maybe").starts_with("--patroni-healthcheck or PATRONI_ENDPOINT: "));
    }

    #[test]
    fn an_agent_may_listen_where_a_proxy_would() {
        assert!(agent_merged("-h 10.0.0.11 -p 5000", "").is_ok());
        assert!(agent_merged("-h 10.0.0.11 -p 7000 --http 0.0.0.0:7000", "").is_err());
    }

    #[test]
    fn the_summary_of_an_agent_has_its_answers_and_no_service_listeners() {
        insta::assert_snapshot!(agent_meant("-h 10.0.0.11", ""), @"
        cluster main: members from Patroni at http://10.0.0.11:8008
        no check login: roles come from Patroni alone
        agent-checks on 0.0.0.0:5555, vocabulary bare
        check without a line: primary of the local member
        health check: as Patroni
        check of write: a primary
        check of read: a replica
        no status pages
        ");
        let line = "-h 10.0.0.11 -r 6432 -k replica?lag=16MB&tag_zone=a --http 0.0.0.0:7000";
        let file = "[agent]\nweight = 'sessions'\nmaxconn = 90\n[check]\nuser = 'pgcheck'\n\
                    [services.write]\n[services.read]\nlag_bytes_max = '1MB'\n";
        insta::assert_snapshot!(agent_meant(line, file), @"
        cluster main: members from Patroni at http://10.0.0.11:8008
        check login pgcheck to database postgres, no password, sslmode prefer
        agent-checks on 0.0.0.0:5555, vocabulary bare, weight by sessions, maxconn 90
        check without a line: replica?lag=16MB&tag_zone=a of the local member
        health check: as Patroni, through the pooler on port 6432
        check of write: a primary
        check of read: a replica, at most 1MB behind
        status pages on http://0.0.0.0:7000
        ");
    }

    fn not_rendered(line: &str) -> String {
        let words = ["pgsteer", "render", "haproxy"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).unwrap().command {
            Command::Render(args) => render_config(&args, None).unwrap_err().to_string(),
            _ => unreachable!(),
        }
    }

    #[test]
    fn errors_of_render_name_the_flags_of_render() {
        insta::assert_snapshot!(not_rendered(""), @"
        configuration: neither Patroni nor a list of members is configured
            help: as in pgsteer render haproxy --patroni http://10.0.0.11:8008, or --config FILE with [patroni] or [members]
        ");
        insta::assert_snapshot!(not_rendered("--member n1=pg1 --member n2=pg2"), @r#"
        --member: listed members are checked by SQL, and no check login is configured
            help: if each --member has a Patroni, add --patroni-port 8008; without Patroni add [check] with user = "pgcheck", or --check-user pgcheck
        "#);
    }

    #[test]
    fn without_members_the_error_shows_the_shortest_command() {
        let errors = config(&args(""), None).unwrap_err();
        insta::assert_snapshot!(errors, @"
    configuration: neither Patroni nor a list of members is configured
        help: the shortest that works is: pgsteer run --patroni http://10.0.0.11:8008, or pgsteer agent -h 10.0.0.11 (or [patroni] with urls in /etc/pgsteer/pgsteer.toml)
    ");
    }

    #[test]
    fn flags_and_file_give_the_same_configuration() {
        let flags = "--patroni http://pg1 --write 127.0.0.1:1 --read [::1]:2 --http none \
                     --check-user a --check-dbname b --check-password-file c --hold 7 --max-lag 8MB";
        let file = r#"
            [patroni]
            urls = ["http://pg1"]
            [check]
            user = "a"
            dbname = "b"
            password_file = "c"
            [services.write]
            listen = "127.0.0.1:1"
            hold_seconds = 7
            [services.read]
            listen = "[::1]:2"
            hold_seconds = 7
            lag_bytes_max = "8MB"
            [http]
            listen = false
        "#;
        assert_eq!(config(&args(flags), None), merged("", file));
    }

    #[test]
    fn listed_members_are_the_same_by_flag_and_by_file() {
        let flags = "--member a=10.0.0.1 --member b=10.0.0.2:6000 --check-user c";
        let file = r#"
            [members]
            a.postgres = "10.0.0.1"
            b.postgres = "10.0.0.2:6000"
            [check]
            user = "c"
        "#;
        assert_eq!(config(&args(flags), None), merged("", file));
    }

    #[test]
    fn flags_win_over_the_file() {
        let line = "--patroni http://pg9 --read 127.0.0.1:7001 --hold 0.5 --max-lag 10s \
                    --check-user pgcheck";
        insta::assert_snapshot!(meant(line, FILE), @"
    cluster main: members from Patroni at http://pg9:8008
    check login pgcheck to database postgres, no password, sslmode prefer
    rw on 127.0.0.1:6000 → primary, hold 0.5 s
    read on 127.0.0.1:7001 → replica, hold 0.5 s, at most 1MB behind, at most 10 s behind
    status pages on http://0.0.0.0:7000
    at most 10000 sessions on one worker per core
    ");
    }

    #[test]
    fn a_service_flag_adds_a_service_that_the_file_does_not_have() {
        insta::assert_snapshot!(meant("--write 127.0.0.1:7002", FILE), @"
    cluster main: members from Patroni at http://10.0.0.11:8008
    no check login: roles come from Patroni alone
    rw on 127.0.0.1:6000 → primary, hold 30 s
    write on 127.0.0.1:7002 → primary, hold 30 s
    read on 0.0.0.0:5001 → replica, hold 5 s, at most 1MB behind
    status pages on http://0.0.0.0:7000
    at most 10000 sessions on one worker per core
    ");
    }

    #[test]
    fn members_by_flag_replace_patroni_in_the_file() {
        let line = "--member a=10.0.0.1 --member b=10.0.0.2 --check-user pgcheck";
        insta::assert_snapshot!(meant(line, FILE), @"
    cluster main: no Patroni, members a at 10.0.0.1:5432, b at 10.0.0.2:5432
    check login pgcheck to database postgres, no password, sslmode prefer
    rw on 127.0.0.1:6000 → primary, hold 30 s
    read on 0.0.0.0:5001 → replica, hold 5 s, at most 1MB behind
    status pages on http://0.0.0.0:7000
    at most 10000 sessions on one worker per core
    ");
    }

    #[test]
    fn etcd_by_flag_goes_with_patroni_and_not_with_members() {
        let line = "--patroni http://pg1 --etcd http://pg1 --etcd http://pg2:1";
        insta::assert_snapshot!(meant(line, FILE), @"
        cluster main: members from Patroni at http://pg1:8008
        no check login: roles come from Patroni alone
        switchovers are watched in etcd at http://pg1:2379, http://pg2:1, keys below /service/ and the scope that Patroni reports
        rw on 127.0.0.1:6000 → primary, hold 30 s
        read on 0.0.0.0:5001 → replica, hold 5 s, at most 1MB behind
        status pages on http://0.0.0.0:7000
        at most 10000 sessions on one worker per core
        ");
        let line = "--member n1=pg1 --member n2=pg2 --check-user a --etcd pg1:2379";
        insta::assert_snapshot!(wrong(line, ""), @"
        --etcd: `pg1:2379` does not start with http:// or https://
            help: did you mean http://pg1:2379?
        --etcd: etcd needs Patroni, which writes the watched keys
            help: remove it
        ");
    }

    #[test]
    fn errors_of_file_and_flags_come_together() {
        let line = "--hold -1 --max-lag 16 --write 0.0.0.0:x --http host:1 --patroni pg1:8008 \
                    --check-dbname x";
        let file = "[services.write]\nhold = 3\n";
        insta::assert_snapshot!(wrong(line, file), @r#"
    pgsteer.toml:2:1: services.write.hold: there is no key `hold` in [services.write]
        help: did you mean `hold_seconds`?
    --patroni: `pg1:8008` does not start with http:// or https://
        help: did you mean http://pg1:8008?
    --http: `host:1` is not an address to listen on
        help: write ADDRESS:PORT with an address of this machine, as 0.0.0.0:5000, 127.0.0.1:5000 or [::]:5000; a port alone means all IPv4 addresses
    --write: `x` is not a port
        help: a number from 1 to 65535
    --hold: `-1` is out of range
        help: from 0 to 3600 seconds
    --max-lag: `16` is neither a size nor a time
        help: as 16MB (B, kB, MB, GB, TB) or 10s (ms, s, min, h, d)
    --check-dbname: `user` is missing
        help: as in user = "pgcheck", or --check-user pgcheck
    "#);
    }

    #[test]
    fn patroni_and_members_by_flag_exclude_each_other() {
        let line = "--patroni http://pg1 --member n1:5432 --member n2=pg2 --check-user a";
        insta::assert_snapshot!(wrong(line, ""), @"
    --member: `n1:5432` is not NAME=HOST:PORT
        help: as n1=10.0.0.11:5432
    ");
        let line = "--patroni http://pg1 --member n1=pg1 --member n1=pg1 --check-user a";
        insta::assert_snapshot!(wrong(line, ""), @"
    --member: members are listed, and Patroni is configured too (--patroni)
        help: remove the list, because Patroni returns the members; list members only for a cluster without Patroni
    --member: n1 is already given: --member
        help: remove one of them
    --member: pg1:5432 is already given: --member
        help: remove one of them
    ");
    }

    #[test]
    fn a_lag_limit_needs_a_service_that_reads() {
        let file = "[patroni]\nurls = ['http://pg1']\n[services.write]\n";
        insta::assert_snapshot!(wrong("--max-lag 16MB", file), @"
    --max-lag: no service has role replica
        help: remove it, or add a read service
    ");
    }

    #[test]
    fn a_lag_limit_in_time_needs_a_check_login_by_flag_or_file() {
        let patroni = "[patroni]\nurls = ['http://pg1']\n";
        insta::assert_snapshot!(wrong("--max-lag 10s", patroni), @r#"
        --max-lag: a lag limit in time needs a check login: Patroni reports the lag in bytes only
            help: add [check] with user = "pgcheck", or --check-user pgcheck; or limit the bytes, as in lag_bytes_max = "16MB" or --max-lag 16MB
        "#);
        assert!(merged("--max-lag 10s --check-user pgcheck", patroni).is_ok());
    }

    #[test]
    fn secrets_in_wrong_flags_are_not_repeated() {
        let line = "--patroni http://a:geheim@pg1 --member n1=postgres://u:geheim@pg1 \
                    --write u:geheim@0.0.0.0:1 --max-lag password=geheim";
        let errors = merged(line, "").unwrap_err();
        assert_eq!(errors.len(), 4);
        assert!(!format!("{errors} {errors:?}").contains("geheim"));
    }
}

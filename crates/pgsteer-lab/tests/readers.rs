//! The files of `pgsteer render`, checked by the programs that read them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "e2e/binary.rs"]
mod binary;
#[path = "e2e/installed.rs"]
mod installed;

use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const PROFILES: [&str; 7] =
    ["httpchk", "agent", "agent-bypass", "push", "sql", "redirect", "pgsteer"];
const SIZES: [usize; 3] = [2, 3, 7];
/// 63 bytes, many of them with a meaning for HAProxy or for a shell.
const ODD_USER: &str = "o'neill \"$HOME\" #{x} \\ %[src] größe €€€€€€€€1";

/// An empty folder for this test.
fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("render").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn which(program: &str) -> Option<PathBuf> {
    let folders = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    folders.iter().map(|folder| Path::new(folder).join(program)).find(|path| path.is_file())
}

fn pgsteer(words: &[String]) -> Output {
    let program = binary::pgsteer().unwrap_or_else(|error| panic!("{error:#}"));
    Command::new(program).arg("render").args(words).output().unwrap()
}

/// Renders into `folder`; this must succeed.
fn render(folder: &Path, words: &[String]) {
    let out = ["--out".to_owned(), folder.display().to_string()];
    let output = pgsteer(&[words, &out].concat());
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn members(hosts: impl Fn(usize) -> String, count: usize) -> Vec<String> {
    (1..=count).flat_map(|n| ["--member".to_owned(), format!("n{n}={}", hosts(n))]).collect()
}

/// Whether a program accepts a file, with its output.
fn verdict(program: &str, words: &[&str], file: &Path) -> (bool, String) {
    let path = which(program)
        .unwrap_or_else(|| panic!("there is no {program}; run scripts/install-lab.sh readers"));
    let mut command = Command::new(path);
    // HAProxy resolves names that do not exist. A lost DNS answer must not take five seconds each.
    command.env("RES_OPTIONS", "timeout:1 attempts:1");
    // If Keepalived 2.2 tests a file with a vrrp_script and finds no error, it ends with SIGTERM to
    // its whole process group. So it gets its own group here. An error is exit code 5 with a
    // message.
    let output = command.args(words).arg(file).process_group(0).output().unwrap();
    let is_end_of_keepalived = program == "keepalived" && output.status.signal() == Some(15);
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    (output.status.success() || is_end_of_keepalived, printed)
}

#[test]
fn haproxy_accepts_every_profile_for_any_members() {
    assert_eq!(ODD_USER.len(), 63);
    let folder = folder("haproxy");
    let file = folder.join("pgsteer.toml");
    // Hosts of pgsteer and members have addresses of both families.
    let services = "[services.write]\nlisten = '[::]:5000'\npooler_port = 6432\n\
                    [services.read]\nlisten = '[::]:5001'\npooler_port = 6432\nfallback = 'primary'\n\
                    [http]\nlisten = '[::]:7000'\n";
    std::fs::write(&file, services).unwrap();
    let kinds: [fn(usize) -> String; 3] = [
        |n| format!("10.0.0.{}", 10 + n),
        |n| format!("[fd00::{n}]:6000"),
        // Names that do not exist.
        |n| format!("pg-{n}.invalid"),
    ];
    let mut count = 0;
    for profile in PROFILES {
        for (size, hosts) in
            SIZES.iter().flat_map(|size| kinds.iter().map(move |kind| (*size, kind)))
        {
            let mut line =
                words(&format!("haproxy --profile {profile} --config {}", file.display()));
            line.extend(members(hosts, size));
            line.extend(words(
                "--local n1 --pass 10.1.0.0/16 --pass fd00:1::5 --door 10.0.0.21 --door fd00::22",
            ));
            match profile {
                "sql" => line.extend(["--check-user".to_owned(), ODD_USER.to_owned()]),
                _ => line.extend(words("--patroni-port 8008")),
            }
            render(&folder, &line);
            let (is_fine, printed) = verdict("haproxy", &["-c", "-f"], &folder.join("haproxy.cfg"));
            assert!(is_fine, "{line:?}\n{printed}");
            let strange: Vec<&str> = printed
                .lines()
                .filter(|line| line.contains("[WARNING]") && !is_expected(line))
                .collect();
            assert!(strange.is_empty(), "{line:?}\n{strange:#?}");
            count += 1;
        }
    }
    assert_eq!(count, PROFILES.len() * SIZES.len() * kinds.len());
}

/// Names that do not exist, and the file that pgsteer writes when it runs.
fn is_expected(warning: &str) -> bool {
    ["could not resolve", "Can't open global server state file", "Warnings were found"]
        .iter()
        .any(|text| warning.contains(text))
}

/// Where HAProxy looks for the key of a client certificate: `render` refuses it in any other file.
#[test]
fn haproxy_looks_for_a_key_in_the_certificates_file_and_beside_it() {
    let folder = folder("client-certificate");
    let [cert, beside, both, apart] =
        ["c.pem", "c.pem.key", "both.pem", "c.key"].map(|name| folder.join(name));
    let subject = ["req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=c"];
    let mut openssl = Command::new("openssl");
    let made = openssl.args(subject).arg("-keyout").arg(&beside).arg("-out").arg(&cert).output();
    assert!(made.unwrap().status.success());
    let text = [&cert, &beside].map(|file| std::fs::read_to_string(file).unwrap()).concat();
    std::fs::write(&both, text).unwrap();
    render(&folder, &words(&format!("haproxy {THREE}")));
    let rendered = folder.join("haproxy.cfg");
    let plain = std::fs::read_to_string(&rendered).unwrap();
    let takes = |cert: &Path| {
        let with = format!("check check-ssl verify none crt {} port", cert.display());
        std::fs::write(&rendered, plain.replace("check port", &with)).unwrap();
        verdict("haproxy", &["-c", "-f"], &rendered).0
    };
    assert!(plain.contains(" check port") && takes(&cert) && takes(&both));
    std::fs::rename(&beside, &apart).unwrap();
    assert!(!takes(&cert), "HAProxy takes c.key for c.pem");
}

const THREE: &str =
    "--member n1=10.0.0.11 --member n2=10.0.0.12 --member n3=10.0.0.13 --patroni-port 8008";

#[test]
fn files_are_written_once_and_check_finds_a_difference() {
    let folder = folder("set");
    let line = words(&format!("prometheus {THREE}"));
    let out = ["--out".to_owned(), folder.display().to_string()];
    let check = ["--check".to_owned()];
    let run = |words: &[&[String]]| {
        let output = pgsteer(&words.concat());
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, printed) = run(&[&line, &out, &check]);
    assert_eq!((code, printed.matches("missing").count()), (1, 2), "{printed}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    assert_eq!(run(&[&line, &out]).1.matches("new ").count(), 2);
    assert_eq!(run(&[&line, &out, &check]).0, 0);
    let rules = folder.join("pgsteer.rules.yml");
    std::fs::OpenOptions::new().append(true).open(&rules).unwrap().write_all(b"# mine\n").unwrap();
    let (code, printed) = run(&[&line, &out, &check]);
    assert!(code == 1 && printed.contains("differs") && printed.contains("unchanged"), "{printed}");
    let (_, printed) = run(&[&line, &out]);
    assert!(printed.contains("changed    ") && printed.contains("unchanged"), "{printed}");
    assert!(!std::fs::read_to_string(&rules).unwrap().contains("# mine"));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);
}

#[test]
fn a_failed_render_writes_no_file() {
    let folder = folder("refused");
    let out = ["--out".to_owned(), folder.display().to_string()];
    let one_port = folder.with_extension("toml");
    std::fs::write(
        &one_port,
        "[services.write]\nlisten = '5000'\n[services.read]\nlisten = '5000'\n",
    )
    .unwrap();
    let file = format!("--config {}", one_port.display());
    for line in [
        "haproxy".to_owned(),
        "haproxy --member n1=10.0.0.11 --patroni-port 8008".to_owned(),
        format!("haproxy {THREE} --member n1=10.0.0.14"),
        format!("haproxy {THREE} --stats-listen 127.0.0.1:5000"),
        format!("haproxy {THREE} --stats-listen 0.0.0.0:7000"),
        format!("haproxy {THREE} --detect 1ms"),
        format!("haproxy {THREE} --profile pgsteer --door a;b"),
        format!("keepalived {THREE} --vip 10.0.0.300 --door 10.0.0.21 --door 10.0.0.22"),
        format!("keepalived {THREE} --vip 10.0.0.20 --door 10.0.0.21 --door 10.0.0.21"),
        format!("clients {THREE} --vip nonsense"),
        format!("pgbouncer {THREE}"),
        format!("pg_hba {THREE}"),
        format!("ansible {THREE} --profile agent-bypass"),
        format!("haproxy {THREE} --template /nowhere"),
        "haproxy --patroni http://127.0.0.1:1".to_owned(),
        format!("haproxy {THREE} {file}"),
        format!("haproxy {THREE} --profile sql"),
    ] {
        let output = pgsteer(&[words(&line), out.to_vec()].concat());
        let printed = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {printed}");
        assert!(printed.ends_with("nothing was written\n"), "{printed}");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "{line}");
    }
    // The second of three files cannot be written, because a folder has its name.
    std::fs::create_dir_all(folder.join("pgsteer-agent.service/x")).unwrap();
    let output = pgsteer(&[words(&format!("systemd {THREE}")), out.to_vec()].concat());
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
}

#[test]
fn keepalived_accepts_its_files() {
    let folder = folder("keepalived");
    // Keepalived accepts no loopback interface, and requires that the interface exists.
    let interfaces = std::fs::read_dir("/sys/class/net").unwrap();
    let interfaces = interfaces.map(|it| it.unwrap().file_name().into_string().unwrap());
    let interface = interfaces.filter(|name| name != "lo").min().unwrap();
    // Clients come to IPv6 as well.
    let file = folder.with_extension("toml");
    let both = "[services.write]\nlisten = '[::]:5000'\n[services.read]\nlisten = '[::]:5001'\n";
    std::fs::write(&file, both).unwrap();
    let config = format!("--config {}", file.display());
    for (vip, doors) in
        [("10.0.0.20/24", "10.0.0.21 10.0.0.22"), ("fd00::20/64", "fd00::21 fd00::22")]
    {
        let doors: String = doors.split(' ').map(|door| format!(" --door {door}")).collect();
        render(
            &folder,
            &words(&format!(
                "keepalived {THREE} {config} --vip {vip} --interface {interface}{doors}"
            )),
        );
    }
    let mut count = 0;
    for file in std::fs::read_dir(&folder).unwrap() {
        let file = file.unwrap().path();
        // Another program stands in for the one that is not installed yet.
        let text = std::fs::read_to_string(&file).unwrap();
        let here = which("true").unwrap();
        std::fs::write(&file, text.replace("/usr/bin/pgsteer", &here.display().to_string()))
            .unwrap();
        let (is_fine, printed) = verdict("keepalived", &["-t", "-f"], &file);
        assert!(is_fine && printed.trim().is_empty(), "{}: {printed}", file.display());
        count += 1;
    }
    assert_eq!(count, 4);
    let wrong = folder.join("wrong");
    std::fs::write(&wrong, "vrrp_scrip x {\n}\n").unwrap();
    assert!(!verdict("keepalived", &["-t", "-f"], &wrong).0);
}

#[test]
fn promtool_accepts_the_rules() {
    let folder = folder("prometheus");
    render(&folder, &words(&format!("prometheus {THREE}")));
    for (file, word) in [("pgsteer.rules.yml", "rules"), ("pgsteer.scrape.yml", "config")] {
        let (is_fine, printed) = verdict("promtool", &["check", word], &folder.join(file));
        assert!(is_fine, "{printed}");
    }
}

/// Input series and expected alerts, run by Prometheus' own test tool.
#[test]
fn each_alert_fires_for_its_cause_and_for_no_other() {
    let folder = folder("alerts");
    render(&folder, &words(&format!("prometheus {THREE}")));
    let scenes = folder.join("alerts.yml");
    std::fs::write(&scenes, include_str!("readers/alerts.yml")).unwrap();
    let (is_fine, printed) = verdict("promtool", &["test", "rules"], &scenes);
    assert!(is_fine, "{printed}");
}

/// The queries of the dashboard, as rules.
#[test]
fn promtool_accepts_the_queries_of_the_dashboard() {
    let folder = folder("grafana");
    render(&folder, &words(&format!("grafana {THREE}")));
    let text = std::fs::read_to_string(folder.join("pgsteer.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let targets = dashboard["panels"].as_array().unwrap().iter().map(|it| &it["targets"][0]);
    let rule = |(at, target): (usize, &serde_json::Value)| serde_json::json!({"record": format!("panel_{at}"), "expr": target["expr"]});
    let rules: Vec<_> = targets.enumerate().map(rule).collect();
    assert_eq!(rules.len(), text.matches("\"expr\"").count());
    let groups = serde_json::json!({"groups": [{"name": "panels", "rules": rules}]});
    // JSON is YAML.
    let file = folder.join("panels.yml");
    std::fs::write(&file, groups.to_string()).unwrap();
    let (is_fine, printed) = verdict("promtool", &["check", "rules"], &file);
    assert!(is_fine, "{printed}");
}

/// A wrong word, a number instead of a text or an unknown key is an error of the compiler.
#[test]
fn the_dashboard_matches_grafanas_types() {
    let folder = folder("grafana-types");
    render(&folder, &words(&format!("grafana {THREE}")));
    let modules = installed::installed("clients/node/node_modules").unwrap();
    std::os::unix::fs::symlink(&modules, folder.join("node_modules")).unwrap();
    let dashboard = std::fs::read_to_string(folder.join("pgsteer.json")).unwrap();
    let compile = |dashboard: &str| {
        let file = folder.join("dashboard.ts");
        std::fs::write(&file, [include_str!("readers/dashboard.ts"), dashboard].concat()).unwrap();
        let line = "--noEmit --strict --skipLibCheck --moduleResolution bundler --module esnext";
        let mut command = Command::new("node");
        command.arg(modules.join("typescript/bin/tsc")).args(words(line)).arg(&file);
        let output = command.current_dir(&folder).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (is_fine, errors) = compile(&dashboard);
    assert!(is_fine, "{errors}");
    let (_, errors) = compile(&dashboard.replace("\"gridPos\"", "\"gridpos\""));
    assert!(errors.contains("'\"gridpos\"' does not exist"), "{errors}");
}

#[test]
fn ansible_accepts_the_role() {
    let folder = folder("ansible");
    render(&folder, &words(&format!("ansible {THREE}")));
    let words = ["--syntax-check", "-i", "front_doors,"];
    let (is_fine, printed) = verdict("ansible-playbook", &words, &folder.join("site.yml"));
    assert!(is_fine, "{printed}");
}

#[test]
fn systemd_accepts_the_units_and_rates_them_hardened() {
    let folder = folder("systemd");
    render(&folder, &words(&format!("systemd {THREE}")));
    for unit in ["pgsteer.service", "pgsteer-agent.service"] {
        // Another program stands in for the one that is not installed yet.
        let file = folder.join(unit);
        let text = std::fs::read_to_string(&file).unwrap();
        let here = which("true").unwrap().display().to_string();
        std::fs::write(&file, text.replace("/usr/bin/pgsteer", &here)).unwrap();
        // systemd-analyze also reports on other units of this machine.
        let (_, printed) = verdict("systemd-analyze", &["verify", "--man=no"], &file);
        let of_unit: Vec<&str> = printed.lines().filter(|line| line.contains(unit)).collect();
        assert!(of_unit.is_empty(), "{printed}");
        let words = ["security", "--offline=yes", "--no-pager", "--threshold=20"];
        let (is_fine, printed) = verdict("systemd-analyze", &words, &file);
        assert!(is_fine, "{printed}");
    }
    let wrong = folder.join("wrong.service");
    std::fs::write(&wrong, "[Service]\nExecStart=/nowhere\n").unwrap();
    let (_, printed) = verdict("systemd-analyze", &["verify", "--man=no"], &wrong);
    assert!(printed.contains("wrong.service"), "{printed}");
}

/// The file as rendered, except for its folders: it runs a PgBouncer with its own PostgreSQL behind
/// it, and tests the application's login through both.
#[test]
fn pgbouncer_runs_with_its_rendered_file() {
    let folder = folder("pgbouncer");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = folder.join("pgsteer.toml");
    std::fs::write(&file, format!("[services.write]\npooler_port = {port}\n")).unwrap();
    render(&folder, &words(&format!("pgbouncer {THREE} --config {}", file.display())));
    let home = format!("/tmp/pgsteer-pgbouncer-{}", std::process::id());
    let ini = std::fs::read_to_string(folder.join("pgbouncer.ini")).unwrap();
    let ini = ["/var/run/postgresql", "/var/log/postgresql", "/etc/pgbouncer"]
        .iter()
        .fold(ini, |ini, theirs| ini.replace(theirs, &home));
    let script = format!(
        "bin={}; home={home}; port={port}; pgbouncer={}\n{}",
        newest_bin().display(),
        which("pgbouncer").unwrap().display(),
        include_str!("readers/pgbouncer.sh")
    );
    let printed = as_postgres(&script, &ini);
    assert_eq!(printed.trim(), "app through the socket");
}

/// Uses a separate database in single-user mode.
#[test]
fn postgresql_accepts_every_line_of_pg_hba() {
    let folder = folder("pg_hba");
    let mut line = words(
        "pg_hba --member n1=10.0.0.11 --member n2=fd00::12 --member n3=pg-3.invalid --patroni-port 8008 --repmgr",
    );
    line.extend(["--check-user".to_owned(), ODD_USER.to_owned()]);
    render(&folder, &line);
    let rules = std::fs::read_to_string(folder.join("pg_hba.pgsteer.conf")).unwrap();
    let role = std::fs::read_to_string(folder.join("check_role.sql")).unwrap();
    let role: String = role.lines().filter(|line| !line.starts_with("--")).collect();
    let query = format!(
        "{role}\nselect 'role ' || rolname from pg_roles where rolcanlogin and not rolsuper\n\
         select coalesce(error, 'fine') || ' ' || coalesce(user_name::text, '') from pg_hba_file_rules\n"
    );
    let printed = single_user(&rules, &query);
    assert!(printed.contains(&format!("role {ODD_USER}")), "{printed}");
    assert_eq!(printed.matches("fine {").count(), 3 + 2 * 6 + 3, "{printed}");
    assert!(printed.contains("größe"), "{printed}");
}

/// The answer of a fresh server with these rules in single-user mode.
fn single_user(rules: &str, query: &str) -> String {
    let bin = newest_bin();
    let data = format!("/tmp/pgsteer-render-{}", std::process::id());
    let script = format!(
        "{bin}/initdb -D {data} -U postgres -E UTF8 --locale=C.UTF-8 -A trust -N >/dev/null && cat > {data}/pg_hba.conf",
        bin = bin.display()
    );
    as_postgres(&script, rules);
    let printed = as_postgres(
        &format!("{}/postgres --single -j -D {data} postgres", bin.display()),
        &query.replace('\n', ";\n\n"),
    );
    let _ = std::fs::remove_dir_all(&data);
    printed
}

fn newest_bin() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").unwrap();
    let bins = versions.map(|version| version.unwrap().path().join("bin"));
    bins.filter(|bin| bin.join("initdb").is_file()).max().unwrap()
}

fn as_postgres(script: &str, input: &str) -> String {
    let account = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"];
    // PostgreSQL does not run as root.
    let is_root = rustix::process::geteuid().is_root();
    let words: Vec<&str> = if is_root { account.to_vec() } else { vec!["env"] };
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(["sh", "-c", script]).current_dir("/tmp");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    assert!(output.status.success(), "{printed}");
    printed
}

//! Where a rule ends: what is nearly a fault and is none, and faults that hide.

use pgsteer_files::lint::{Kind, Options};

use crate::{ids, judged};

const SERVERS: &str = "option httpchk OPTIONS /primary\nhttp-check expect status 200\n\
    default-server inter 1s fall 2 on-marked-down shutdown-sessions\n\
    server n1 10.0.0.11:5432 check port 8008\nserver n2 10.0.0.12:5432 check port 8008\n";

#[track_caller]
fn finds(kind: Kind, text: &str, wanted: &[&str]) {
    let report = judged(kind, text, &Options::default());
    let found: Vec<&str> = ids(&report).into_iter().collect();
    assert_eq!(found, wanted, "{text}\n{:#?}", report.findings);
}

#[track_caller]
fn haproxy(text: &str, wanted: &[&str]) {
    finds(Kind::Haproxy, text, wanted);
}

#[test]
fn a_guard_may_stand_in_many_places() {
    let no_guard = ["no-guard-against-two-primaries"];
    let listen = |line: &str| format!("listen pg\nbind :5000\n{line}\n{SERVERS}");
    haproxy(&listen(""), &no_guard);
    haproxy(&listen("tcp-request content reject unless { nbsrv eq 1 }"), &[]);
    haproxy(&listen("tcp-request connection reject if { nbsrv(pg) gt 1 }"), &[]);
    haproxy(&listen("acl one nbsrv(pg) eq 1\ntcp-request session silent-drop if !one"), &[]);
    haproxy(&listen("use_backend sorry if { nbsrv(pg) ge 2 }"), &[]);
    haproxy(&listen("tcp-request content reject if { nbsrv(pg) lt 1 }"), &no_guard);
    haproxy(&listen("tcp-request content reject unless { nbsrv(other) eq 1 }"), &no_guard);
    let routed = |way: &str| format!("frontend door\nbind :5000\n{way}\nbackend pg\n{SERVERS}");
    haproxy(&routed("default_backend pg"), &no_guard);
    haproxy(&routed("use_backend pg if { nbsrv(pg) eq 1 }"), &[]);
    haproxy(&routed("use_backend pg if { nbsrv(pg) eq 1 }\ndefault_backend pg"), &no_guard);
    haproxy(
        &routed("tcp-request content reject unless { nbsrv(pg) eq 1 }\ndefault_backend pg"),
        &[],
    );
    // No proxy in this file uses the backend: the guard may be in another file.
    haproxy(&format!("backend pg\n{SERVERS}"), &[]);
}

#[test]
fn a_guard_is_judged_by_what_it_does() {
    let no_guard = ["no-guard-against-two-primaries"];
    let listen = |line: &str| format!("listen pg\nbind :5000\n{line}\n{SERVERS}");
    haproxy(&listen("tcp-request content reject if { nbsrv(pg) eq 1 }"), &no_guard);
    haproxy(&listen("tcp-request content reject unless { nbsrv(pg) ge 1 }"), &no_guard);
    haproxy(&listen("tcp-request content reject if FALSE { nbsrv(pg) gt 1 }"), &no_guard);
    haproxy(&listen("tcp-request content reject if { src 10.0.0.9 } or { nbsrv gt 1 }"), &[]);
    // The guard depends on more than the count.
    haproxy(&listen("tcp-request content reject if { nbsrv gt 1 } { src 10.0.0.9 }"), &[]);
    haproxy(&listen("tcp-request content reject unless { nbsrv eq 1 } or { src 10.0.0.9 }"), &[]);
    haproxy(&listen("tcp-request content reject if { nbsrv(pg),sub(1) gt 0 }"), &[]);
    // What is sent to another agent than pgsteer's is no judgement.
    let agent = "default-server agent-check agent-port 5555 agent-send";
    haproxy(&listen(&format!("{agent} \"hello\\n\"")), &no_guard);
    haproxy(&listen(&format!("{agent} \"primary\\n\"")), &[]);
    haproxy(&listen(&format!("{agent} \"orders n1\\n\"")), &[]);
    // Servers that follow others are as many as those.
    let tracked = format!(
        "listen door\nmode tcp\nbind :5000\ntcp-request content reject unless {{ nbsrv(pg) eq 1 }}\n\
         option httpchk OPTIONS /primary\nserver n1 10.0.0.11:5432 track pg/n1\n\
         server n2 10.0.0.12:5432 track pg/n2\nbackend pg\n{SERVERS}"
    );
    haproxy(&tracked, &[]);
}

#[test]
fn a_piece_may_have_the_rest_elsewhere() {
    haproxy(
        "listen primary\nbind :5000\nhttp-check send meth OPTIONS uri /primary\n\
         server n1 10.0.0.1:5432 check port 8008\nserver n2 10.0.0.2:5432 check port 8008\n",
        &[],
    );
    haproxy("backend api\noption httpchk GET /healthz\nserver a 10.0.0.1:5436 check\n", &[]);
    // The head of a section that cannot be read takes its lines with it.
    haproxy(
        "global\nlisten x \"y\nbind :1\nmode http\nserver a 10.0.0.1:5432\n",
        &["line-not-understood"],
    );
    haproxy("\u{feff}listen x\nmode http\n", &["line-not-understood"]);
}

#[test]
fn missing_lines_are_reported_for_a_whole_configuration_only() {
    let pg = "listen pg\nmode tcp\nbind :5000\noption httpchk OPTIONS /replica\n\
              server n1 10.0.0.1:5432 check port 8008\n";
    let result = |text: &str| {
        let report = judged(Kind::Haproxy, text, &Options::default());
        (report.is_piece, ids(&report).contains("connect-timeout-missing"))
    };
    assert_eq!(result(pg), (true, false));
    assert_eq!(result(&format!("defaults\noption tcpka\n{pg}")), (false, true));
    assert_eq!(result(&format!("{pg}defaults\n")), (false, true));
    assert_eq!(result(&format!("global\n{pg}")), (false, true));
}

#[test]
fn a_userlist_may_hold_the_password_of_the_statistics() {
    let text = |how: &str, page: &str| {
        format!(
            "userlist admins\nuser admin {how}\nlisten x\nmode http\nbind 127.0.0.1:1\n{page}\n\
             http-request auth unless {{ http_auth(admins) }}\n"
        )
    };
    haproxy(&text("insecure-password x", "stats enable"), &["stats-credentials"]);
    haproxy(&text("password $5$x", "stats enable"), &[]);
    haproxy(&text("insecure-password \"$PW\"", "stats enable"), &[]);
    haproxy(&text("insecure-password x", ""), &[]);
}

#[test]
fn settings_are_inherited() {
    let text = String::from(
        "defaults base\nmode tcp\ntimeout connect 2s\ntimeout client 24d\ntimeout server 24d\noption tcpka\n\
         default-server on-marked-down shutdown-sessions inter 1s fall 2\n\
         option httpchk OPTIONS /primary\n\
         listen pg from base\nbind :5000\ntcp-request content reject unless { nbsrv eq 1 }\n\
         server n1 10.0.0.11:5432 check port 8008\nserver n2 10.0.0.12:5432 check port 8008\n",
    );
    haproxy(&text, &[]);
    let off = text.replace("bind :5000", "bind :5000\nno option httpchk");
    haproxy(&off, &["patroni-port-without-httpchk", "value-refused"]);
}

#[test]
fn what_the_environment_decides_is_not_judged() {
    let unknown = "listen pg\nbind \"$DOOR\"\nmode \"$MODE\"\nserver n1 \"$N1\" check port \"$PORT\" inter \"$INTER\"\n\
        server n2 \"$N2\" \"$SETTINGS\" no-such-word\n";
    haproxy(unknown, &[]);
    let check = "listen pg\nbind :5000\nserver n1 10.0.0.1:5432 \"$CHECK\"\nserver n2 10.0.0.2:5432 \"$CHECK\"\n";
    haproxy(check, &[]);
    let stats = "listen s\nmode http\nbind \"$ADDR\"\nstats enable\nstats auth \"$LOGIN\"\n";
    haproxy(stats, &[]);
}

#[test]
fn other_servers_are_left_alone() {
    haproxy(
        "listen redis\nbind :6379\noption tcp-check\ntcp-check send PING\\r\\n\ntcp-check expect string +PONG\nserver a 10.0.0.1:6379 check\nserver b 10.0.0.2:6379 check\n",
        &[],
    );
    haproxy(
        "listen web\nmode http\nbind :80\nserver a 10.0.0.1:8080 check\nserver b 10.0.0.2:8080\n",
        &[],
    );
    // A sum that is counted differently, a name that DNS gives to the primary, and a path
    // that is Patroni's at its own port alone. 503 is Patroni's answer in many states.
    let whole = "global\nmax-spread-checks 10\ndefaults\nmode tcp\ntimeout connect 1s\ntimeout client 24d\n\
        timeout server 24d\noption tcpka\ndefault-server inter 1s fall 2 on-marked-down shutdown-sessions\n";
    let in_whole = |text: &str, wanted: &[&str]| haproxy(&format!("{whole}{text}"), wanted);
    let servers =
        "server a 10.0.0.1:5432 check port 8008\nserver b 10.0.0.2:5432 check port 8008\n";
    in_whole(
        "resolvers d\nnameserver a 127.0.0.1:53\n\
         listen master\nbind :1\nserver-template pg 3 master.x.consul:5432 check resolvers d\n",
        &[],
    );
    let not = "listen x\nbind :1\noption httpchk OPTIONS /master\nhttp-check expect status 503\n";
    in_whole(&format!("{not}{servers}"), &["check-tells-no-role"]);
    let elsewhere = "listen x\nbind :1\noption httpchk\nserver a 10.0.0.1:5432 check port 23267\n\
        server b 10.0.0.2:5432 check port 23267\n";
    in_whole(elsewhere, &[]);
    // Fetches of HTTP match behind an inspect-delay.
    in_whole(
        "frontend f\nbind :1\nuse_backend b if { path_beg /x }\nbackend b\nserver a 10.0.0.1:80\n",
        &[],
    );
    in_whole(
        "frontend f\nmode http\nbind :1\nuse_backend b if { nbsrv(b) ge 2 }\n\
         backend b\nmode http\noption allbackups\nserver a 10.0.0.1:80 check\n\
         server b 10.0.0.2:80 check backup\nserver c 10.0.0.3:80 check backup\n",
        &[],
    );
    in_whole(
        "listen a\nbind ipv4@:1\nlisten b\nbind ipv6@:1 v6only\nlisten c\ndisabled\nbind :2\nlisten d\nbind :2\n\
         .if defined(X)\nlisten e\nbind :3\n.else\nlisten e\nbind :3\n.endif\n",
        &[],
    );
    in_whole(
        "listen a\nmode http\nbind :1\noption httpchk health/check\nserver a 10.0.0.1:5433 check\n",
        &[],
    );
    // Two poolers in front of one database have no role.
    haproxy(
        "listen pool\nbind :5000\nserver a 10.0.0.1:6432 check inter 1s\nserver b 10.0.0.2:6432 check inter 1s\n",
        &[],
    );
}

#[test]
fn a_count_is_a_trap_only_if_one_server_less_turns_it() {
    let text = |condition: &str| {
        format!(
            "frontend f\nbind :1\nuse_backend a if {{ {condition} }}\n\
             backend a\nserver x 10.0.0.1:5432 check\nserver y 10.0.0.2:5432 check\nserver z 10.0.0.3:5432 check\n"
        )
    };
    haproxy(&text("nbsrv(a) eq 3"), &["nbsrv-counts-all"]);
    haproxy(&text("nbsrv(a) gt 2"), &["nbsrv-counts-all"]);
    haproxy(&text("nbsrv(a) ge 2"), &[]);
    haproxy(&text("nbsrv(a) eq 4"), &["acl-cannot-match"]);
    haproxy(&text("nbsrv(a) eq 1 2 3"), &[]);
    haproxy(&text("nbsrv(a) lt 4"), &[]);
}

#[test]
fn words_have_their_time() {
    let gone = ["word-not-in-version"];
    haproxy("global\nnbproc 4\n", &gone);
    haproxy("defaults\nclitimeout 5s\n", &gone);
    haproxy("listen x\nmode http\nreqrep a b\n", &gone);
    haproxy("listen x\nmode http\nno option forceclose\n", &gone);
    haproxy("defaults\ntimeout client-hs 5s\n", &gone);
    // Until 2.6 it was taken.
    haproxy("listen x\nbind-process all\n", &[]);
    haproxy("global\nmaxcon 5\ntune.h9.something 4\nsome-module-word x\n", &["unknown-word"]);
    haproxy("listen x\nservr a 10.0.0.1:80\n", &["unknown-word"]);
    haproxy("listen x\nserver a 10.0.0.1:80 set-proxy-v2-tlv-fmt(0xE1) %[fc_rtt]\n", &gone);
}

#[test]
fn lines_of_pg_hba_cover_each_other() {
    let hba = |text: &str, wanted: &[&str]| finds(Kind::PgHba, text, wanted);
    let shadowed = ["hba-line-shadowed"];
    let first = "host all all 10.0.0.0/8 scram-sha-256\n";
    let after = |line: &str| format!("{first}{line}\n");
    hba(&after("host app bob 10.1.2.3/32 scram-sha-256"), &shadowed);
    hba(&after("hostssl app bob 10.0.0.0 255.0.0.0 cert"), &shadowed);
    hba(&after("host replication bob 10.1.2.3/32 scram-sha-256"), &[]);
    hba(&after("host app bob 11.1.2.3/32 scram-sha-256"), &[]);
    hba(&after("host app bob fd00::1/128 scram-sha-256"), &[]);
    hba(&after("local app bob peer"), &[]);
    hba("hostssl all all 10.0.0.0/8 cert\nhost all all 10.0.0.0/8 reject\n", &[]);
    hba("host all +ops 10.0.0.0/8 gss\nhost all bob 10.0.0.0/8 reject\n", &[]);
    hba("local all all trust\nhost all all 127.0.0.1/32 trust\nhost all all ::1/128 trust\n", &[]);
    hba("host all all 0/0 scram-sha-256\nhost a a 10.1/16 gss\n", &shadowed);
    hba("host all all fe80::1%lo/64 trust\nhost a b 10.0.0.5 255.0.255.0 trust\n", &[]);
    hba("hostssl all all 0.0.0.0/0 trust clientcert=verify-full\n", &[]);
    hba("host all all samenet trust\n", &["hba-trust-wide"]);
    hba("host all all .example.org trust\n", &["hba-trust-wide"]);
}

#[test]
fn another_place_in_pgsteers_own_file_is_named_by_its_line() {
    let text = "[patroni]\nurls = [\"http://pg1\", \"http://pg2\"]\n[check]\nuser = \"a\"\n\
                [services.read]\nlisten = \"0.0.0.0:5000\"\nrole = \"replica\"\n\
                [services.write]\nlisten = \"0.0.0.0:5000\"\nrole = \"primary\"\n";
    let report = judged(Kind::Pgsteer, text, &Options::default());
    let found: Vec<_> = report.findings.iter().map(|it| (it.place.line, &*it.message)).collect();
    let message = "services.write.listen: the same address and port as line 6: services.read.listen; \
                   give one of them another port";
    assert_eq!(found, [(9, message)]);
}

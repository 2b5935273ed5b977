//! HAProxy's statistics page as CSV (`/;csv`), for the tools that read it.
//!
//! The columns are those of HAProxy 2.6 (Management Guide, section 9.1 "CSV format"), without the
//! ones of its modules for TLS and HTTP. A column for which pgsteer has no number is empty. A service
//! is a proxy: one line for its listener, one for each member, and one for their sum.

use crate::status::document::{Cluster, Document, Gate, Member, Service, Traffic};
use crate::status::stamp::Stamp;

/// All columns.
const COLUMNS: &str = "pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,\
wretr,wredis,status,weight,act,bck,chkfail,chkdown,lastchg,downtime,qlimit,pid,iid,sid,throttle,lbtot,\
tracked,type,rate,rate_lim,rate_max,check_status,check_code,check_duration,hrsp_1xx,hrsp_2xx,hrsp_3xx,\
hrsp_4xx,hrsp_5xx,hrsp_other,hanafail,req_rate,req_rate_max,req_tot,cli_abrt,srv_abrt,comp_in,comp_out,\
comp_byp,comp_rsp,lastsess,last_chk,last_agt,qtime,ctime,rtime,ttime,agent_status,agent_code,\
agent_duration,check_desc,agent_desc,check_rise,check_fall,check_health,agent_rise,agent_fall,\
agent_health,addr,cookie,mode,algo,conn_rate,conn_rate_max,conn_tot,intercepted,dcon,dses,wrew,connect,\
reuse,cache_lookups,cache_hits,srv_icur,src_ilim,qtime_max,ctime_max,rtime_max,ttime_max,eint,\
idle_conn_cur,safe_conn_cur,used_conn_cur,need_conn_est,uweight,agg_server_status,\
agg_server_check_status,agg_check_status,-";

/// The columns that pgsteer fills; docs/status.md lists them.
const FILLED: [&str; 25] = [
    "pxname", "svname", "qcur", "scur", "slim", "stot", "bin", "bout", "dreq", "econ", "wredis",
    "status", "weight", "act", "bck", "lastchg", "pid", "iid", "sid", "type", "rate", "last_chk",
    "addr", "mode", "algo",
];

/// HAProxy's numbers for the kinds of lines.
const FRONTEND: u64 = 0;
const BACKEND: u64 = 1;
const SERVER: u64 = 2;

/// `document` as CSV.
pub fn write(document: &Document) -> String {
    let mut page = format!("# {COLUMNS},\n");
    for cluster in &document.clusters {
        for (service, iid) in cluster.services.iter().zip(2..) {
            let lines = Lines { service, iid, now: document.now };
            lines.write(cluster, &mut page);
        }
    }
    page
}

struct Lines<'a> {
    service: &'a Service,
    iid: u64,
    now: Stamp,
}

/// One line: the values of the filled columns.
type Values = Vec<(&'static str, String)>;

impl Lines<'_> {
    fn write(&self, cluster: &Cluster, page: &mut String) {
        let name = &self.service.name;
        let gates = || {
            let members = cluster.members.iter();
            members.filter_map(|member| Some((member, member.services.get(name)?)))
        };
        push(page, &self.frontend());
        for ((member, gate), sid) in gates().zip(1..) {
            push(page, &self.server(member, gate, sid));
        }
        let latest = gates().map(|(_, gate)| gate.since).max();
        push(page, &self.backend(latest));
    }

    fn common(&self, line: &str, kind: u64, sid: u64, traffic: &Traffic) -> Values {
        vec![
            ("pxname", quoted(&self.service.name)),
            ("svname", quoted(line)),
            ("bin", traffic.bytes_in_total.to_string()),
            ("bout", traffic.bytes_out_total.to_string()),
            ("pid", "1".to_owned()),
            ("iid", self.iid.to_string()),
            ("sid", sid.to_string()),
            ("type", kind.to_string()),
            ("rate", format!("{:.0}", traffic.new_sessions_per_second)),
            ("mode", "tcp".to_owned()),
        ]
    }

    fn frontend(&self) -> Values {
        let service = self.service;
        let mut values = self.common("FRONTEND", FRONTEND, 0, &service.traffic);
        values.extend([
            ("scur", (service.sessions + service.held).to_string()),
            ("slim", service.sessions_max.map(|max| max.to_string()).unwrap_or_default()),
            ("stot", service.sessions_total.to_string()),
            ("dreq", service.refused_total.to_string()),
            ("status", "OPEN".to_owned()),
        ]);
        values
    }

    fn server(&self, member: &Member, gate: &Gate, sid: u64) -> Values {
        let status = match gate.gate.as_str() {
            "open" => "UP",
            "draining" => "DRAIN",
            "probation" => "DOWN 1/2",
            _ => "DOWN",
        };
        let why = gate.reason.as_ref().map(|reason| quoted(&reason.text)).unwrap_or_default();
        let host = match member.host.contains(':') {
            true => format!("[{}]", member.host),
            false => member.host.clone(),
        };
        let limit = self.service.member_sessions_max;
        let mut values = self.common(&member.name, SERVER, sid, &gate.traffic);
        values.extend([
            ("scur", gate.sessions.to_string()),
            ("slim", limit.map(|max| max.to_string()).unwrap_or_default()),
            ("stot", gate.sessions_total.to_string()),
            ("econ", gate.failed_total.to_string()),
            ("wredis", gate.failed_total.to_string()),
            ("status", status.to_owned()),
            ("weight", "1".to_owned()),
            ("act", "1".to_owned()),
            ("bck", "0".to_owned()),
            ("lastchg", self.now.since(gate.since).as_secs().to_string()),
            ("last_chk", why),
            ("addr", quoted(&format!("{host}:{}", member.port))),
        ]);
        values
    }

    fn backend(&self, latest: Option<Stamp>) -> Values {
        let service = self.service;
        let status = if service.open.is_empty() { "DOWN" } else { "UP" };
        let lastchg = latest.map(|since| self.now.since(since).as_secs().to_string());
        let mut values = self.common("BACKEND", BACKEND, 0, &service.traffic);
        values.extend([
            ("qcur", service.held.to_string()),
            ("scur", service.sessions.to_string()),
            ("slim", service.sessions_max.map(|max| max.to_string()).unwrap_or_default()),
            ("stot", service.sessions_total.to_string()),
            ("dreq", service.refused_total.to_string()),
            ("status", status.to_owned()),
            ("weight", service.open.len().to_string()),
            ("act", service.open.len().to_string()),
            ("bck", "0".to_owned()),
            ("lastchg", lastchg.unwrap_or_default()),
            ("algo", "leastconn".to_owned()),
        ]);
        values
    }
}

fn push(page: &mut String, values: &Values) {
    debug_assert!(values.iter().all(|(column, _)| FILLED.contains(column)));
    for column in COLUMNS.split(',') {
        let value = values.iter().find(|(name, _)| *name == column);
        page.push_str(value.map_or("", |(_, value)| value));
        page.push(',');
    }
    page.push('\n');
}

/// A text as HAProxy writes it: quoted if it contains a comma, a quote or a line break.
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::sample;

    #[test]
    fn each_line_has_all_columns_and_the_lines_of_a_service_are_those_of_a_proxy() {
        insta::assert_snapshot!(write(&sample::document_of(&sample::snapshot())));
    }

    #[test]
    fn the_documentation_lists_the_filled_columns() {
        let documentation = include_str!("../../../../docs/status.md");
        for column in FILLED {
            assert!(documentation.contains(&format!("`{column}`")), "{column}");
            assert!(COLUMNS.split(',').any(|known| known == column), "{column}");
        }
    }
}

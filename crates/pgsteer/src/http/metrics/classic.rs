//! The classic text format of Prometheus, made of the OpenMetrics text.
//!
//! They differ in the names of the descriptions of counters and infos (in the classic format they are
//! those of the samples), and in the last line. Source: "Exposition formats" in the documentation of
//! Prometheus, and the OpenMetrics specification, section "Text format".

/// The media type of [`classic`].
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Converts OpenMetrics text. The types of the families are known before their samples, so HELP lines
/// are held back until the TYPE line.
pub fn classic(text: &str) -> String {
    let mut classic = String::with_capacity(text.len() + text.len() / 8);
    let mut help: Option<(&str, &str)> = None;
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("EOF"), ..) => break,
            (Some("#"), Some("HELP"), Some(name), text) => help = Some((name, text.unwrap_or(""))),
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let (name, kind) = match kind {
                    "counter" => (format!("{name}_total"), kind),
                    "info" => (format!("{name}_info"), "gauge"),
                    _ => (name.to_owned(), kind),
                };
                if let Some((_, text)) = help.take() {
                    classic.push_str(&format!("# HELP {name} {text}\n"));
                }
                classic.push_str(&format!("# TYPE {name} {kind}\n"));
            }
            _ => {
                classic.push_str(line);
                classic.push('\n');
            }
        }
    }
    classic
}

/// Returns true if a scraper with this Accept header reads OpenMetrics.
pub fn accepts_open_metrics(accept: &str) -> bool {
    accept.contains("application/openmetrics-text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_have_the_names_of_their_samples() {
        let open = "# HELP a_b Holds.\n# TYPE a_b counter\na_b_total{x=\"1\"} 2\n\
                    # HELP v The version.\n# TYPE v info\nv_info{version=\"1\"} 1\n\
                    # HELP g Now.\n# TYPE g gauge\ng 3\n# EOF\n";
        let expected = "# HELP a_b_total Holds.\n# TYPE a_b_total counter\na_b_total{x=\"1\"} 2\n\
                        # HELP v_info The version.\n# TYPE v_info gauge\nv_info{version=\"1\"} 1\n\
                        # HELP g Now.\n# TYPE g gauge\ng 3\n";
        assert_eq!(classic(open), expected);
    }
}

//! `docs/configuration.md`, made from the table of settings.

use std::fmt::Write;

use super::{options, variable_name};

const HEAD: &str = "\
# Configuration

<!-- Made from worker/src/config/options.rs: change it there, then run
     MILLRACE_TEST_WRITE_DOCS=1 cargo test -p millrace-worker configuration_docs -->

Keys and values are Flink's where the thing is the same. A value is taken from the last of these that sets it:

1. the defaults below;
2. the file that `MILLRACE_CONF` names (for `millrace run`: `--conf FILE`), flat YAML, one `key: value` a line;
3. environment variables: `MILLRACE_` and the key in upper case, with `_` for `.` and `-`
   (`MILLRACE_REST_PORT` for `rest.port`);
4. the job's program;
5. explicit settings, `-D key=value` of the `millrace` command (it hands them to the processes that it starts in
   `MILLRACE_OVERRIDES`, a line `key=value` each).

`/jobs/<id>/config` shows each value and where it came from. An unknown key or `MILLRACE_*` variable, a value that
cannot be read, and a setting that one place sets under two names are errors. Names that begin with `MILLRACE_TEST_`
are free.

Durations are whole numbers with a unit: `ns`, `us`, `ms`, `s`, `min`, `h`, `d`; without one they are milliseconds.
Sizes are whole numbers with a unit: `b`, `kb`, `mb`, `gb`, `tb`, each 1024 of the one before; without one they are
bytes.
";

/// The whole document.
pub fn configuration_markdown() -> String {
    let mut text = HEAD.to_string();
    for section in options::SECTIONS {
        let _ = write!(text, "\n## {}\n\n| key | value | default | |\n|---|---|---|---|\n", section.title);
        for option in section.options {
            text.push_str(&row(option));
        }
    }
    text
}

fn row(option: &options::ConfigOption) -> String {
    let aliases: Vec<_> = option.aliases.iter().map(|alias| format!("`{alias}`")).collect();
    let also = if aliases.is_empty() { String::new() } else { format!(" Also: {}.", aliases.join(", ")) };
    let or = option.or.map(|word| format!(", or `{word}`")).unwrap_or_default();
    let default = option.default.map(|default| format!("`{default}`")).unwrap_or_default();
    let secret = if option.secret { " Never shown." } else { "" };
    let cell = |text: &str| text.replace('|', "\\|");
    format!(
        "| `{}`<br>`{}` | {}{or} | {default} | {}{secret}{also} |\n",
        option.key,
        variable_name(option.key),
        cell(&option.kind.describe()),
        cell(option.doc)
    )
}

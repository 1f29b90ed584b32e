//! The table of a run, as Markdown, and its place in a file.

use std::path::Path;

use anyhow::{Context, Result};

use crate::{
    Arguments,
    case::{Row, median, rates},
    machine,
    measure::Measurement,
};

const BEGIN: &str = "<!-- make bench: begin -->";
const END: &str = "<!-- make bench: end -->";

/// Machine and table.
pub fn markdown(arguments: &Arguments, rows: &[Row]) -> String {
    let mut text = machine::describe(arguments.flink.as_deref()).join("  \n");
    text += "\n\n| case | Millrace, records/s | Flink, records/s | ratio | CPU s per million (Millrace, Flink) | \
             peak MiB (Millrace, Flink) | checkpoints (Millrace, Flink) | by hand, records/s |\n";
    text += "|---|---|---|---|---|---|---|---|\n";
    for row in rows {
        let pair = |digits: usize, of: fn(&Measurement) -> f64| {
            let median = |of_one: &[Measurement]| match of_one {
                [] => "-".to_owned(),
                some => format!("{:.digits$}", median(&some.iter().map(of).collect::<Vec<_>>())),
            };
            format!("{}, {}", median(&row.millrace), median(&row.flink))
        };
        text += &format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |\n",
            row.name,
            spread(&rates(&row.millrace)),
            spread(&rates(&row.flink)),
            if row.flink.is_empty() { "-".to_owned() } else { format!("{:.1}", row.ratio()) },
            pair(3, |one| one.cpu_per_million),
            pair(0, |one| one.peak_mib),
            pair(0, |one| one.checkpoints as f64),
            spread(&row.by_hand),
        );
    }
    text
}

fn spread(of: &[f64]) -> String {
    let (least, most) = of.iter().fold((f64::MAX, f64::MIN), |(least, most), one| (one.min(least), one.max(most)));
    match of.len() {
        0 => "-".to_owned(),
        1 => thousands(of[0]),
        _ => format!("{} ({} to {})", thousands(median(of)), thousands(least), thousands(most)),
    }
}

fn thousands(rate: f64) -> String {
    format!("{:.0} K", rate / 1e3)
}

/// Puts the table between the marks in a file.
pub fn replace(file: &Path, table: &str) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let marks = text.find(BEGIN).zip(text.find(END)).filter(|(begin, end)| begin < end);
    let (begin, end) = marks.with_context(|| format!("{} has no {BEGIN} and {END}", file.display()))?;
    let (before, after) = (&text[..begin], &text[end..]);
    std::fs::write(file, format!("{before}{BEGIN}\n{table}{after}"))
        .with_context(|| format!("writing {}", file.display()))
}

//! What the command tells a person: messages, and one live line under them on a terminal. On standard error, so that
//! standard output holds results alone.

use std::{
    io::{IsTerminal, Write, stderr},
    time::Instant,
};

use crate::progress::{PlainLines, Progress, cut};

/// The width where the terminal does not tell.
const WIDTH: usize = 80;

/// Where messages go.
pub struct Screen {
    is_terminal: bool,
    live: bool,
    plain: PlainLines,
}

impl Screen {
    /// Standard error.
    pub fn new() -> Self {
        Self { is_terminal: stderr().is_terminal(), live: false, plain: PlainLines::default() }
    }

    /// A message that stays.
    pub fn message(&mut self, text: &str) {
        let clear = if std::mem::take(&mut self.live) { "\r\x1b[2K" } else { "" };
        put(&format!("{clear}{text}\n"));
    }

    /// The job's progress: the live line on a terminal, a plain line now and then elsewhere.
    pub fn progress(&mut self, progress: &Progress) {
        if self.is_terminal {
            self.live = true;
            put(&format!("\r\x1b[2K{}", cut(&progress.line(), width())));
        } else if let Some(line) = self.plain.line(progress, Instant::now()) {
            put(&format!("{line}\n"));
        }
    }

    /// Leaves the live line as it is and goes on below it.
    pub fn finish_line(&mut self) {
        if std::mem::take(&mut self.live) {
            put("\n");
        }
    }
}

/// Nobody may be there to read any more; that must not end a job.
fn put(text: &str) {
    let mut stderr = stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

fn width() -> usize {
    rustix::termios::tcgetwinsize(stderr())
        .map(|size| usize::from(size.ws_col))
        .ok()
        .filter(|w| *w > 0)
        .unwrap_or(WIDTH)
}

//! Any text as the configuration file. What is accepted can be shown again.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use millrace_worker::config::Configuration;

fuzz_target!(|text: &str| {
    let mut config = Configuration::default();
    if config.read_text(Path::new("millrace.yaml"), text).is_ok() {
        let _ = config.settings();
        let _ = config.entries();
    }
});

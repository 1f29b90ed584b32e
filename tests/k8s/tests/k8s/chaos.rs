//! Chaos: each kind of fault once.

use millrace_k8s_tests::{
    Result,
    chaos::{Campaign, Fault},
    ensure,
    suite::Suite,
};

pub fn fifteen_faults(suite: &Suite) -> Result<()> {
    let seed = std::env::var("SEED").ok().map(|text| text.parse::<u64>()).transpose()?;
    let campaign = Campaign { faults: Fault::ALL.len(), seed: seed.unwrap_or_else(rand::random) };
    let report = suite.block_on(campaign.run(&suite.cluster, &suite.release))?;
    println!("{report}{}", report.last_line());
    ensure!(report.is_right(), "{}; seed {}", report.last_line(), campaign.seed);
    Ok(())
}

//! A hundred faults, or as many as `FAULTS` says, with the seed that `SEED` says.

use millrace_k8s_tests::{Result, chaos::Campaign, ensure, suite::Suite};

pub fn hundred(suite: &Suite) -> Result<()> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>()).transpose();
    let (faults, seed) = (number("FAULTS")?.unwrap_or(100) as usize, number("SEED")?.unwrap_or_else(rand::random));
    let campaign = Campaign { faults, seed };
    let report = suite.block_on(campaign.run(&suite.cluster, &suite.release))?;
    println!("{report}{}", report.last_line());
    ensure!(report.is_right(), "{}; seed {}", report.last_line(), campaign.seed);
    Ok(())
}

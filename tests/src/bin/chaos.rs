//! Attacks a job: `make chaos N=… SEED=…`, for a job of one's own with JOB=… and ARGS=… as `docs/attack.md` says. The
//! last line sums it up; the exit code is not 0 where an output was lost, duplicated or out of order, where a fault did
//! not happen, or where the job did not recover.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
};

use clap::Parser;
use millrace_tests::attack::{Backend, Campaign, Fault, Focus, Guarantee, Job, Report, Result, Target};

/// Strikes faults at a job and checks that every input has its effect exactly once.
#[derive(Parser)]
struct Args {
    /// How many faults, over all backends.
    #[arg(long, default_value_t = 60)]
    faults: usize,
    /// Decides their order, whom they hit and when [default: a random one].
    #[arg(long)]
    seed: Option<u64>,
    /// Only these faults.
    #[arg(long, value_delimiter = ',', value_parser = Fault::named)]
    only: Vec<Fault>,
    /// A job whose sink commits with the checkpoint, struck at every step of that.
    #[arg(long)]
    sinks: bool,
    /// What the harness's own job writes to: kafka, files, s3, postgres [default: kafka, and with --sinks the first three].
    #[arg(long, value_delimiter = ',', value_parser = Target::named, conflicts_with = "job")]
    target: Vec<Target>,
    /// So many campaigns go on side by side, each with services and processes of its own: they are in each other's way, so
    /// that recoveries take longer.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    parallel: u8,
    /// The state backends: memory, filesystem, rocksdb [default: all that the program has].
    #[arg(long, value_delimiter = ',', value_parser = backend)]
    backend: Vec<Backend>,
    /// The job's program [default: the harness's own job].
    #[arg(long)]
    job: Option<PathBuf>,
    /// How many slots the job needs.
    #[arg(long, default_value_t = 2, requires = "job")]
    slots: usize,
    /// The job's sink writes exactly once: only committed outputs are read, and none may come twice.
    #[arg(long)]
    exactly_once: bool,
    /// A setting of the job.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    settings: Vec<(String, String)>,
    /// A file with records to feed the job with, over and over again, one a line: a key, a tab and the value.
    #[arg(long, requires = "job")]
    records: Option<PathBuf>,
    /// The job's arguments, in which {kafka}, {input}, {output} and {name} are replaced.
    #[arg(last = true, requires = "job")]
    args: Vec<String>,
}

fn backend(name: &str) -> Result<Backend, String> {
    let all = [Backend::Memory, Backend::Filesystem, Backend::RocksDb];
    let found = all.into_iter().find(|backend| backend.name() == name);
    found.ok_or_else(|| format!("{name:?} is no backend; there are memory, filesystem and rocksdb"))
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is no KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

fn main() -> ExitCode {
    match Args::parse().run() {
        Ok(report) => {
            println!("{report}{}", report.last_line());
            if report.verdict.is_right() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Args {
    fn run(&self) -> Result<Report> {
        let seed = self.seed.unwrap_or_else(rand::random);
        println!("{} faults over {:?}; replay with N={} SEED={seed}", self.faults, self.backends(), self.faults);
        let campaigns = Mutex::new(self.campaigns(seed)?.into_iter());
        let next = || campaigns.lock().unwrap_or_else(PoisonError::into_inner).next();
        let run_one_after_the_other = || -> Result<Report> {
            let mut report = Report::default();
            while let Some((barriers, campaign)) = next() {
                let Campaign { backend, faults, seed, ref job, .. } = campaign;
                let target = job.target.name();
                println!("{faults} faults on {}, {barriers} barriers, to {target}, seed {seed}", backend.name());
                // One that fails fails the run: no others begin, and those under way need not be waited for to see why.
                report.add(campaign.run().inspect_err(|error| {
                    println!("seed {seed}: {error}");
                    while next().is_some() {}
                })?);
            }
            Ok(report)
        };
        thread::scope(|scope| {
            let all: Vec<_> = (0..self.parallel).map(|_| scope.spawn(run_one_after_the_other)).collect();
            let mut report = Report::default();
            for part in all {
                report.add(part.join().map_err(|_| "a campaign panicked")??);
            }
            Ok(report)
        })
    }

    fn backends(&self) -> Vec<Backend> {
        match (self.backend.as_slice(), &self.job) {
            ([], None) if cfg!(feature = "rocksdb") => vec![Backend::Memory, Backend::Filesystem, Backend::RocksDb],
            ([], _) => vec![Backend::Memory, Backend::Filesystem],
            (given, _) => given.to_vec(),
        }
    }

    fn targets(&self) -> Vec<Target> {
        match (self.target.as_slice(), &self.job) {
            ([], None) if self.sinks => Target::COMMITTED.to_vec(),
            ([], _) => vec![Target::Kafka],
            (given, _) => given.to_vec(),
        }
    }

    /// One for each backend, target and kind of barriers, named.
    fn campaigns(&self, seed: u64) -> Result<Vec<(&'static str, Campaign)>> {
        if let Some(target) = self.targets().iter().find(|target| self.sinks && !Target::COMMITTED.contains(target)) {
            let name = target.name();
            return Err(format!(
                "--sinks strikes at the steps of a commit, and --target {name} has none: leave one away"
            )
            .into());
        }
        let job = self.job()?;
        // What a sink has prepared is the same with both, and what comes before it is not.
        let mut jobs = vec![("aligned", job.clone())];
        if self.sinks {
            jobs.push(("unaligned", job.unaligned()));
        }
        let mut all = Vec::new();
        for backend in self.backends() {
            for target in self.targets() {
                let (kinds, focus) = match self.sinks {
                    true if self.only.is_empty() => (Fault::at_sinks(target), Focus::Sinks),
                    true => (self.only.clone(), Focus::Sinks),
                    false => (self.only.clone(), Focus::All),
                };
                for (barriers, job) in &jobs {
                    let (job, kinds) = (job.clone().to(target), kinds.clone());
                    all.push((*barriers, Campaign { job, backend, faults: 0, kinds, focus, seed: 0 }));
                }
            }
        }
        let count = all.len();
        for (index, (_, campaign)) in all.iter_mut().enumerate() {
            campaign.faults = self.faults / count + usize::from(index < self.faults % count);
            campaign.seed = seed.wrapping_add(index as u64);
        }
        all.retain(|(_, campaign)| campaign.faults > 0);
        Ok(all)
    }

    fn job(&self) -> Result<Job> {
        let mut job = match &self.job {
            Some(program) => Job { slots: self.slots, ..Job::new(program.canonicalize()?, &self.args) },
            None => {
                let program = std::env::current_exe()?.with_file_name("attacked_job");
                if self.sinks || self.exactly_once { Job::own_exactly_once(program) } else { Job::own(program) }
            }
        };
        job.config.clone_from(&self.settings);
        if self.exactly_once || self.sinks {
            job.guarantee = Guarantee::ExactlyOnce;
        }
        if let Some(path) = &self.records {
            let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            let split = |line: &str| match line.split_once('\t') {
                Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
                None => Err(format!("{}: no tab between key and value in {line:?}", path.display())),
            };
            job.records = text.lines().map(split).collect::<Result<_, _>>()?;
        }
        Ok(job)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;
    use millrace_tests::attack::SINK_STEPS;

    use super::*;

    /// However few faults each campaign of it has.
    #[test]
    fn the_default_run_at_sinks_strikes_each_step_of_each_target() {
        let args = Args::try_parse_from(["chaos", "--sinks"]).unwrap();
        for seed in 0..50 {
            let campaigns = args.campaigns(seed).unwrap();
            assert_eq!(campaigns.iter().map(|(_, campaign)| campaign.faults).sum::<usize>(), args.faults);
            for target in Target::COMMITTED {
                let of_target = campaigns.iter().filter(|(_, campaign)| campaign.job.target == target);
                let moments: BTreeSet<_> =
                    of_target.flat_map(|(_, campaign)| campaign.plan()).map(|strike| strike.moment).collect();
                assert!(SINK_STEPS.iter().all(|step| moments.contains(step)), "{target:?}, seed {seed}: {moments:?}");
            }
        }
    }

    #[test]
    fn the_flags_are_consistent() {
        Args::command().debug_assert();
        let parse = |line: &str| Args::try_parse_from(["chaos"].into_iter().chain(line.split(' ')));
        let args = parse("--faults 9 --seed 1 --only kill-both,disk-full --backend memory").unwrap();
        assert_eq!((args.only, args.backend), (vec![Fault::KillBoth, Fault::DiskFull], vec![Backend::Memory]));
        let args = parse("--job j --exactly-once --set a=b=c -- --kafka {kafka}").unwrap();
        assert_eq!(args.settings, [("a".to_owned(), "b=c".to_owned())]);
        assert_eq!(args.args, ["--kafka", "{kafka}"]);
        let error = parse("--sinks --target postgres").unwrap().campaigns(1).unwrap_err().to_string();
        assert!(error.contains("--target postgres"), "{error}");
        for wrong in ["--only meteorite", "--backend tape", "--set a", "--records f", "-- --kafka b"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}

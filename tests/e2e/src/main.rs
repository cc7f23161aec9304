//! End-to-end tests: scenarios of real containers under a real containerd.
//!
//! Run as root inside a test host. The arguments are those of any Rust test program,
//! and `--shim stock|cryo|dropin`. The last line says what was run and what was not.
//! `demo` and `bench` as the first argument show and measure instead.
#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::result_large_err,
    reason = "a test program may stop at once; gRPC's status is what it is"
)]

mod demo;
mod harness;
mod measure;
mod scenarios;
mod versions;

use std::collections::BTreeMap;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Conclusion};

use harness::trial::{Plan, plan, slowest};
use harness::{Skip, read_settings, settings, slot};

/// Trials mostly wait for processes: more of them than processors keep those busy.
const THREADS_PER_PROCESSOR: usize = 2;

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("demo") => return demo::main(),
        Some("bench") => return measure::main(&args[2..]),
        _ => {}
    }
    if let Err(failure) = read_settings(&mut args) {
        eprintln!("cryo-e2e: {}", failure.text());
        return ExitCode::from(64);
    }
    let mut arguments = Arguments::from_iter(args);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    arguments.test_threads.get_or_insert(processors * THREADS_PER_PROCESSOR);

    let plan = plan(scenarios::all());
    let Plan { trials, skipped } = plan;
    if !arguments.list
        && let Err(failure) = slot::set_up()
    {
        eprintln!("cryo-e2e: {failure}");
        return ExitCode::FAILURE;
    }
    let skips: Vec<Skip> = skipped
        .into_iter()
        .filter(|(name, _)| {
            let trial = libtest_mimic::Trial::test(name, || Ok(())).with_ignored_flag(true);
            !arguments.is_filtered_out(&trial) && arguments.is_ignored(&trial)
        })
        .map(|(_, skip)| skip)
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if arguments.list {
        return ExitCode::SUCCESS;
    }
    slot::tear_down();
    for (took, name) in slowest(5) {
        println!("{:6.1} s  {name}", took.as_secs_f64());
    }
    print_reasons(&skips);
    if conclusion.num_passed + conclusion.num_failed + conclusion.num_ignored == 0 {
        eprintln!("cryo-e2e: no scenario has these words in its name; --list shows them");
        return ExitCode::from(64);
    }
    println!("{}", totals(&conclusion, &skips));
    conclusion.exit_code()
}

fn print_reasons(skips: &[Skip]) {
    let mut reasons: BTreeMap<&Skip, usize> = BTreeMap::new();
    skips.iter().for_each(|skip| *reasons.entry(skip).or_default() += 1);
    for (reason, count) in reasons {
        println!("{count:4} skipped: {reason}");
    }
}

fn totals(conclusion: &Conclusion, skips: &[Skip]) -> String {
    let demanded = skips.iter().filter(|skip| matches!(skip, Skip::DemandedOfCryo(_))).count();
    let mut line = format!(
        "e2e with shim {:?}: {} passed, {} failed, {} skipped",
        settings().shim,
        conclusion.num_passed,
        conclusion.num_failed,
        conclusion.num_ignored
    );
    if demanded > 0 {
        line += &format!("; {demanded} because the stock shim can't do what is demanded of ours");
    }
    if skips.len() > demanded {
        line += &format!("; {} because they are impossible with these versions", skips.len() - demanded);
    }
    line
}

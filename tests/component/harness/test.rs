//! Tests as the library behind `cargo test` sees them.

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use super::isolation::{self, Isolation};
use super::world::World;

/// Tests mostly wait for processes: more of them than processors keep those busy.
const THREADS_PER_PROCESSOR: usize = 3;
/// The status with which a test says that this machine can't run it.
pub(crate) const SKIPPED: u8 = 77;

pub(crate) struct Test {
    name: String,
    run: Arc<dyn Fn(&World) + Send + Sync>,
}

impl Test {
    pub(crate) fn new(name: impl Into<String>, run: impl Fn(&World) + Send + Sync + 'static) -> Test {
        Test { name: name.into(), run: Arc::new(run) }
    }

    /// For a function of a module, which is the room or a part of it.
    pub(crate) fn in_room(module: &str, function: &str, run: fn(&World)) -> Test {
        let room = module.split("::").nth(1).expect("tests are in rooms below the crate");
        Test::new(format!("{room}::{function}"), run)
    }
}

/// Tests by the names of their room and their functions. Which of a room's files a test is
/// in can change; what it is called by doesn't.
macro_rules! tests {
    ($($test:ident),* $(,)?) => {
        vec![$(crate::harness::Test::in_room(module_path!(), stringify!($test), $test)),*]
    };
}
pub(crate) use tests;

/// Runs every test in its own namespaces.
pub(crate) fn conduct(tests: Vec<Test>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    arguments.test_threads.get_or_insert(processors * THREADS_PER_PROCESSOR);
    let isolation = match arguments.list {
        true => None,
        false => match Isolation::prepare() {
            Ok(isolation) => Some(Arc::new(isolation)),
            Err(problem) => {
                eprintln!("cryo-component: {problem}");
                return ExitCode::FAILURE;
            }
        },
    };
    let skipped = Arc::new(Mutex::new(Vec::new()));
    let trial = |test: Test| {
        let (isolation, skipped) = (isolation.clone(), skipped.clone());
        Trial::ignorable_test(test.name.clone(), move || {
            let outcome = isolation.as_ref().ok_or("no test runs while they are listed")?.run(&test.name);
            match outcome {
                isolation::Outcome::Passed => Ok(Completion::Completed),
                isolation::Outcome::Skipped(reason) => {
                    skipped.lock().unwrap().push(format!("{}: {reason}", test.name));
                    Ok(Completion::ignored_with(reason))
                }
                isolation::Outcome::Failed(report) => Err(Failed::from(report)),
            }
        })
    };
    let conclusion = libtest_mimic::run(&arguments, tests.into_iter().map(trial).collect());
    for reason in skipped.lock().unwrap().iter() {
        println!("   1 skipped: {reason}");
    }
    conclusion.exit_code()
}

/// Runs one test here; this is the process inside the namespaces.
pub(crate) fn run(tests: Vec<Test>, name: &str) -> ExitCode {
    let Some(test) = tests.into_iter().find(|test| test.name == name) else {
        eprintln!("there is no test {name}");
        return ExitCode::FAILURE;
    };
    let world = World::new();
    match world.host(|world| (test.run)(world)) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Ends a test that this machine can't run.
pub(crate) fn skip(reason: &str) -> ! {
    eprintln!("{reason}");
    std::process::exit(SKIPPED.into());
}

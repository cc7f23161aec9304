//! Real programs under load, each of which says by itself what it lost (see `tests/zoo`).

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::harness::*;

const FILES: &[(&str, &str)] = &[
    ("zoo.py", include_str!("../../../../zoo/zoo.py")),
    ("check.py", include_str!("../../../../zoo/check.py")),
    ("python.py", include_str!("../../../../zoo/python.py")),
    ("redis.py", include_str!("../../../../zoo/redis.py")),
    ("nginx.py", include_str!("../../../../zoo/nginx.py")),
    ("database.py", include_str!("../../../../zoo/database.py")),
    ("mariadb.py", include_str!("../../../../zoo/mariadb.py")),
    ("postgres.py", include_str!("../../../../zoo/postgres.py")),
    ("node.js", include_str!("../../../../zoo/node.js")),
    ("Jvm.java", include_str!("../../../../zoo/Jvm.java")),
];

/// Some compile themselves first.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// Its connections on the loopback are to survive.
const TCP: &[&str] = &["--annotation", "cryo.tcp=established"];
pub(crate) fn scenarios() -> Vec<Scenario> {
    let all = [
        Scenario::new("zoo::python", |bench| survives(bench, &[], &["python3", "/zoo/python.py"])),
        Scenario::new("zoo::redis", |bench| survives(bench, &[], &["python3", "/zoo/redis.py"])),
        Scenario::new("zoo::redis_by_tcp", |bench| {
            survives(bench, TCP, &["python3", "/zoo/redis.py", "tcp"])
        }),
        Scenario::new("zoo::nginx", |bench| survives(bench, &[], &["python3", "/zoo/nginx.py"])),
        Scenario::new("zoo::nginx_by_tcp", |bench| {
            survives(bench, TCP, &["python3", "/zoo/nginx.py", "tcp"])
        }),
        Scenario::new("zoo::node", |bench| survives(bench, &[], &["node", "/zoo/node.js"])),
        Scenario::new("zoo::jvm", |bench| survives(bench, &[], &["java", "-Xmx64m", "/zoo/Jvm.java"])),
        Scenario::new("zoo::jvm_by_tcp", |bench| {
            survives(bench, TCP, &["java", "-Xmx64m", "/zoo/Jvm.java", "tcp"])
        }),
        Scenario::new("zoo::mariadb", |bench| survives(bench, &[], &["python3", "/zoo/mariadb.py"])),
        Scenario::new("zoo::postgres", |bench| survives(bench, &[], &["python3", "/zoo/postgres.py"]))
            .with_other_users(),
    ];
    all.into_iter().map(|scenario| scenario.with_docker().comes_back().long().with_workloads()).collect()
}

fn survives(bench: &Bench, options: &[&str], command: &[&str]) -> Outcome {
    let docker = Docker::at(bench);
    let volume = format!("{}:/zoo:ro", programs(bench)?.display());
    let container = docker.run_workload(&[&["--volume", &volume], options].concat(), command)?;
    let ready = || container.logs().ok()?.lines().any(|line| line == "ready").then_some(());
    let said = || container.logs().unwrap_or_default();
    eventually_within(START_PATIENCE, "it is ready", ready).during(said)?;
    // Its exit code says whether anything was lost.
    let check = || container.exec(&["python3", "/zoo/check.py"]);
    check()?;
    container.copy("copy")?;
    check()?;
    for round in ["one", "two", "three"] {
        container.come_back(round)?;
        check().during(|| format!("after round {round}"))?;
    }
    container.rm()
}

fn programs(bench: &Bench) -> Outcome<PathBuf> {
    let folder = bench.fresh_folder("zoo")?;
    for (name, text) in FILES {
        fs::write(folder.join(name), text)?;
    }
    Ok(folder)
}

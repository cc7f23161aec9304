//! What confines a container confines it again.

use std::path::Path;

use super::{back, counting};
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let no_init = |_: &Combination, _: &Settings| !Path::new("/usr/bin/docker-init").exists();
    vec![
        docker_scenario!(masked_and_guarded_paths_are_so_again),
        docker_scenario!(system_calls_are_filtered_again),
        docker_scenario!(its_filter_is_the_same_to_the_byte),
        docker_scenario!(rights_are_the_same_as_before),
        docker_scenario!(another_user_with_fewer_rights_is_the_same_as_before).with_other_users(),
        docker_scenario!(a_privileged_container_is_so_again),
        docker_scenario!(processes_added_later_have_the_same_rights).with_other_users(),
        docker_scenario!(what_a_privileged_exec_left_behind_is_refused_by_name),
        docker_scenario!(an_init_process_is_there_again).impossible_if(no_init, "there is no docker-init"),
    ]
    .into_iter()
    .map(Scenario::comes_back)
    .collect()
}

fn masked_and_guarded_paths_are_so_again(docker: &Docker<'_>) -> Outcome {
    let look = "ls -A /proc/acpi /sys/firmware 2>/dev/null | wc -l; head -c 9 /proc/kcore | wc -c; \
        for guarded in /proc/sys/kernel/hostname /sys/kernel/uevent_helper; do \
        ( echo x >$guarded ) 2>/dev/null && echo written $guarded; done; \
        grep -E ' (/proc/|/sys)' /proc/mounts | cut -d ' ' -f 2 | sort";
    let container = counting(docker, &[])?;
    let before = container.shell(&format!("{look} || true"))?;
    container.come_back("one")?;
    let after = container.shell(&format!("{look} || true"))?;
    ensure_eq!(after, before, "what can be seen");
    ensure!(!after.contains("written"), "it could write: {after}");
    container.rm()
}

const RIGHTS: &str =
    "^(Uid|Gid|Groups|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp|Seccomp_filters|Umask):";

fn rights(container: &Container<'_>) -> Outcome<String> {
    container.exec(&["grep", "-E", RIGHTS, "/proc/1/status"])
}

fn come_back_with_the_same_rights(docker: &Docker<'_>, options: &[&str]) -> Outcome {
    let container = counting(docker, options)?;
    let before = rights(&container)?;
    for generation in ["one", "two"] {
        container.come_back(generation)?;
        ensure_eq!(rights(&container)?, before, "its rights");
    }
    container.is_well()?;
    container.rm()
}

fn system_calls_are_filtered_again(docker: &Docker<'_>) -> Outcome {
    let container = back(docker, &[])?;
    let text = rights(&container)?;
    ensure!(text.contains("Seccomp:\t2"), "its first process has {text}");
    let said = docker.refusal(&["exec", &container.name, "unshare", "--mount", "true"])?;
    ensure!(said.contains("Operation not permitted"), "it says {said}");
    let added = container.exec(&["grep", "Seccomp:", "/proc/self/status"])?;
    ensure_eq!(added, "Seccomp:\t2\n", "of an added process");
    container.rm()
}

/// Prints the filters of a process, the newest first.
const FILTERS: &str = r#"
import ctypes, os, sys
libc, pid = ctypes.CDLL(None, use_errno=True), int(sys.argv[1])

def ptrace(request, address=0, data=None):
    answer = libc.ptrace(request, pid, ctypes.c_void_p(address), data)
    if answer < 0:
        raise OSError(ctypes.get_errno(), "ptrace")
    return answer

SEIZE, INTERRUPT, GET_FILTER = 0x4206, 0x4207, 0x420c
ptrace(SEIZE)
ptrace(INTERRUPT)
os.waitpid(pid, 0x40000000)
count = next(int(line.split()[1]) for line in open(f"/proc/{pid}/status") if line.startswith("Seccomp_filters:"))
for number in range(count):
    program = ctypes.create_string_buffer(8 * ptrace(GET_FILTER, number))
    ptrace(GET_FILTER, number, program)
    print(bytes(program).hex())
"#;

fn its_filter_is_the_same_to_the_byte(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    let filters = || {
        let pid = container.pid()?.to_string();
        docker.bench.shell("python3 -c \"$1\" \"$2\"", &[FILTERS.as_ref(), pid.as_ref()])
    };
    let before = filters()?;
    ensure!(before.len() > 1000, "its filter is {before:?}");
    for generation in ["one", "two"] {
        container.come_back(generation)?;
        ensure!(filters()? == before, "after {generation} it was\n{before}and is\n{}", filters()?);
    }
    container.is_well()?;
    container.rm()
}

fn rights_are_the_same_as_before(docker: &Docker<'_>) -> Outcome {
    come_back_with_the_same_rights(docker, &[])
}

fn another_user_with_fewer_rights_is_the_same_as_before(docker: &Docker<'_>) -> Outcome {
    let options = ["--user", "1000:1001", "--group-add", "1002", "--cap-drop", "NET_RAW"];
    come_back_with_the_same_rights(docker, &[&options[..], &["--security-opt", "no-new-privileges"]].concat())
}

fn a_privileged_container_is_so_again(docker: &Docker<'_>) -> Outcome {
    come_back_with_the_same_rights(docker, &["--privileged"])
}

fn processes_added_later_have_the_same_rights(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &["--user", "1000", "--cap-drop", "ALL", "--cap-add", "CHOWN"])?;
    let added = || container.exec(&["grep", "-E", RIGHTS, "/proc/self/status"]);
    let before = added()?;
    container.come_back("one")?;
    ensure_eq!(added()?, before, "the rights of an added process");
    container.rm()
}

fn an_init_process_is_there_again(docker: &Docker<'_>) -> Outcome {
    let container = back(docker, &["--init"])?;
    let first = container.exec(&["cat", "/proc/1/comm"])?;
    ensure_eq!(first, "docker-init\n", "its first process");
    container.is_well()?;
    container.call(&["stop"])?;
    ensure_eq!(container.inspect(".State.ExitCode")?, "143", "the exit code");
    container.rm()
}

fn what_a_privileged_exec_left_behind_is_refused_by_name(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &[])?;
    let leaves = [
        "exec",
        "--privileged",
        &container.name,
        "sh",
        "-c",
        "setsid guest idle </dev/null >/dev/null 2>&1 &",
    ];
    docker.call(&leaves)?;
    let left = || container.call(&["top"]).ok().filter(|text| text.contains("guest idle")).map(drop);
    eventually("it has started", left)?;
    let refusal = container.checkpoint_refusal("one")?;
    ensure!(refusal.contains("guest (pid ") && refusal.contains("may do more than"), "{refusal}");
    // The first process isn't to be killed from inside.
    container.shell("kill -9 $(pidof guest)")?;
    container.is_well()?;
    container.rm()
}

//! Everything Docker mounts into a container is there again, with what was in it.

use std::fs;

use super::{back, counting};
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        docker_scenario!(names_and_addresses_of_the_host_are_there_again),
        docker_scenario!(folders_and_files_of_the_host_are_there_again),
        docker_scenario!(what_may_only_be_read_still_may_only_be_read),
        docker_scenario!(a_volume_keeps_what_is_in_it),
        docker_scenario!(a_volume_may_have_changed_meanwhile),
        docker_scenario!(a_volume_that_a_copy_lacks_is_named),
        docker_scenario!(a_tmpfs_comes_back_with_its_files),
        docker_scenario!(shared_memory_comes_back_with_its_files),
        docker_scenario!(a_root_that_may_only_be_read_stays_so),
        docker_scenario!(a_device_is_there_again),
        docker_scenario!(a_file_bound_over_another_is_there_again),
    ]
    .into_iter()
    .map(Scenario::comes_back)
    .collect()
}

fn names_and_addresses_of_the_host_are_there_again(docker: &Docker<'_>) -> Outcome {
    let options = ["--hostname", "box", "--add-host", "other:10.1.2.3", "--dns", "10.9.9.9"];
    let container = back(docker, &options)?;
    ensure_eq!(container.exec(&["hostname"])?, "box\n", "its name");
    ensure_eq!(container.exec(&["cat", "/etc/hostname"])?, "box\n", "its name in the file");
    let hosts = container.exec(&["cat", "/etc/hosts"])?;
    ensure!(hosts.contains("10.1.2.3\tother"), "/etc/hosts has {hosts}");
    let address = container.inspect("range .NetworkSettings.Networks}}{{.IPAddress}}{{end")?;
    ensure!(hosts.contains(&format!("{address}\tbox")), "/etc/hosts lacks {address}: {hosts}");
    let resolver = container.exec(&["cat", "/etc/resolv.conf"])?;
    ensure!(resolver.contains("nameserver 10.9.9.9"), "/etc/resolv.conf has {resolver}");
    container.rm()
}

fn folders_and_files_of_the_host_are_there_again(docker: &Docker<'_>) -> Outcome {
    let folder = docker.bench.fresh_folder("bound")?;
    let file = folder.join("file");
    fs::write(&file, "first\n")?;
    let (whole, single) = (format!("{}:/data", folder.display()), format!("{}:/single", file.display()));
    let container = counting(docker, &["-v", &whole, "-v", &single])?;
    container.shell("echo inside >/data/made; exec 3>/data/open")?;
    container.come_back("one")?;
    ensure_eq!(container.exec(&["cat", "/data/made", "/single"])?, "inside\nfirst\n", "the files");
    container.shell("echo second >/single; echo more >/data/more")?;
    ensure_eq!(fs::read_to_string(&file)?, "second\n", "the file outside");
    ensure_eq!(fs::read_to_string(folder.join("more"))?, "more\n", "the new file outside");
    container.rm()
}

fn what_may_only_be_read_still_may_only_be_read(docker: &Docker<'_>) -> Outcome {
    let folder = docker.bench.fresh_folder("bound")?;
    fs::write(folder.join("file"), "first\n")?;
    let whole = format!("{}:/data:ro", folder.display());
    let single = format!("{}:/single:ro", folder.join("file").display());
    let container = counting(docker, &["-v", &whole, "-v", &single])?;
    let can_not_write = || -> Outcome {
        for path in ["/data/new", "/single"] {
            let script = format!("echo written >{path}");
            let said = docker.refusal(&["exec", &container.name, "sh", "-c", &script])?;
            ensure!(said.contains("Read-only file system"), "writing {path}: {said}");
        }
        Ok(())
    };
    can_not_write().during(|| "before".into())?;
    container.come_back("one")?;
    let mounts = container.shell("grep -E ' /(data|single) ' /proc/self/mountinfo")?;
    can_not_write().during(|| format!("with {mounts}"))?;
    ensure_eq!(container.exec(&["cat", "/single"])?, "first\n", "the file");
    container.rm()
}

fn a_volume_keeps_what_is_in_it(docker: &Docker<'_>) -> Outcome {
    let volume = format!("{}-volume:/data", docker.bench.next_id());
    let container = counting(docker, &["-v", &volume, "-v", "/anonymous"])?;
    container.shell("echo kept >/data/file; echo also >/anonymous/file")?;
    container.come_back("one")?;
    ensure_eq!(container.exec(&["cat", "/data/file", "/anonymous/file"])?, "kept\nalso\n", "the files");
    container.rm()
}

fn a_volume_may_have_changed_meanwhile(docker: &Docker<'_>) -> Outcome {
    let volume = format!("{}-volume:/data", docker.bench.next_id());
    let container = counting(docker, &["-v", &volume])?;
    container.shell("echo before >/data/file")?;
    container.checkpoint("one")?;
    docker.output_of(&["-v", &volume], &["sh", "-c", "echo meanwhile >/data/file"])?;
    container.start_from("one")?;
    ensure_eq!(container.exec(&["cat", "/data/file"])?, "meanwhile\n", "the file");
    container.rm()
}

fn a_volume_that_a_copy_lacks_is_named(docker: &Docker<'_>) -> Outcome {
    let volume = format!("{}-volume:/data/deep", docker.bench.next_id());
    let container = counting(docker, &["-v", &volume])?;
    container.copy("one")?;
    let copy = docker.create(&[], &["true"])?;
    container.hand_over("one", &copy)?;
    super::names(
        &copy.start_refusal("one")?,
        &["the container had a mount at /data/deep, and has none now"],
    )?;
    copy.rm()?;
    container.is_well()?;
    container.rm()
}

fn a_tmpfs_comes_back_with_its_files(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &["--tmpfs", "/scratch:size=8m,mode=1770"])?;
    container.shell("mkdir /scratch/deep; echo kept >/scratch/deep/file")?;
    let options = || container.shell("grep ' /scratch ' /proc/mounts; stat -c %a /scratch");
    let before = options()?;
    container.come_back("one")?;
    ensure_eq!(container.exec(&["cat", "/scratch/deep/file"])?, "kept\n", "the file");
    ensure_eq!(options()?, before, "the mount and its mode");
    container.rm()
}

fn shared_memory_comes_back_with_its_files(docker: &Docker<'_>) -> Outcome {
    let container = counting(docker, &["--shm-size", "16m"])?;
    container.shell("echo kept >/dev/shm/file")?;
    for generation in ["one", "two"] {
        container.come_back(generation)?;
        ensure_eq!(container.exec(&["cat", "/dev/shm/file"])?, "kept\n", "the file");
        let size = container.shell("df -m /dev/shm | tail -n 1")?;
        ensure_eq!(size.split_whitespace().nth(1), Some("16"), "the size in {size}");
    }
    container.rm()
}

fn a_root_that_may_only_be_read_stays_so(docker: &Docker<'_>) -> Outcome {
    let container = back(docker, &["--read-only", "--tmpfs", "/tmp"])?;
    let said = docker.refusal(&["exec", &container.name, "sh", "-c", "echo written >/etc/new"])?;
    ensure!(said.contains("Read-only file system"), "it says {said}");
    container.shell("echo written >/tmp/new")?;
    container.is_well()?;
    container.rm()
}

fn a_device_is_there_again(docker: &Docker<'_>) -> Outcome {
    let container = back(docker, &["--device", "/dev/null:/dev/nothing"])?;
    container.shell("test -c /dev/nothing; echo gone >/dev/nothing")?;
    // One that it wasn't given may be made, and yet not be used.
    let script = "mknod /tmp/kmsg c 1 11; head -c 1 /tmp/kmsg";
    let said = docker.refusal(&["exec", &container.name, "sh", "-ec", script])?;
    ensure!(said.contains("Operation not permitted"), "it says {said}");
    container.rm()
}

fn a_file_bound_over_another_is_there_again(docker: &Docker<'_>) -> Outcome {
    let file = docker.bench.fresh_folder("bound")?.join("passwd");
    fs::write(&file, "root:x:0:0:bound:/root:/bin/sh\n")?;
    let container = back(docker, &["-v", &format!("{}:/etc/passwd:ro", file.display())])?;
    let text = container.exec(&["cat", "/etc/passwd"])?;
    ensure!(text.contains("bound"), "/etc/passwd has {text}");
    container.rm()
}

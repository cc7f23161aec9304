//! What a container may do.

use std::path::Path;

use super::{script, status_of};
use crate::harness::cri::security_profile::ProfileType;
use crate::harness::cri::{
    Capability, Device, IdMapping, Int64Value, LinuxContainerSecurityContext, NamespaceMode, SecurityProfile,
    UserNamespace,
};
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        kube_scenario!(users_and_groups_are_as_asked),
        kube_scenario!(a_user_is_found_by_name),
        kube_scenario!(a_root_filesystem_may_be_read_only),
        kube_scenario!(capabilities_are_added_and_dropped),
        kube_scenario!(new_privileges_may_be_forbidden),
        kube_scenario!(the_default_filter_forbids_what_it_forbids_everywhere),
        kube_scenario!(a_filter_of_the_node_holds_for_added_programs_too),
        kube_scenario!(a_filter_that_is_not_there_is_named),
        kube_scenario!(paths_are_masked_and_read_only),
        kube_scenario!(a_privileged_container_may_do_everything),
        kube_scenario!(devices_are_there_with_the_rights_that_were_asked_for),
        kube_scenario!(a_profile_of_apparmor_holds)
            .impossible_if(|_, _| !has_apparmor(), "the kernel has no AppArmor"),
        kube_scenario!(a_pod_may_have_users_of_its_own).impossible_if(
            |_, settings| settings.containerd < Version(2, 0),
            "pods can't have users of their own",
        ),
    ]
}

fn has_apparmor() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

fn number(value: i64) -> Option<Int64Value> {
    Some(Int64Value { value })
}

fn profile(kind: ProfileType, path: &Path) -> Option<SecurityProfile> {
    Some(SecurityProfile { profile_type: kind as i32, localhost_ref: path.display().to_string() })
}

/// A container that idles, confined like that.
#[track_caller]
fn confined<'p, 'b>(
    pod: &'p Pod<'b>,
    change: impl FnOnce(&mut LinuxContainerSecurityContext),
) -> Outcome<PodContainer<'p, 'b>> {
    pod.container(&["/bin/guest", "idle"]).security(change).start()
}

fn users_and_groups_are_as_asked(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = confined(&pod, |context| {
        context.run_as_user = number(1000);
        context.run_as_group = number(2000);
        context.supplemental_groups = vec![3000, 4000];
    })?;
    let of = |name| status_of(container.pid()?, name);
    ensure_eq!(of("Uid")?, "1000\t1000\t1000\t1000", "users");
    ensure_eq!(of("Gid")?, "2000\t2000\t2000\t2000", "groups");
    let groups = of("Groups")?;
    ensure!(groups.contains("3000 4000"), "more groups: {groups}");
    ensure_eq!(container.shell("id -u; id -g")?, "1000\n2000\n", "of added programs");
    pod.end()
}

fn a_user_is_found_by_name(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = confined(&pod, |context| context.run_as_username = "root".into())?;
    ensure_eq!(status_of(container.pid()?, "Uid")?, "0\t0\t0\t0", "users");
    let plan = pod.container(&["/bin/guest", "idle"]);
    let said = plan.security(|context| context.run_as_username = "nobody-here".into()).refusal()?;
    ensure!(said.contains("nobody-here") || said.contains("no users found"), "{said}");
    pod.end()
}

fn a_root_filesystem_may_be_read_only(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = confined(&pod, |context| context.readonly_rootfs = true)?;
    let tried = container.shell("touch /file 2>&1 || true; touch /dev/shm/file && echo well")?;
    ensure!(tried.contains("Read-only file system") && tried.ends_with("well\n"), "{tried}");
    pod.end()
}

fn capabilities_are_added_and_dropped(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let effective = |change: fn(&mut Capability)| -> Outcome<u64> {
        let container = confined(&pod, |context| change(context.capabilities.get_or_insert_default()))?;
        let text = status_of(container.pid()?, "CapEff")?;
        Ok(u64::from_str_radix(&text, 16)?)
    };
    let net_admin = 1 << 12;
    let usual = effective(|_| {})?;
    ensure_eq!(usual & net_admin, 0, "to administer networks, among the usual ones");
    let more = effective(|wanted| wanted.add_capabilities = vec!["NET_ADMIN".into()])?;
    ensure_eq!(more, usual | net_admin, "with one more");
    let fewer = effective(|wanted| wanted.drop_capabilities = vec!["ALL".into()])?;
    ensure_eq!(fewer, 0, "without any");
    pod.end()
}

fn new_privileges_may_be_forbidden(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = confined(&pod, |context| context.no_new_privs = true)?;
    ensure_eq!(status_of(container.pid()?, "NoNewPrivs")?, "1", "whether they are");
    ensure_eq!(
        container.shell("grep NoNewPrivs /proc/self/status")?.trim(),
        "NoNewPrivs:\t1",
        "for added ones"
    );
    let usual = confined(&pod, |_| {})?;
    ensure_eq!(status_of(usual.pid()?, "NoNewPrivs")?, "0", "whether they usually are");
    pod.end()
}

fn the_default_filter_forbids_what_it_forbids_everywhere(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let try_it = "unshare -U true 2>&1 || true; grep ^Seccomp: /proc/self/status";
    let container =
        confined(&pod, |context| context.seccomp = profile(ProfileType::RuntimeDefault, "".as_ref()))?;
    let said = container.shell(try_it)?;
    ensure!(said.contains("Operation not permitted") && said.ends_with("Seccomp:\t2\n"), "{said}");
    let unconfined = confined(&pod, |_| {})?;
    ensure_eq!(unconfined.shell(try_it)?, "Seccomp:\t0\n", "without a filter");
    pod.end()
}

fn a_filter_of_the_node_holds_for_added_programs_too(kubelet: Kubelet<'_>) -> Outcome {
    let file = kubelet.bench.fresh_folder("seccomp")?.join("profile.json");
    std::fs::write(
        &file,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 17}]}"#,
    )?;
    let pod = kubelet.pod()?;
    let plan = script(&pod, "mkdir /one 2>&1 || true; exec guest idle");
    let container =
        plan.security(|context| context.seccomp = profile(ProfileType::Localhost, &file)).start()?;
    container.wait_for_line("mkdir: can't create directory '/one': File exists")?;
    let tried = container.shell("mkdir /two 2>&1 || true")?;
    ensure!(tried.contains("File exists"), "{tried}");
    pod.end()
}

fn a_filter_that_is_not_there_is_named(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let plan = pod.container(&["/bin/guest", "idle"]);
    let missing = Path::new("/no/such/profile.json");
    let said =
        plan.security(|context| context.seccomp = profile(ProfileType::Localhost, missing)).refusal()?;
    ensure!(said.contains("/no/such/profile.json"), "{said}");
    pod.end()
}

fn paths_are_masked_and_read_only(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container = confined(&pod, |context| {
        context.masked_paths = vec!["/proc/kcore".into(), "/proc/acpi".into(), "/etc/passwd".into()];
        context.readonly_paths = vec!["/proc/sys".into()];
    })?;
    let seen = container.shell(
        "cat /etc/passwd | wc -c; touch /proc/sys/kernel/domainname 2>&1 || true; \
         echo x 2>&1 >/proc/sys/kernel/domainname || true",
    )?;
    ensure!(seen.starts_with("0\n") && seen.contains("Read-only file system"), "{seen}");
    pod.end()
}

fn a_privileged_container_may_do_everything(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.plan().security(|context| context.privileged = true).start()?;
    let container = confined(&pod, |context| context.privileged = true)?;
    let own = status_of(std::process::id(), "CapBnd")?;
    ensure_eq!(status_of(container.pid()?, "CapEff")?, own, "its capabilities");
    let tried = container.shell("mkdir /m; mount -t tmpfs none /m; umount /m; ls /dev | wc -l")?;
    ensure!(tried.trim().parse::<u32>()? > 20, "{tried} devices");
    pod.end()
}

fn devices_are_there_with_the_rights_that_were_asked_for(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let device = |name: &str, permissions: &str| Device {
        host_path: "/dev/zero".into(),
        container_path: name.into(),
        permissions: permissions.into(),
    };
    let plan = pod.container(&["/bin/guest", "idle"]);
    let container = plan.change(|config| config.devices = vec![device("/dev/deep/zero", "rw")]).start()?;
    let tried = "head -c 3 /dev/deep/zero | wc -c; echo x >/dev/deep/zero && echo well";
    ensure_eq!(container.shell(tried)?, "3\nwell\n", "with all rights");
    ensure_eq!(container.shell("stat -c '%t:%T' /dev/deep/zero")?.trim(), "1:5", "its number");
    pod.end()
}

fn a_profile_of_apparmor_holds(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let container =
        confined(&pod, |context| context.apparmor = profile(ProfileType::RuntimeDefault, "".as_ref()))?;
    let profile = std::fs::read_to_string(format!("/proc/{}/attr/current", container.pid()?))?;
    ensure!(profile.starts_with("cri-containerd.apparmor.d"), "{profile}");
    pod.end()
}

/// hostUsers: false.
fn a_pod_may_have_users_of_its_own(kubelet: Kubelet<'_>) -> Outcome {
    const FIRST: u32 = 200_000;
    let range = || vec![IdMapping { host_id: FIRST, container_id: 0, length: 65536 }];
    let users = UserNamespace { mode: NamespaceMode::Pod as i32, uids: range(), gids: range() };
    let volume = kubelet.bench.fresh_folder("volume")?;
    let pod = kubelet.plan().namespaces(|namespaces| namespaces.userns_options = Some(users)).start()?;
    let plan = script(&pod, "id -u; exec guest idle").mount_with(&volume, "/volume", |mount| {
        mount.uid_mappings = range();
        mount.gid_mappings = range();
    });
    let container = plan.start()?;
    container.wait_for_line("0")?;
    ensure!(status_of(container.pid()?, "Uid")?.starts_with(&FIRST.to_string()), "it isn't mapped");
    let own = std::fs::read_link("/proc/self/ns/user")?;
    ensure!(std::fs::read_link(format!("/proc/{}/ns/user", container.pid()?))? != own, "the host's users");
    container.shell("echo text >/volume/file")?;
    ensure_eq!(std::os::unix::fs::MetadataExt::uid(&volume.join("file").metadata()?), 0, "whose file it is");
    pod.end()
}

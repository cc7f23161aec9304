//! What `cryo install kubernetes` refuses on a node, in a sentence, and with nothing changed.

use super::*;

pub(super) fn scenarios() -> Vec<Scenario> {
    let is_2 = |_: &Combination, settings: &Settings| settings.containerd >= Version(2, 0);
    let is_1 = |_: &Combination, settings: &Settings| settings.containerd < Version(2, 0);
    vec![
        kube_scenario!(a_configuration_that_cannot_be_written_is_named),
        kube_scenario!(a_configuration_that_containerd_cannot_read_is_named),
        kube_scenario!(a_configuration_without_the_cri_is_named),
        kube_scenario!(another_configuration_than_the_usual_one_has_to_be_named),
        kube_scenario!(a_handler_in_a_file_that_is_imported_is_found)
            .impossible_if(is_1, "what is imported takes the place of the whole section"),
        kube_scenario!(settings_that_containerd_would_overrule_are_not_made)
            .impossible_if(is_2, "containerd 2 merges what is imported"),
    ]
}

/// A configuration that nobody runs with.
#[track_caller]
fn elsewhere(kubelet: Kubelet<'_>, text: &str) -> Outcome<std::path::PathBuf> {
    let file = kubelet.bench.fresh_folder("configuration")?.join("config.toml");
    fs::write(&file, text)?;
    Ok(file)
}

/// Refused with these words, and everything as it was.
#[track_caller]
fn refuses(kubelet: Kubelet<'_>, file: &Path, words: &[&str]) -> Outcome {
    let folder = file.parent().unwrap_or(file);
    let before = (fs::read_to_string(file)?, names_in(folder)?);
    let said = cryo(kubelet, &["install", "kubernetes", "--config", &file.display().to_string()])?;
    ensure!(!said.well, "it wasn't refused: {}", said.text);
    ensure!(words.iter().all(|word| said.text.contains(word)), "no {words:?} in {}", said.text);
    ensure!(said.text.lines().count() == 1 && said.text.len() <= 320, "{}", said.text);
    ensure_eq!((fs::read_to_string(file)?, names_in(folder)?), before, "what is there");
    ensure!(!kubelet.bench.slot.folder.join("cryo/install.json").exists(), "there is a record of nothing");
    Ok(())
}

fn usual(kubelet: Kubelet<'_>) -> String {
    kube::untouched(&kubelet.bench.slot, false)
}

fn a_configuration_that_cannot_be_written_is_named(kubelet: Kubelet<'_>) -> Outcome {
    let file = elsewhere(kubelet, &usual(kubelet))?;
    let folder = file.parent().unwrap_or(&file);
    kubelet.bench.shell("mount --bind \"$1\" \"$1\"; mount -o remount,bind,ro \"$1\"", &[folder])?;
    refuses(kubelet, &file, &["read-only", "writable", &folder.display().to_string()])?;
    kubelet.bench.shell("umount \"$1\"", &[folder])?;
    Ok(())
}

fn a_configuration_that_containerd_cannot_read_is_named(kubelet: Kubelet<'_>) -> Outcome {
    for text in ["version = \n", "{{ template \"base\" . }}\n", "version = 9\n"] {
        let file = elsewhere(kubelet, text)?;
        refuses(kubelet, &file, &["containerd can't read", &file.display().to_string()])?;
    }
    let file = elsewhere(kubelet, "# nothing yet\n")?;
    refuses(kubelet, &file, &["says no version", "version = 2"])
}

/// As Docker's own packages of containerd have it.
fn a_configuration_without_the_cri_is_named(kubelet: Kubelet<'_>) -> Outcome {
    let file = elsewhere(kubelet, "disabled_plugins = [\"cri\"]\n")?;
    refuses(kubelet, &file, &["switches the CRI off", "disabled_plugins"])
}

fn another_configuration_than_the_usual_one_has_to_be_named(kubelet: Kubelet<'_>) -> Outcome {
    let said = cryo(kubelet, &["install", "kubernetes"])?;
    ensure!(!said.well && said.text.contains("--config"), "{}", said.text);
    ensure!(said.text.contains("containerd.toml, not /etc/containerd/config.toml"), "{}", said.text);
    Ok(())
}

fn a_handler_in_a_file_that_is_imported_is_found(kubelet: Kubelet<'_>) -> Outcome {
    let file = elsewhere(kubelet, &usual(kubelet))?;
    let other = file.with_file_name("other.toml");
    let handler = "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.cryo]\n  \
                   runtime_type = 'io.containerd.kata.v2'\n";
    fs::write(&other, handler)?;
    let text = format!("imports = [\"{}\"]\n{}", other.display(), usual(kubelet));
    fs::write(&file, text)?;
    refuses(kubelet, &file, &["handler \"cryo\" that isn't this one"])
}

/// containerd 1 has the last file's section alone.
fn settings_that_containerd_would_overrule_are_not_made(kubelet: Kubelet<'_>) -> Outcome {
    let file = elsewhere(kubelet, "")?;
    let other = file.with_file_name("other.toml");
    fs::write(&other, "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  enable_selinux = true\n")?;
    fs::write(&file, format!("imports = [\"{}\"]\n{}", other.display(), usual(kubelet)))?;
    refuses(kubelet, &file, &["doesn't see the handler", "by hand"])
}

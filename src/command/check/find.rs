//! Which container is meant: by its id, the beginning of it, or Docker's name for it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cryo::bundle::CONFIG;
use cryo::reaper::Reaper;

use crate::command::root::USUAL_PATH;
use crate::command::run::{Said, run};

/// Where containerds keep bundles: the system's, and those of Docker, k3s and RKE2.
const STATES: [&str; 3] = ["/run/containerd", "/run/docker/containerd/daemon", "/run/k3s/containerd"];
const TASKS: &str = "io.containerd.runtime.v2.task";
/// Docker takes its time on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) id: String,
    pub(super) namespace: String,
    pub(super) bundle: PathBuf,
}

/// An id goes before a name, and a name before the beginning of an id, as Docker has it.
pub(super) fn find(name: &str, namespace: Option<&str>) -> Result<Found, String> {
    let wanted = |found: &Found| namespace.is_none_or(|namespace| found.namespace == namespace);
    let all = STATES.iter().flat_map(|state| bundles(&Path::new(state).join(TASKS)));
    let mut all: Vec<Found> = all.filter(wanted).collect();
    let mut silent = None;
    if !all.iter().any(|found| found.id == name) {
        match docker_id(name) {
            Ok(id) => {
                let id = id.filter(|id| !id.starts_with(name));
                if let Some(at) = all.iter().position(|found| Some(&found.id) == id.as_ref()) {
                    return Ok(all.swap_remove(at));
                }
            }
            Err(problem) => silent = Some(problem),
        }
    }
    choose(all, name)?.ok_or_else(|| {
        let unknown =
            || format!("no container {name} runs here: `ctr containers ls` and `docker ps` tell which do");
        silent.unwrap_or_else(unknown)
    })
}

fn bundles(tasks: &Path) -> Vec<Found> {
    let names = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    let of_namespace = |namespace: String| {
        let folder = tasks.join(&namespace);
        names(&folder).into_iter().map(move |id| Found {
            bundle: folder.join(&id),
            id,
            namespace: namespace.clone(),
        })
    };
    let all = names(tasks).into_iter().flat_map(of_namespace);
    all.filter(|found| found.bundle.join(CONFIG).is_file()).collect()
}

/// The one of that id, or the only one whose id begins so.
fn choose(mut all: Vec<Found>, name: &str) -> Result<Option<Found>, String> {
    let exact = all.iter().any(|found| found.id == name);
    all.retain(|found| if exact { found.id == name } else { found.id.starts_with(name) });
    match all.len() {
        0 => Ok(None),
        1 => Ok(all.pop()),
        _ if exact => {
            let namespaces: Vec<&str> = all.iter().map(|found| found.namespace.as_str()).collect();
            Err(format!("there is a container {name} in each of {}: give --namespace", namespaces.join(", ")))
        }
        _ => Err(format!("the ids of {} containers begin with {name}: give more of it", all.len())),
    }
}

/// If Docker is there and knows the name.
fn docker_id(name: &str) -> Result<Option<String>, String> {
    let ask = async || -> io::Result<Said> {
        let words = ["container", "inspect", "--format", "{{.Id}}", "--", name];
        let path = std::env::var("PATH").unwrap_or_else(|_| USUAL_PATH.into());
        Ok(run(Reaper::start()?, "docker", &words, &path, PATIENCE).await)
    };
    let event_loop = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let said = event_loop.and_then(|event_loop| event_loop.block_on(ask()));
    match said.map_err(|error| format!("cannot ask Docker for its container {name}: {error}"))? {
        Said::Silent(after) => Err(format!(
            "Docker doesn't say within {} s which container is {name}: give its id",
            after.as_secs()
        )),
        said => Ok(said.output().map(|id| id.trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(bundles: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for bundle in bundles {
            let bundle = folder.path().join(bundle);
            fs::create_dir_all(&bundle).unwrap();
            fs::write(bundle.join(CONFIG), "{}").unwrap();
        }
        folder
    }

    #[test]
    fn an_id_or_its_beginning_will_do() {
        let tasks = tasks(&["moby/abcdef", "moby/abcxyz", "default/web", "default/web2"]);
        fs::create_dir_all(tasks.path().join("moby/unfinished")).unwrap();
        let chosen = |name: &str| choose(bundles(tasks.path()), name);
        let id = |name: &str| chosen(name).unwrap().map(|found| found.id);
        assert_eq!(id("abcd").as_deref(), Some("abcdef"));
        assert_eq!(id("web").as_deref(), Some("web"));
        assert_eq!(id("unfinished"), None);
        assert!(chosen("abc").unwrap_err().contains("2 containers begin with abc"));
        let found = chosen("web").unwrap().unwrap();
        assert_eq!((found.namespace.as_str(), found.bundle), ("default", tasks.path().join("default/web")));
    }

    #[test]
    fn the_same_id_in_two_namespaces_is_not_guessed() {
        let tasks = tasks(&["default/web", "k8s.io/web"]);
        let error = choose(bundles(tasks.path()), "web").unwrap_err();
        assert!(error.contains("--namespace"), "{error}");
    }
}

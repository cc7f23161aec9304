//! Which container is meant: by its id, the beginning of it, Docker's or nerdctl's name for it,
//! or its pod.
//! And which containerd has it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use cryo::bundle::{self, CONFIG, Spec};
use cryo::reaper::{Reaper, parent};

use super::answer::{AS_ROOT, is_root};
use super::run::{Said, run};
use super::search;

/// Where containerds keep bundles: the system's, and those of Docker, k3s and RKE2.
const STATES: [&str; 3] = ["/run/containerd", "/run/docker/containerd/daemon", "/run/k3s/containerd"];
const SOCKETS: [&str; 3] = [
    "/run/containerd/containerd.sock",
    "/run/docker/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
];
const TASKS: &str = "io.containerd.runtime.v2.task";
/// Of Docker and nerdctl.
const WHOLE_ID: usize = 64;
/// Docker takes its time on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the container is that a verb is about.
#[derive(Args)]
pub(crate) struct Place {
    /// The containerd namespace to look in, if more than one has such a container.
    #[arg(long, short, conflicts_with = "pod")]
    pub(crate) namespace: Option<String>,
    /// Instead of CONTAINER: the pod it belongs to, in Kubernetes.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub(crate) pod: Option<String>,
    /// Which container of the pod, if it has several.
    #[arg(long = "container", value_name = "CONTAINER", requires = "pod")]
    pub(crate) of_pod: Option<String>,
}

impl Place {
    /// The one of that name, unless a pod is said.
    pub(crate) fn find(&self, container: Option<&str>) -> Result<Found, String> {
        match &self.pod {
            Some(pod) => find_in_pod(pod, self.of_pod.as_deref()),
            None => find(container.unwrap_or_default(), self.namespace.as_deref()),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) id: String,
    pub(crate) namespace: String,
    pub(crate) bundle: PathBuf,
}

impl Found {
    /// Of its first process.
    pub(crate) fn pid(&self) -> Result<u32, String> {
        let pid = bundle::read_pid(&self.bundle.join(bundle::INIT_PID)).ok();
        let pid = pid.filter(|pid| Path::new(&format!("/proc/{pid}")).exists());
        pid.ok_or_else(|| format!("container {} doesn't run", self.id))
    }

    /// By nerdctl, which lets its hooks know.
    fn is_called(&self, name: &str) -> bool {
        Spec::read(&self.bundle).is_ok_and(|spec| spec.nerdctl_name() == Some(name))
    }

    /// What looks after it while it runs, which has to be ours.
    pub(crate) fn shim(&self) -> Result<Shim, String> {
        let id = &self.id;
        let pid = parent(self.pid()?).unwrap_or_default();
        let program = PathBuf::from(format!("/proc/{pid}/exe"));
        if !search::is_cryo(&program) {
            let name = fs::read_link(program).unwrap_or_default();
            let name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Err(match name.contains("shim") {
                true => format!(
                    "container {id} was started by {name}, and only Cryo's shim keeps checkpoints: start it with Cryo (cryo install), or use its client's own checkpoint command"
                ),
                false => format!("container {id} has no shim any longer: its containerd is about to end it"),
            });
        }
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = words.split(|byte| *byte == 0).skip_while(|word| *word != b"-address").skip(1);
        let address = words.next().map(|word| String::from_utf8_lossy(word).into_owned());
        let silent = || format!("the shim of container {id} doesn't say where its containerd is");
        Ok(Shim { pid, containerd: address.ok_or_else(silent)? })
    }
}

pub(crate) struct Shim {
    pid: u32,
    /// Its socket, as the shim was told.
    pub(crate) containerd: String,
}

impl Shim {
    pub(crate) fn is_alive(&self) -> bool {
        search::is_cryo(Path::new(&format!("/proc/{}/exe", self.pid)))
    }
}

/// A name that several containers have is nobody's, unless just one of them runs.
fn find(name: &str, namespace: Option<&str>) -> Result<Found, String> {
    let wanted = |found: &Found| namespace.is_none_or(|namespace| found.namespace == namespace);
    let all: Vec<Found> = all().filter(wanted).collect();
    let may_be_dockers = |found: &Found| found.id.len() == WHOLE_ID;
    let is_certain = all.iter().any(|found| found.id == name && may_be_dockers(found));
    let asked = if is_certain || !all.iter().any(may_be_dockers) { Ok(None) } else { docker_id(name) };
    let of_docker = match asked {
        Err(problem) if namespace.is_none() => return Err(problem),
        // By its beginning it is meant only if nobody else's begins so.
        asked => asked.ok().flatten().filter(|id| !id.starts_with(name)),
    };
    choose(all, name, of_docker.as_deref())?.ok_or_else(|| unknown(name, namespace))
}

fn unknown(name: &str, namespace: Option<&str>) -> String {
    if !is_root() {
        return format!("only root can see whether container {name} runs: {AS_ROOT}");
    }
    let place = namespace.map_or_else(|| "here".to_owned(), |namespace| format!("in namespace {namespace}"));
    format!(
        "no container {name} runs {place}: `docker ps`, `ctr -n NAMESPACE containers ls` and `crictl ps` tell which do"
    )
}

/// The container of a pod that is called NAMESPACE/NAME, or the one of that name.
fn find_in_pod(pod: &str, container: Option<&str>) -> Result<Found, String> {
    let named = pod.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty());
    let (namespace, name) = named.ok_or_else(|| format!("{pod:?} is no pod: give NAMESPACE/NAME"))?;
    let mut found = of_pod(all(), namespace, name);
    if found.is_empty() && !is_root() {
        return Err(format!("only root can see which pods run: {AS_ROOT}"));
    }
    if found.is_empty() {
        return Err(format!("no container of a pod {pod} runs here: `crictl ps` tells which do"));
    }
    let names: Vec<String> = found.iter().map(|(name, _)| name.clone()).collect();
    match container {
        Some(container) => found.retain(|(name, _)| name == container),
        None if found.len() > 1 => {
            return Err(format!(
                "pod {pod} has several containers: give --container with one of {}",
                names.join(", ")
            ));
        }
        None => {}
    }
    let none = || format!("pod {pod} has no container of that name, but {}", names.join(", "));
    found.pop().map(|(_, found)| found).ok_or_else(none)
}

/// Those that run, with the names that their pod gives them.
fn of_pod(all: impl Iterator<Item = Found>, namespace: &str, name: &str) -> Vec<(String, Found)> {
    let named = |found: Found| {
        let spec = Spec::read(&found.bundle).ok()?;
        let pod = spec.pod().filter(|pod| (pod.namespace, pod.name) == (namespace, name))?;
        Some((pod.container.to_owned(), found))
    };
    let mut found: Vec<_> = all.filter_map(named).filter(|(_, found)| found.pid().is_ok()).collect();
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

/// Where containerds of this machine listen.
pub(crate) fn sockets() -> Vec<String> {
    if let Ok(address) = std::env::var("CONTAINERD_ADDRESS") {
        return vec![address];
    }
    let there = SOCKETS.iter().filter(|socket| Path::new(socket).exists());
    there.map(|socket| (*socket).to_owned()).collect()
}

fn all() -> impl Iterator<Item = Found> {
    STATES.iter().flat_map(|state| bundles(&Path::new(state).join(TASKS)))
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

/// An id goes before a name, and a name before the beginning of an id, as Docker has it.
fn choose(all: Vec<Found>, name: &str, of_docker: Option<&str>) -> Result<Option<Found>, String> {
    let is_meant = |found: &Found| found.id == name || Some(&*found.id) == of_docker || found.is_called(name);
    let (mut meant, others): (Vec<Found>, Vec<Found>) = all.into_iter().partition(is_meant);
    if meant.is_empty() {
        let mut begun: Vec<Found> = others.into_iter().filter(|found| found.id.starts_with(name)).collect();
        return match begun.len() {
            0 | 1 => Ok(begun.pop()),
            count => Err(format!("the ids of {count} containers begin with {name}: give more of it")),
        };
    }
    if meant.iter().any(|found| found.pid().is_ok()) {
        meant.retain(|found| found.pid().is_ok());
    }
    let with_id: Vec<String> =
        meant.iter().filter(|found| found.id == name).map(|found| found.namespace.clone()).collect();
    meant.retain(|found| found.id == name || !with_id.contains(&found.namespace));
    if meant.len() > 1 {
        let namespaces: Vec<&str> = meant.iter().map(|found| found.namespace.as_str()).collect();
        return Err(format!(
            "there is a container {name} in each of {}: give --namespace, or its id",
            namespaces.join(", ")
        ));
    }
    Ok(meant.pop())
}

/// If Docker is there and knows the name.
fn docker_id(name: &str) -> Result<Option<String>, String> {
    let ask = async || -> io::Result<Said> {
        let words = ["container", "inspect", "--format", "{{.Id}}", "--", name];
        Ok(run(Reaper::start()?, "docker", &words, &search::path(), PATIENCE).await)
    };
    let event_loop = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let said = event_loop.and_then(|event_loop| event_loop.block_on(ask()));
    match said.map_err(|error| format!("cannot ask Docker for its container {name}: {error}"))? {
        Said::Silent(after) => Err(format!(
            "Docker doesn't say within {} s which container is {name}: give its whole id, or --namespace",
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

    fn run(tasks: &tempfile::TempDir, bundle: &str) {
        fs::write(tasks.path().join(bundle).join(bundle::INIT_PID), std::process::id().to_string()).unwrap();
    }

    #[test]
    fn an_id_or_its_beginning_will_do() {
        let tasks = tasks(&["moby/abcdef", "moby/abcxyz", "default/web", "default/web2"]);
        fs::create_dir_all(tasks.path().join("moby/unfinished")).unwrap();
        let chosen = |name: &str| choose(bundles(tasks.path()), name, None);
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
        let error = choose(bundles(tasks.path()), "web", None).unwrap_err();
        assert!(error.contains("--namespace"), "{error}");
    }

    /// nerdctl's, ctr's and Docker's.
    #[test]
    fn a_name_that_several_have_is_not_guessed() {
        let tasks = tasks(&["default/f00", "k8s.io/web", "moby/abc"]);
        let called = r#"{"annotations": {"nerdctl/name": "web"}}"#;
        fs::write(tasks.path().join("default/f00").join(CONFIG), called).unwrap();
        let chosen = || choose(bundles(tasks.path()), "web", Some("abc"));
        let error = chosen().unwrap_err();
        assert!(["default", "k8s.io", "moby"].iter().all(|namespace| error.contains(namespace)), "{error}");
        run(&tasks, "moby/abc");
        assert_eq!(chosen().unwrap().unwrap().id, "abc");
        run(&tasks, "default/f00");
        assert!(chosen().unwrap_err().contains("each of"));
    }

    #[test]
    fn an_id_goes_before_a_name_beside_it() {
        let tasks = tasks(&["moby/web", "moby/abc", "moby/web2"]);
        let chosen = || choose(bundles(tasks.path()), "web", Some("abc")).unwrap().unwrap().id;
        assert_eq!(chosen(), "web");
        run(&tasks, "moby/abc");
        assert_eq!(chosen(), "abc");
        run(&tasks, "moby/web");
        assert_eq!(chosen(), "web");
    }
}

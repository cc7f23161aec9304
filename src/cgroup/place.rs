//! Finding a cgroup's folders: what /proc/PID/cgroup says, seen through the
//! mounts of /proc/self/mountinfo.
//!
//! Both speak of the same tree from different points. A mount shows the tree
//! from its own root downwards, which isn't the top when it is a bind mount, as
//! inside a container. Paths in /proc/PID/cgroup begin at the root of our
//! cgroup namespace, so with a path outside of it there is no folder to name.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
    vec,
};

/// The folders of one cgroup.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// By the name of the controller, or `name=…` of a hierarchy without one.
    V1(BTreeMap<String, Folder>),
    V2(Folder),
}

/// A folder, and where its hierarchy is mounted. The top belongs to everybody.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Folder {
    path: PathBuf,
    top: PathBuf,
}

impl Folder {
    fn is_top(&self) -> bool {
        self.path == self.top
    }

    /// The highest of this and the folders above whose path ends like `ending`.
    fn lifted(&self, ending: &Path) -> Self {
        let below_top = |path: &&Path| path.starts_with(&self.top) && *path != self.top;
        let ours = self.path.ancestors().take_while(below_top);
        // Every path ends with nothing.
        let highest = ours.filter(|path| !ending.as_os_str().is_empty() && path.ends_with(ending)).last();
        Self { path: highest.unwrap_or(&self.path).to_owned(), top: self.top.clone() }
    }
}

impl Place {
    /// The place of the process whose /proc/PID/cgroup is `memberships`.
    pub(super) fn of(memberships: &str, mountinfo: &str, standard: &Path) -> Option<Self> {
        Self::choose(memberships, mountinfo, standard, |mount, path| mount.folder(path))
    }

    /// The place at `path` below the top of each hierarchy in `memberships`.
    pub(super) fn at(path: &str, memberships: &str, mountinfo: &str, standard: &Path) -> Option<Self> {
        let below = Path::new(path.trim_start_matches('/'));
        Self::choose(memberships, mountinfo, standard, |mount, _| Some(mount.below(below)))
    }

    /// Whatever is mounted at the standard place decides the version, as it
    /// does for runtimes. With version 1 in force, a cgroup2 mounted elsewhere
    /// holds nothing of interest.
    fn choose(
        memberships: &str,
        mountinfo: &str,
        standard: &Path,
        folder: impl Fn(&Mount, &Path) -> Option<Folder>,
    ) -> Option<Self> {
        let mounts: Vec<_> = mountinfo.lines().filter_map(Mount::parse).collect();
        let mut memberships = memberships.lines().filter_map(Membership::parse);
        // A hierarchy may be mounted several times, whole and in parts.
        let find = |membership: &Membership| {
            let mounts = mounts.iter().filter(|mount| mount.shows(membership));
            let mut folders = mounts.filter_map(|mount| folder(mount, &membership.path));
            folders.clone().find(|folder| folder.path.is_dir()).or_else(|| folders.next())
        };
        if mounts.iter().any(|mount| mount.is_v2 && mount.point == standard) {
            let membership = memberships.find(Membership::is_v2)?;
            return find(&membership).map(Self::V2);
        }
        let mut folders = BTreeMap::new();
        for membership in memberships.filter(|membership| !membership.is_v2()) {
            if let Some(folder) = find(&membership) {
                let names = membership.controllers.into_iter();
                folders.extend(names.map(|name| (name, folder.clone())));
            }
        }
        (!folders.is_empty()).then_some(Self::V1(folders))
    }

    pub(super) fn unified(path: PathBuf) -> Self {
        Self::V2(Folder { path, top: PathBuf::new() })
    }

    pub(super) fn legacy<P: Into<PathBuf>>(folders: impl IntoIterator<Item = (&'static str, P)>) -> Self {
        let folder = |path: P| Folder { path: path.into(), top: PathBuf::new() };
        let named = folders.into_iter().map(|(name, path)| (name.to_owned(), folder(path)));
        Self::V1(named.collect())
    }

    /// The same, or the highest place above it whose path ends like `ending`.
    pub(super) fn lifted(&self, ending: &Path) -> Self {
        match self {
            Self::V1(folders) => {
                let lift = |(name, folder): (&String, &Folder)| (name.clone(), folder.lifted(ending));
                Self::V1(folders.iter().map(lift).collect())
            }
            Self::V2(folder) => Self::V2(folder.lifted(ending)),
        }
    }

    pub(super) fn folder(&self, controller: &str) -> Option<&Path> {
        self.find(controller).map(|folder| &*folder.path)
    }

    /// The same, unless it is the top: what happens there is everybody's.
    pub(super) fn own_folder(&self, controller: &str) -> Option<&Path> {
        self.find(controller).filter(|folder| !folder.is_top()).map(|folder| &*folder.path)
    }

    /// Each folder once, though controllers may share it.
    pub(super) fn folders(&self) -> impl Iterator<Item = &Path> {
        self.distinct().map(|folder| &*folder.path)
    }

    /// The folders that belong to this cgroup alone, as far as one can see.
    pub(super) fn own_folders(&self) -> impl Iterator<Item = &Path> {
        self.distinct().filter(|folder| !folder.is_top()).map(|folder| &*folder.path)
    }

    /// Where to look for processes. Runtimes put them into every hierarchy;
    /// those that they can least do without come first.
    pub(super) fn census(&self) -> &Path {
        const TRUSTED: [&str; 5] = ["freezer", "devices", "pids", "memory", "name=systemd"];
        let trusted = TRUSTED.iter().filter_map(|name| self.find(name));
        let mut all = trusted.chain(self.distinct());
        let own = all.clone().find(|folder| !folder.is_top());
        own.or_else(|| all.next()).map_or(Path::new(""), |folder| &folder.path)
    }

    fn find(&self, controller: &str) -> Option<&Folder> {
        match self {
            Self::V1(folders) => folders.get(controller),
            Self::V2(folder) => Some(folder),
        }
    }

    fn distinct(&self) -> vec::IntoIter<&Folder> {
        let mut all: Vec<_> = match self {
            Self::V1(folders) => folders.values().collect(),
            Self::V2(folder) => vec![folder],
        };
        all.sort();
        all.dedup();
        all.into_iter()
    }
}

/// How the paths of a container's folders end if `cgroupsPath` is its
/// configuration: a path, or `slice:prefix:name` for a unit that systemd makes.
pub(super) fn ending(cgroups_path: &str) -> PathBuf {
    let parts: Vec<_> = cgroups_path.split(':').collect();
    match parts[..] {
        [slice, "", name] => Path::new(slice).join(format!("{name}.scope")),
        [slice, prefix, name] => Path::new(slice).join(format!("{prefix}-{name}.scope")),
        _ => cgroups_path.trim_start_matches('/').into(),
    }
}

/// A line of /proc/PID/cgroup: `4:cpu,cpuacct:/path`, or `0::/path` for cgroup2.
struct Membership {
    controllers: Vec<String>,
    path: PathBuf,
}

impl Membership {
    fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let controllers = controllers.split(',').filter(|name| !name.is_empty());
        // The mark of a removed cgroup that a dead process was the last to be in.
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        Some(Self { controllers: controllers.map(str::to_owned).collect(), path: path.into() })
    }

    fn is_v2(&self) -> bool {
        self.controllers.is_empty()
    }
}

/// A mounted hierarchy.
struct Mount {
    /// What of the hierarchy it shows, as seen from our cgroup namespace.
    root: PathBuf,
    point: PathBuf,
    is_v2: bool,
    options: Vec<String>,
}

impl Mount {
    /// `36 31 0:33 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu`
    fn parse(line: &str) -> Option<Self> {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut filesystem = filesystem.split(' ');
        let is_v2 = match filesystem.next()? {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        let mut mount = mount.split(' ').skip(3);
        Some(Self {
            root: unescape(mount.next()?),
            point: unescape(mount.next()?),
            is_v2,
            options: filesystem.nth(1)?.split(',').map(str::to_owned).collect(),
        })
    }

    fn shows(&self, membership: &Membership) -> bool {
        match self.is_v2 {
            true => membership.is_v2(),
            false => membership.controllers.iter().any(|name| self.options.contains(name)),
        }
    }

    fn folder(&self, path: &Path) -> Option<Folder> {
        let below = path.strip_prefix(&self.root).ok()?;
        let is_outside = below.components().any(|part| part == Component::ParentDir);
        (!is_outside).then(|| self.below(below))
    }

    fn below(&self, path: &Path) -> Folder {
        // Joining an empty path would leave a slash at the end.
        let is_top = path.as_os_str().is_empty();
        let path = if is_top { self.point.clone() } else { self.point.join(path) };
        Folder { path, top: self.point.clone() }
    }
}

/// Undoes the octal escapes by which the kernel keeps fields free of blanks.
fn unescape(field: &str) -> PathBuf {
    let mut parts = field.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) => plain.extend([char::from(byte).to_string().as_str(), &part[3..]]),
            None => plain.extend(["\\", part]),
        }
    }
    plain.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANDARD: &str = "/sys/fs/cgroup";

    const V1_MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:7 - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    const V2_MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate
77 23 0:50 / /run/net_cls rw,relatime - cgroup cgroup rw,net_cls
";

    fn find(memberships: &str, mounts: &str) -> Option<Place> {
        Place::of(memberships, mounts, Path::new(STANDARD))
    }

    fn folder<'a>(place: &'a Place, controller: &str) -> &'a str {
        place.folder(controller).unwrap().to_str().unwrap()
    }

    #[test]
    fn a_hybrid_is_version_1() {
        let memberships =
            "5:name=systemd:/c\n4:freezer:/c\n3:memory:/m:n/c\n2:cpu,cpuacct:/\n9:pids:/c\n0::/c\n";
        let place = find(memberships, V1_MOUNTS).unwrap();
        assert_eq!(folder(&place, "memory"), "/sys/fs/cgroup/memory/m:n/c");
        assert_eq!(folder(&place, "name=systemd"), "/sys/fs/cgroup/systemd/c");
        assert_eq!(folder(&place, "cpuacct"), "/sys/fs/cgroup/cpu,cpuacct");
        assert_eq!(place.folder("pids"), None, "its hierarchy isn't mounted");
        assert_eq!(place.census(), "/sys/fs/cgroup/freezer/c");
        assert_eq!(place.folders().count(), 4);
        assert_eq!(place.own_folders().count(), 3, "the top of cpu belongs to everybody");
        assert_eq!(place.own_folder("cpu"), None);
    }

    #[test]
    fn a_lone_hierarchy_of_version_1_leaves_a_machine_on_version_2() {
        let place = find("4:net_cls:/\n0::/system.slice/c.scope (deleted)\n", V2_MOUNTS).unwrap();
        assert_eq!(folder(&place, "memory"), "/sys/fs/cgroup/system.slice/c.scope");
        assert!(matches!(place, Place::V2(_)));
    }

    #[test]
    fn a_bind_mount_shows_only_what_is_below_its_root() {
        let mounts = "1 2 0:3 /docker/x /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n";
        let place = find("8:pids:/docker/x/inner\n", mounts).unwrap();
        assert_eq!(folder(&place, "pids"), "/sys/fs/cgroup/pids/inner");
        assert_eq!(find("8:pids:/docker/y\n", mounts), None);
        let top = find("8:pids:/docker/x\n", mounts).unwrap();
        assert_eq!(top.own_folders().count(), 0);
    }

    #[test]
    fn outside_of_our_cgroup_namespace_there_is_no_path() {
        assert_eq!(find("0::/../elsewhere\n", V2_MOUNTS), None);
        assert_eq!(find("", V2_MOUNTS), None);
        assert_eq!(find("0::/c\n", ""), None);
    }

    #[test]
    fn of_several_mounts_the_one_with_the_folder_counts() {
        let there = tempfile::tempdir().unwrap();
        std::fs::create_dir(there.path().join("c")).unwrap();
        let mount = |point: &str| format!("1 2 0:3 / {point} rw - cgroup cgroup rw,pids\n");
        let mounts = mount("/nowhere") + &mount(there.path().to_str().unwrap());
        let place = find("8:pids:/c\n", &mounts).unwrap();
        assert_eq!(place.folder("pids"), Some(&*there.path().join("c")));
    }

    #[test]
    fn a_given_path_counts_from_the_top_of_every_hierarchy() {
        let at =
            |path| Place::at(path, "4:freezer:/me\n3:memory:/me\n0::/me\n", V1_MOUNTS, Path::new(STANDARD));
        let place = at("/shims").unwrap();
        assert_eq!(folder(&place, "freezer"), "/sys/fs/cgroup/freezer/shims");
        assert_eq!(folder(&place, "memory"), "/sys/fs/cgroup/memory/shims");
        assert_eq!(at("shims").unwrap(), place);
        assert_eq!(at("/").unwrap().own_folders().count(), 0);
    }

    #[test]
    fn a_process_deep_inside_still_leads_to_its_container() {
        let place = find("0::/system.slice/docker-x.scope/system.slice/cron.service\n", V2_MOUNTS).unwrap();
        let container = place.lifted(&ending("system.slice:docker:x"));
        assert_eq!(folder(&container, ""), "/sys/fs/cgroup/system.slice/docker-x.scope");
        let place = find("0::/default/a/default/a/init\n", V2_MOUNTS).unwrap();
        assert_eq!(folder(&place.lifted(&ending("/default/a")), ""), "/sys/fs/cgroup/default/a");
    }

    #[test]
    fn without_a_match_the_place_stays() {
        let place = find("0::/default/a\n", V2_MOUNTS).unwrap();
        for path in ["", "/", "/sys", "/other", "a:b:c", "machine.slice::x"] {
            assert_eq!(place.lifted(&ending(path)), place, "{path:?}");
        }
    }

    #[test]
    fn escaped_characters_of_mount_points_are_restored() {
        assert_eq!(unescape(r"/mnt/two\040words\134n"), Path::new(r"/mnt/two words\n"));
        assert_eq!(unescape(r"/odd\end\04"), Path::new(r"/odd\end\04"));
    }

    #[test]
    fn broken_lines_are_passed_over() {
        assert_eq!(find("nonsense\n\n7\n7:x\n", "31 23\n - \n - cgroup\n1 2 3 4 - cgroup2 x rw"), None);
    }
}

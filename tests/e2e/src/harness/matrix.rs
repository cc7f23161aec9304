//! Scenarios, and the combinations of runtime and stdio each of them runs in.

use std::fmt;

use rustix::thread::{CapabilitySet, capabilities};

use super::bench::Bench;
use super::docker::has_workloads;
use super::failure::Outcome;
use super::settings::{Settings, settings};
use super::slot::Daemons;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runtime {
    Runc,
    Crun,
}

impl Runtime {
    pub(crate) fn binary(self) -> &'static str {
        match self {
            Runtime::Runc => "runc",
            Runtime::Crun => "crun",
        }
    }
}

/// What the container's output goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Fifo,
    Terminal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Combination {
    pub(crate) runtime: Runtime,
    pub(crate) stream: Stream,
}

impl fmt::Display for Combination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stream = match self.stream {
            Stream::Fifo => "fifo",
            Stream::Terminal => "terminal",
        };
        write!(f, "{}::{stream}", self.runtime.binary())
    }
}

/// Why a combination isn't run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Skip {
    /// Right behaviour that the stock shim lacks: the oracle has nothing to say.
    DemandedOfCryo(&'static str),
    /// Can't be tried with these versions or this kind of shim.
    Impossible(&'static str),
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Skip::DemandedOfCryo(why) => write!(f, "demanded of cryo only ({why})"),
            Skip::Impossible(why) => write!(f, "impossible here ({why})"),
        }
    }
}

type Rule = Box<dyn Fn(&Combination, &Settings) -> Option<Skip> + Send + Sync>;

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Bench) -> Outcome,
    pub(crate) alone: bool,
    pub(crate) long: bool,
    pub(crate) daemons: Daemons,
    streams: &'static [Stream],
    rules: Vec<Rule>,
}

impl Scenario {
    pub(crate) fn new(name: &'static str, run: fn(&Bench) -> Outcome) -> Self {
        let streams = &[Stream::Fifo, Stream::Terminal];
        let daemons = Daemons::Containerd;
        Scenario { name, run, alone: false, long: false, daemons, streams, rules: Vec::new() }
    }

    /// Acts through Docker, and says itself which containers have a terminal.
    pub(crate) fn with_docker(mut self) -> Self {
        self.daemons = Daemons::Docker;
        self.fifo_only().impossible_if(|_, settings| settings.docker.is_none(), "there is no dockerd")
    }

    /// Acts as the kubelet does, through the CRI.
    pub(crate) fn with_kubelet(mut self) -> Self {
        self.daemons = Daemons::ForPods;
        self.fifo_only()
    }

    /// Runs real programs.
    pub(crate) fn with_workloads(self) -> Self {
        self.impossible_if(|_, _| !has_workloads(), "there is no image of workloads")
    }

    /// Has processes that aren't root's.
    pub(crate) fn with_other_users(self) -> Self {
        self.impossible_if(
            |_, _| !may_read_limits(),
            "without CAP_SYS_RESOURCE CRIU can't ask for limits of another user's process",
        )
    }

    pub(crate) fn title(&self, combination: &Combination) -> String {
        match self.daemons {
            Daemons::Containerd => format!("{}::{combination}", self.name),
            Daemons::Docker => format!("docker::{}::{}", self.name, combination.runtime.binary()),
            Daemons::ForPods => format!("kube::{}::{}", self.name, combination.runtime.binary()),
        }
    }

    /// For scenarios in which a terminal makes no difference, or that choose by themselves.
    pub(crate) fn fifo_only(mut self) -> Self {
        self.streams = &[Stream::Fifo];
        self
    }

    pub(crate) fn terminal_only(mut self) -> Self {
        self.streams = &[Stream::Terminal];
        self
    }

    /// Runs while nothing else does, because it measures time.
    pub(crate) fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Starts before the others, because it takes long without costing much.
    pub(crate) fn long(mut self) -> Self {
        self.long = true;
        self
    }

    pub(crate) fn cryo_only(self, why: &'static str) -> Self {
        self.cryo_only_if(|_, _| true, why)
    }

    pub(crate) fn cryo_only_if(
        mut self,
        when: impl Fn(&Combination, &Settings) -> bool + Send + Sync + 'static,
        why: &'static str,
    ) -> Self {
        self.rules.push(Box::new(move |combination, settings| {
            (!settings.shim.is_cryo() && when(combination, settings)).then_some(Skip::DemandedOfCryo(why))
        }));
        self
    }

    pub(crate) fn impossible_if(
        mut self,
        when: impl Fn(&Combination, &Settings) -> bool + Send + Sync + 'static,
        why: &'static str,
    ) -> Self {
        self.rules.push(Box::new(move |combination, settings| {
            when(combination, settings).then_some(Skip::Impossible(why))
        }));
        self
    }

    /// Restores a container, which the stock shim can't do with crun.
    pub(crate) fn restores(self) -> Self {
        self.cryo_only_if(
            |combination, _| combination.runtime == Runtime::Crun,
            "the stock shim restores with -no-subreaper, which crun refuses",
        )
    }

    /// Restores a container through Docker.
    pub(crate) fn comes_back(self) -> Self {
        self.cryo_only("with the stock shim Docker 28 can restore nothing, and Docker 26 often can't")
    }

    pub(crate) fn combinations(&self) -> Vec<(Combination, Option<Skip>)> {
        let mut all = Vec::new();
        for runtime in [Runtime::Runc, Runtime::Crun] {
            for &stream in self.streams {
                let combination = Combination { runtime, stream };
                let skip = self.rules.iter().find_map(|rule| rule(&combination, settings()));
                all.push((combination, skip));
            }
        }
        all
    }
}

fn may_read_limits() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE))
}

macro_rules! scenario {
    ($function:ident) => {
        $crate::harness::Scenario::new(stringify!($function), $function)
    };
}
pub(crate) use scenario;

/// The same for a scenario that acts through Docker.
macro_rules! docker_scenario {
    ($function:ident) => {
        $crate::harness::Scenario::new(stringify!($function), |bench| {
            $function(&$crate::harness::Docker::at(bench))
        })
        .with_docker()
    };
}
pub(crate) use docker_scenario;

/// The same for a scenario that plays the kubelet.
macro_rules! kube_scenario {
    ($function:ident) => {
        $crate::harness::Scenario::new(stringify!($function), |bench| {
            $function($crate::harness::Kubelet::at(bench))
        })
        .with_kubelet()
    };
}
pub(crate) use kube_scenario;

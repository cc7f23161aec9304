//! Coming back from an image, in two steps.
//!
//! Create [prepares](prepare): the image is opened and checked, and the network
//! namespace is made and held by an anchor, a process of ours whose pid stands for the
//! container's, so that a client can set up the network before anything runs. Start
//! [runs](Prepared::run) the restore: the container comes back inside that namespace.
//! A container with users of its own can't be put into a namespace made before; its
//! restore begins with Create and is [held] once CRIU has made the namespaces.

mod adapt;
mod cgroup;
mod changes;
mod error;
mod figures;
mod filter;
pub mod fit;
pub mod guard;
pub mod held;
mod leftovers;
mod lock;
mod network;
mod scratch;
mod settings;
mod spec_hooks;
mod sysctls;
mod view;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::account;
use crate::anchor;
use crate::bundle::Sharing;
use crate::checkpoint;
use crate::checkpoint::image::Image;
use crate::checkpoint::injected::has_hooks;
use crate::container::{Live, Subject, claim_cgroup, remove_unfinished};
use crate::hooks::{Calls, Hooks};
use crate::operation::{aside, explain, find_criu, hand_on, work_folder};
use crate::pages;
use crate::policy::{Policy, Stage};
use crate::reaper::Process;
use crate::runtime::{self, Abort, CriuCall, Ends, Flavour, Version};
use crate::shm::{self, PutBack};
use crate::stdio::{ConsoleSocket, OpenOutputs};
pub(crate) use cgroup::take_own_cgroup;
pub use error::Error;
pub use figures::Figures;
use figures::Watch;
pub(crate) use leftovers::{
    detach_root, forget_daemons_copy, note_daemons_copy, remove_daemons_copy, remove_mount_yard,
    remove_noted_copy, remove_noted_scratch,
};
pub use network::Network;
use scratch::Scratch;
use view::View;

const RESTORE_LOG: &str = "restore.log";

/// What is there between Create and Start.
pub struct Prepared {
    /// Its pid is what the client hears until the container is back.
    pub anchor: Process,
    /// Calls the restore off.
    pub abort: Abort,
    /// The owner's to let go, once it is known what becomes of it.
    pub outputs: Option<OpenOutputs>,
    how: How,
    subject: Arc<Subject>,
    policy: Policy,
    /// For the preparations.
    took: Duration,
}

enum How {
    /// Nothing has begun: the namespace waits, and the restore will join it.
    Anchored(Box<Attempt>),
    /// The restore has begun and stands still.
    Held(held::Held),
}

pub struct Restored {
    pub live: Live,
    pub network: Option<Network>,
    figures: Figures,
}

/// Checks the image and makes what the client may want to see before the restore.
pub async fn prepare(subject: Arc<Subject>, image: &Path, policy: Policy) -> Result<Prepared, Error> {
    let begun = Instant::now();
    let prepared = async {
        let outputs = Some(subject.plan.keep_outputs_open()?);
        Ok((begin(subject.clone(), image, policy.clone()).await?, outputs))
    };
    let prepared = prepared.await;
    let took = begun.elapsed();
    match prepared {
        Ok(((anchor, abort, how), outputs)) => {
            Ok(Prepared { anchor, abort, outputs, how, subject, policy, took })
        }
        Err(error) => {
            account::of_restore(&subject, &policy, took, Err(&error));
            Err(error)
        }
    }
}

async fn begin(subject: Arc<Subject>, image: &Path, policy: Policy) -> Result<(Process, Abort, How), Error> {
    find_criu().map_err(Error::NoCriu)?;
    let (path, root) = (image.to_owned(), policy.store().path.clone());
    let image = aside(move || Image::find(&path, &root)).await?;
    let version = subject.runtime.version().await.map_err(Error::Runtime)?;
    let new = subject.clone();
    let (image, version, fit) = aside(move || -> Result<_, Error> {
        let fit = fit::check(&image, &version, &new)?;
        Ok((image, version, fit))
    })
    .await?;
    let changes = changes::wanted(&image, &subject, &policy).await?;
    let hooks = Hooks::new(&policy, image.files());
    // Before the mounts are looked for: it may be a hook that provides them.
    hooks.run(Stage::PreRestore, &subject, None).await?;
    let bundle = subject.bundle.clone();
    let injected = image.manifest.as_ref().map_or_else(Vec::new, |manifest| manifest.injected.clone());
    aside(move || -> Result<(), Error> {
        adapt::list(&bundle, &injected)?;
        Ok(adapt::check_mounts(&bundle)?)
    })
    .await?;
    let private = subject.spec.sharing("network") == Sharing::Private;
    let own_users = subject.spec.sharing("user") == Sharing::Private;
    let abort = Abort::default();
    let scratch = Scratch::begin(&image, &policy.store().path, &subject).await?;
    let mut attempt = Attempt {
        subject,
        image,
        scratch,
        version,
        policy,
        fit,
        hooks,
        changes,
        network: None,
        anchor: 0,
        abort,
    };
    if private && own_users {
        // Only what CRIU itself takes is limited there.
        attempt.await_memory().await?;
        return held::begin(attempt).await;
    }
    let subject = &attempt.subject;
    // Hooks that we run ourselves may mount something for a container that isn't there yet.
    let hooked = attempt.version.flavour == Flavour::Crun && has_hooks(&subject.spec.hooks);
    let kind = match (private, hooked) {
        (true, true) => anchor::Kind::NetworkAndMounts,
        (true, false) => anchor::Kind::Network,
        (false, true) => anchor::Kind::Mounts,
        (false, false) => anchor::Kind::Bare,
    };
    let anchor = anchor::start(subject.runtime.reaper, kind).await.map_err(Error::Anchor)?;
    attempt.anchor = anchor.pid();
    if private {
        let (network, settings) = (Network::of(&anchor)?, attempt.subject.clone());
        let its = network.descriptor().map_err(Error::Anchor)?;
        aside(move || sysctls::apply(&settings.spec.linux.sysctl, its)).await?;
        attempt.network = Some(network);
    }
    Ok((anchor, attempt.abort.clone(), How::Anchored(Box::new(attempt))))
}

impl Prepared {
    /// Brings the container back. If that fails, nothing of it is left.
    pub async fn run(self) -> Result<Restored, Error> {
        let Prepared { how, subject, policy, took, .. } = self;
        let begun = Instant::now();
        let result = match how {
            How::Anchored(attempt) => attempt.run(None).await,
            How::Held(held) => held.go_on().await,
        };
        let figures = result.as_ref().map(|restored| &restored.figures);
        account::of_restore(&subject, &policy, took + begun.elapsed(), figures);
        result
    }

    /// Ends what was begun. The anchor is the owner's to end.
    pub async fn abandon(self) {
        match self.how {
            How::Anchored(attempt) => attempt.abandon().await,
            How::Held(held) => held.abandon().await,
        }
    }
}

/// One restore, from what was prepared to a running container.
#[derive(Debug)]
struct Attempt {
    subject: Arc<Subject>,
    image: Image,
    /// Where the image's memory is, if it isn't there as CRIU reads it.
    scratch: Option<Scratch>,
    version: Version,
    policy: Policy,
    fit: fit::Fit,
    hooks: Hooks,
    changes: Option<changes::Changes>,
    network: Option<Network>,
    /// The pid of who holds the namespaces before the container does.
    anchor: u32,
    abort: Abort,
}

impl Attempt {
    /// With a socket to hold at, it stops there once the namespaces are made.
    async fn run(mut self, hold: Option<&Path>) -> Result<Restored, Error> {
        claim_cgroup(&self.subject);
        let result = self.with_files(hold).await;
        match &result {
            Err(Error::Runtime(error)) if error.is_taken() => {}
            Err(_) => remove_unfinished(&self.subject).await,
            Ok(_) => {}
        }
        let network = self.network.take();
        self.abandon().await;
        let (live, figures) = result?;
        Ok(Restored { live, network, figures })
    }

    /// Nobody needs what was unpacked any more. The daemon made its copy for us and forgets it.
    async fn abandon(self) {
        if let Some(scratch) = self.scratch {
            scratch.remove().await;
        }
        aside(move || remove_daemons_copy(&self.image.path)).await;
    }

    async fn with_files(&mut self, hold: Option<&Path>) -> Result<(Live, Figures), Error> {
        if hold.is_none() {
            self.put_back_changes().await?;
        }
        let shm = self.put_back_shm().await?;
        let result = self.bring_back(hold).await;
        if result.is_err() {
            aside(move || shm.undo()).await;
        }
        result
    }

    async fn bring_back(&mut self, hold: Option<&Path>) -> Result<(Live, Figures), Error> {
        self.await_memory().await?;
        if self.version.flavour == Flavour::Crun && hold.is_none() {
            spec_hooks::run(&self.subject, self.anchor, &self.abort).await?;
        }
        let work = work_folder(&self.subject, "restore").map_err(Error::Write)?;
        let options = self.options();
        let terminal = self.terminal();
        let (bundle, network) = (self.subject.bundle.clone(), self.network.as_ref().map(Network::place));
        aside(move || adapt::config(&bundle, terminal, network.as_deref())).await?;
        let view = View::of(self)?;
        let check = self.image.check_rest()?;
        let mut calls = self.hooks.listen(&self.subject, check).map_err(Error::Hooks)?;
        let asks = calls.place();
        let config = self
            .config(hold, asks.is_some())
            .write(&work)
            .map_err(|source| Error::Write(checkpoint::Error::Write { path: work.to_owned(), source }))?;
        let name = self.new_name();
        let call = CriuCall {
            version: &self.version,
            image: &view.place(),
            work: &work,
            options: &options,
            config: Some(&config),
            link_remap: false,
            skip_in_flight: false,
            hold,
            hooks: asks.as_deref(),
            hostname: name.as_deref(),
            deadline: if hold.is_some() { held::LONGEST } else { self.deadline() },
            abort: &self.abort,
        };
        let lock = lock::close(self).await;
        let mut watch = Watch::start();
        let result = calls.beside(self.restore(&call, terminal)).await;
        watch.restored();
        let unasked = if result.is_ok() { calls.await_check().await.err() } else { None };
        if let Some(lock) = lock {
            lock.open(result.is_err()).await;
        }
        hand_on(&work, self.subject.restore_work.as_deref(), &[RESTORE_LOG]);
        if result.is_err() {
            let work = work.to_owned();
            aside(move || remove_mount_yard(&work)).await;
        }
        if let Some(error) = self.objection(&mut calls, unasked) {
            // CRIU doesn't mind if a script fails at the last moment.
            if let Ok(live) = &result {
                let _ = live.process.signal(9);
            }
            return Err(error);
        }
        let live = match result {
            Err(Error::Runtime(error)) => return Err(self.explained(error, &work).await),
            other => other?,
        };
        if let Err(error) = self.confine(&live) {
            let _ = live.process.signal(9);
            return Err(error);
        }
        let last = self.hooks.run(Stage::PostResume, &self.subject, Some(live.process.pid()));
        // Whoever calls it off now wants the container dead; its owner sees to that.
        if let Ok(Err(error)) = self.abort.unless("restore", last).await {
            tracing::warn!(%error, "the container runs");
        }
        Ok((live, watch.stop(&work, &self.image)))
    }

    async fn explained(&self, error: runtime::Error, work: &Path) -> Error {
        let image = self.image.files().to_owned();
        match explain(error, work.join(RESTORE_LOG)).await {
            Ok(failure) => Error::Criu(aside(move || failure.with_image(&image)).await),
            Err(error) => Error::Runtime(error),
        }
    }

    /// What was found out on the way, whatever CRIU says.
    fn objection(&self, calls: &mut Calls<'_>, unasked: Option<pages::Error>) -> Option<Error> {
        match calls.damage().or(unasked) {
            Some(damage) => Some(self.image.damaged(&damage.in_image()).into()),
            None => calls.failure().map(Error::from),
        }
    }

    async fn put_back_shm(&self) -> Result<PutBack, Error> {
        let kept = self.image.manifest.as_ref().map_or(&[][..], |manifest| &manifest.shm);
        if kept.is_empty() || !self.policy.keeps_shm() {
            return Ok(PutBack::default());
        }
        let (kept, spec, image) = (kept.to_vec(), self.subject.spec.clone(), self.image.place());
        let limits = shm::Limits { until: Instant::now() + self.deadline(), abort: self.abort.clone() };
        Ok(aside(move || shm::put_back(&kept, &spec, &image, &limits)).await?)
    }

    async fn restore(&self, call: &CriuCall<'_>, terminal: bool) -> Result<Live, Error> {
        let Subject { runtime, plan, identity, io_owner, bundle, no_pivot, .. } = &*self.subject;
        let window = runtime.reaper.window();
        if terminal {
            let client = plan.open_for_console(runtime.reaper, identity).await?;
            let socket = ConsoleSocket::listen(bundle)?;
            let ends = Ends::Terminal(socket.name());
            let process = runtime.restore(&window, ends, call, *no_pivot).await.map_err(Error::Runtime)?;
            return Ok(Live::on_terminal(process, client, socket).await?);
        }
        let (ends, prepared) = plan.open(runtime.reaper, identity, *io_owner).await?;
        prepared.fill_stdin(&self.image.unread())?;
        let ends = Ends::Pipes(ends);
        let process = runtime.restore(&window, ends, call, *no_pivot).await.map_err(Error::Runtime)?;
        Ok(Live { process, streams: prepared.connect()? })
    }

    /// Its own limits hold only in its own cgroup, and its filter has to hold for everybody.
    fn confine(&self, live: &Live) -> Result<(), Error> {
        cgroup::check(&self.subject, &live.process).map_err(Error::Cgroup)?;
        let Some(program) = &self.fit.filter else { return Ok(()) };
        filter::keep(&self.subject, program).map_err(Error::Filter)
    }
}
